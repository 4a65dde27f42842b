import pytest
import torch
from torch import nn

from models.prediction import Prediction
from models.training.evaluate import evaluate, score
from models.training.panels import PanelRows
from models.training.precision import Precision, PrecisionConfig, resolved

CPU = torch.device("cpu")


class Oracle(nn.Module):
    """Knows where the bright square is, answers 0.5 for depth, and must not be in training."""

    def forward(self, background, composite):
        """See the class."""
        assert not self.training
        mask = 100 * ((composite - background).abs().sum(1, keepdim=True) > 0).float() - 50
        return Prediction(mask_logits=mask, depth_logits=torch.zeros_like(mask))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_scores_are_those_of_the_samples_whatever_the_batches(make_trainer, loader, batch_size):
    """Computed by hand over the five validation samples; padding does not count."""
    network = Oracle().train()
    found = evaluate(
        network,
        loader,
        size=16,
        batch_size=batch_size,
        facts=make_trainer().facts,
        precision=Precision(PrecisionConfig(), CPU),
    )
    depth = loader.depth[loader.num_samples :]
    assert found["mask_iou"] == 1
    assert found["depth_rmse"] == pytest.approx((depth - 0.5).square().mean().sqrt().item())
    assert found["baseline_depth_rmse"] == pytest.approx(
        (depth - 0.4).square().mean().sqrt().item()
    )
    assert network.training


def test_published_figures_are_added_when_they_are_asked_for(make_trainer, loader):
    arguments = {"size": 16, "batch_size": 2, "facts": make_trainer().facts}
    precision = Precision(PrecisionConfig(), CPU)
    plain = evaluate(Oracle(), loader, **arguments, precision=precision)
    found = evaluate(Oracle(), loader, **arguments, precision=precision, published=True)
    assert found.items() >= plain.items()
    assert {"published_000_dice", "published_004_iou", "published_004_rmse"} <= found.keys()
    # the oracle's mask is right: 1 / 255 of a Dice of 1, and its epsilon
    assert found["published_000_dice_mask"] == pytest.approx(1 / 255, abs=2e-3)
    assert not any(name.startswith("published") for name in plain)


def test_a_network_goes_back_to_training_when_validation_breaks(make_trainer, loader):
    def fail(_):
        raise RuntimeError

    loader.on_validate = fail
    network = Oracle().train()
    with pytest.raises(RuntimeError):
        evaluate(
            network,
            loader,
            size=8,
            batch_size=2,
            facts=make_trainer().facts,
            precision=Precision(PrecisionConfig(), CPU),
        )
    assert network.training


def test_panels_show_the_first_samples_across_batches_and_no_padding(make_trainer, loader):
    """Five samples in batches of two: the padding of the last batch is not drawn."""
    facts = make_trainer().facts
    heights = []
    for num_rows in (1, 3, 8):
        rows = PanelRows(num_rows)
        evaluate(
            Oracle(),
            loader,
            size=16,
            batch_size=2,
            facts=facts,
            precision=Precision(PrecisionConfig(), CPU),
            observe=rows.add,
        )
        heights.append(rows.draw(facts).height)
    one, three, five = heights
    assert (three - one, five - three) == (2 * 20, 2 * 20)


def test_no_rows_draw_nothing(make_trainer):
    assert PanelRows(0).draw(make_trainer().facts) is None


def test_a_network_without_a_task_is_scored_by_the_other():
    assert score({"mask_iou": 0.9, "depth_rmse": 0.2}) == pytest.approx(0.7)
    assert score({"mask_iou": 0.9}) == 0.9
    assert score({"depth_rmse": 0.2}) == -0.2


@pytest.mark.parametrize(
    ("dtype", "capabilities", "expected"),
    [
        ("auto", {"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ("auto", {"avx512_bf16": False, "amx_bf16": True}, "bf16"),
        ("auto", {"avx2": True}, "fp32"),
        ("bf16", {}, "bf16"),
        ("fp32", {"avx512_bf16": True}, "fp32"),
    ],
)
def test_a_cpu_computes_in_bf16_where_it_has_instructions_for_it(
    monkeypatch, dtype, capabilities, expected
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert Precision(PrecisionConfig(dtype=dtype), CPU).name == expected
    assert resolved(PrecisionConfig(dtype=dtype), CPU).dtype == expected


@pytest.mark.parametrize(
    ("dtype", "inner"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_network_computes_in_the_format_asked_for_and_logits_are_float32(dtype, inner):
    seen = []

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 1)

        def forward(self, background, composite):
            logits = self.conv(composite)
            seen.append(logits.dtype)
            return Prediction(mask_logits=logits, depth_logits=None)

    precision = Precision(PrecisionConfig(dtype=dtype), CPU)
    network = precision.place(Network())
    prediction = precision.predict(network, None, torch.rand(2, 3, 4, 4))
    assert seen == [inner]
    assert prediction.mask_logits.dtype == torch.float32
    assert prediction.depth_logits is None
    assert network.conv.weight.dtype == torch.float32


# importing the compiler defines a class by torch's own deprecated decorator
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")
def test_nothing_is_compiled_on_a_cpu_unless_asked():
    network = Oracle()
    assert Precision(PrecisionConfig(), CPU).compiled(network) is network
    assert Precision(PrecisionConfig(compile="on"), CPU).compiled(network) is not network
