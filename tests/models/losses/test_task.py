import re
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.error import TrainingError
from models.losses import TERMS, LossConfig, Losses, TaskLoss, bce, dice, l1, ssim
from models.prediction import Prediction

SMALL = {"ms_ssim": "ms_ssim(window=3)"}
"""How a term is written for images of `SIDE` pixels, where its name alone needs larger ones."""

SIDE = 34


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(num: int, size: int = SIDE, channels: int = 1) -> tuple[Prediction, Tensor, Tensor]:
    mask = (seeded(num, 1, size, size, seed=3) > 0).float()
    depth = seeded(num, 1, size, size, seed=4).sigmoid()
    logits = seeded(num, 1, size, size, seed=1), seeded(num, channels, size, size, seed=2)
    return Prediction(*logits), mask, depth


def loss_of(name: str) -> TaskLoss:
    return TaskLoss(LossConfig(mask=SMALL.get(name, name), depth=SMALL.get(name, name)))


def test_the_total_is_the_weighted_sum_of_both_tasks() -> None:
    prediction, mask, depth = batch(3)
    config = LossConfig(
        mask="2 bce + dice", depth="0.85 ssim(window=3) + 0.15*l1", mask_weight=0.5, depth_weight=2
    )
    losses = TaskLoss(config)(prediction, mask, depth, torch.ones(3))
    assert prediction.mask_logits is not None
    assert prediction.depth_logits is not None
    mask_loss = (2 * bce(prediction.mask_logits, mask) + dice(prediction.mask_logits, mask)).mean()
    terms = (ssim(prediction.depth_logits, depth, window=3), l1(prediction.depth_logits, depth))
    depth_loss = (0.85 * terms[0] + 0.15 * terms[1]).mean()
    expected = Losses(0.5 * mask_loss + 2 * depth_loss, mask_loss, depth_loss)
    torch.testing.assert_close(losses, expected)


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_weights_of_the_tasks_may_be_told_for_a_step(kind: type) -> None:
    prediction, mask, depth = batch(2)
    loss = TaskLoss(LossConfig(mask_weight=0.5, depth_weight=2))
    arguments = prediction, mask, depth, torch.ones(2)
    plain = loss(*arguments)
    both = loss(*arguments, mask_weight=kind(3.0), depth_weight=kind(0.0))
    one = loss(*arguments, depth_weight=kind(7.0))
    assert both.total.item() == pytest.approx(3 * plain.mask.item())
    assert one.total.item() == pytest.approx(0.5 * plain.mask.item() + 7 * plain.depth.item())
    assert (both.mask, both.depth) == (plain.mask, plain.depth)
    assert loss(*arguments).total == plain.total


@pytest.mark.parametrize("name", TERMS)
def test_samples_of_weight_0_change_neither_losses_nor_gradients(name: str) -> None:
    """Whatever their targets hold, also not a number."""
    prediction, mask, depth = batch(5)
    mask[3:], depth[4] = torch.nan, 1e4
    leaves = [part.clone().requires_grad_() for part in prediction[:2] if part is not None]
    loss = loss_of(name)
    all_five = loss(Prediction(*leaves), mask, depth, torch.tensor([1.0, 1, 1, 0, 0]))
    three = prediction.apply(lambda part: part[:3])
    torch.testing.assert_close(all_five, loss(three, mask[:3], depth[:3], torch.ones(3)))
    all_five.total.backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad[3:].abs().max() == 0
        assert leaf.grad[:3].abs().max() > 0


@pytest.mark.parametrize("name", TERMS)
@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(0, 3), min_size=3, max_size=3).filter(any))
def test_a_sample_of_weight_2_counts_like_two_samples(name: str, counts: list[int]) -> None:
    prediction, mask, depth = batch(3)
    repeated = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    copies = prediction.apply(lambda part: part[repeated])
    loss = loss_of(name)
    torch.testing.assert_close(
        loss(prediction, mask, depth, torch.tensor(counts).float()),
        loss(copies, mask[repeated], depth[repeated], torch.ones(len(repeated))),
    )


@pytest.mark.parametrize("name", TERMS)
def test_a_batch_of_nothing_but_padding_costs_exactly_0(name: str) -> None:
    prediction, mask, depth = batch(2)
    assert loss_of(name)(prediction, mask, depth, torch.zeros(2)).total == 0


@pytest.mark.parametrize("missing", ["mask", "depth"])
def test_a_network_of_one_task_is_charged_for_that_alone(missing: str) -> None:
    """Not even the targets of the other are looked at."""
    prediction, mask, depth = batch(2)
    both = TaskLoss(LossConfig())(prediction, mask, depth, torch.ones(2))
    one = TaskLoss(LossConfig())(
        prediction._replace(**{f"{missing}_logits": None}),
        mask * (255 if missing == "mask" else 1),
        depth * (255 if missing == "depth" else 1),
        torch.ones(2),
    )
    other = "depth" if missing == "mask" else "mask"
    assert getattr(one, missing) == 0
    assert one.total == getattr(one, other) == getattr(both, other) > 0


@pytest.mark.parametrize("name", TERMS)
def test_the_losses_are_float32_under_autocast(name: str) -> None:
    prediction, mask, depth = batch(2)
    half = prediction.apply(Tensor.bfloat16)
    as_float = half.apply(Tensor.float)
    loss = loss_of(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = loss(half, mask, depth, torch.ones(2))
    assert {part.dtype for part in losses} == {torch.float32}
    torch.testing.assert_close(losses, loss(as_float, mask, depth, torch.ones(2)), atol=0, rtol=0)


@pytest.mark.parametrize("name", TERMS)
def test_each_of_three_depth_channels_is_compared_with_the_grey_target(name: str) -> None:
    prediction, mask, depth = batch(2, channels=3)
    assert prediction.depth_logits is not None
    loss = loss_of(name)(prediction, mask, depth, torch.ones(2)).depth
    grey = depth.repeat(1, 3, 1, 1)
    expected = loss_of(name)(Prediction(prediction.depth_logits, None), grey, depth, torch.ones(2))
    torch.testing.assert_close(loss, expected.mask)
    if name in {"bce", "l1", "mse", "ssim", "dssim", "ms_ssim", "gradient", "charbonnier"}:
        alone = [
            loss_of(name)(Prediction(None, part), mask, depth, torch.ones(2)).depth
            for part in prediction.depth_logits.split(1, dim=1)
        ]
        torch.testing.assert_close(loss, torch.stack(alone).mean())


@pytest.mark.parametrize("name", [name for name in TERMS if name not in SMALL])
def test_the_loss_is_the_mean_over_the_scales_of_a_prediction(name: str) -> None:
    """Each against the target averaged over squares of pixels: 48, 24 and 12 px."""
    full, mask, depth = batch(2, size=48)
    scales = [
        Prediction(seeded(2, 1, side, side, seed=side), seeded(2, 1, side, side, seed=side + 1))
        for side in (24, 12)
    ]
    losses = loss_of(name)(full._replace(scales=tuple(scales)), mask, depth, torch.ones(2))
    alone = []
    for scale, prediction in zip((1, 2, 4), (full, *scales), strict=True):
        side = 48 // scale
        smaller = [t.view(2, 1, side, scale, side, scale).mean((3, 5)) for t in (mask, depth)]
        alone.append(loss_of(name)(prediction, *smaller, torch.ones(2)))
    torch.testing.assert_close(losses.mask, torch.stack([each.mask for each in alone]).mean())
    torch.testing.assert_close(losses.depth, torch.stack([each.depth for each in alone]).mean())


def test_scales_may_be_of_depth_alone_and_learn() -> None:
    full, mask, depth = batch(2)
    small = seeded(2, 1, 17, 17).requires_grad_()
    prediction = full._replace(scales=(Prediction(None, small),))
    losses = TaskLoss(LossConfig())(prediction, mask, depth, torch.ones(2))
    assert losses.mask == TaskLoss(LossConfig())(full, mask, depth, torch.ones(2)).mask
    losses.total.backward()
    assert small.grad is not None
    assert small.grad.abs().max() > 0


def test_an_image_smaller_than_a_window_is_refused_without_a_warning() -> None:
    prediction, mask, depth = batch(1, size=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="largest window that fits is 7 px"):
            TaskLoss(LossConfig())(prediction, mask, depth, torch.ones(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: 255 * t, "lie in 0 to 255, above 1: probably 8-bit levels that were not"),
        (lambda t: 65535 * t, "lie in 0 to 6.554e+04, above 1: probably 16-bit levels"),
        (lambda t: (t - 0.05) / 0.226, "lie in -0.2212 to 4.204, below 0: probably standardised"),
        (lambda t: t / t, "lie in nan to nan, so some are no finite numbers"),
        (lambda t: 1 / t, "lie in 1 to inf, so some are no finite numbers"),
    ],
)
@pytest.mark.parametrize("task", ["mask", "depth"])
def test_targets_outside_0_to_1_are_refused_at_the_first_batch(
    change: object, message: str, task: str
) -> None:
    """Four of five reference systems trained on such targets without noticing."""
    prediction, mask, depth = batch(2)
    assert callable(change)
    depth[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    targets = {"mask": mask, "depth": depth}
    targets[task] = change(targets[task])
    with pytest.raises(TrainingError, match=f"{task} targets {re.escape(message)}") as error:
        TaskLoss(LossConfig())(prediction, **targets, weight=torch.ones(2))
    assert "\n" not in str(error.value)
    assert str(error.value).count("targets lie") == 1


def test_both_tasks_at_fault_are_told_at_once() -> None:
    prediction, mask, depth = batch(2)
    with pytest.raises(TrainingError, match=r"mask targets lie in .*; depth targets lie in "):
        TaskLoss(LossConfig())(prediction, 255 * mask, depth - 1, torch.ones(2))


def test_targets_may_miss_the_range_by_rounding_alone() -> None:
    prediction, mask, depth = batch(2)
    TaskLoss(LossConfig())(prediction, mask + 1e-6, depth - depth.min() - 1e-6, torch.ones(2))
    with pytest.raises(TrainingError, match="above 1"):
        TaskLoss(LossConfig())(prediction, mask + 1e-3, depth, torch.ones(2))


def test_the_range_is_looked_at_once_and_a_refused_batch_does_not_count() -> None:
    """Looking means to wait for the device, which no later step may."""
    prediction, mask, depth = batch(2)
    loss = TaskLoss(LossConfig())
    for _ in range(2):
        with pytest.raises(TrainingError, match="above 1"):
            loss(prediction, 255 * mask, depth, torch.ones(2))
    loss(prediction, mask, depth, torch.ones(2))
    loss(prediction, 255 * mask, depth, torch.ones(2))


def test_a_batch_without_a_sample_that_counts_vouches_for_nothing() -> None:
    prediction, mask, depth = batch(2)
    loss = TaskLoss(LossConfig())
    loss(prediction, 255 * mask, depth, torch.zeros(2))
    with pytest.raises(TrainingError, match="above 1"):
        loss(prediction, 255 * mask, depth, torch.ones(2))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"mask_weight": -1.0}, "mask_weight is -1"),
        ({"depth_weight": float("nan")}, "depth_weight is nan"),
        ({"mask_weight": 0.0, "depth_weight": 0.0}, "nothing would be learned"),
    ],
)
def test_wrong_task_weights_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossConfig(**weights)
