import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import NoReturn

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import kl_div
from torch import Tensor

from models.metrics import Metrics, PublishedFigures
from models.metrics.boundary import boundary_f
from models.metrics.similarity import similarity
from models.prediction import Prediction

STD = (0.25, 0.2, 0.3)
SIZE = 8


def logit(p: Tensor) -> Tensor:
    return torch.logit(p, eps=1e-6)


def case(num: int = 5, seed: int = 0) -> dict[str, Tensor]:
    """A batch whose mask, depth and images have nothing to do with each other."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(channels: int) -> Tensor:
        return torch.rand(num, channels, SIZE, SIZE, generator=generator)

    return {
        "mask_logits": logit(uniform(1)),
        "depth_logits": logit(uniform(1)),
        "background": uniform(3),
        "composite": uniform(3),
        "mask": (uniform(1) > 0.7).float(),
        "depth": uniform(1),
        "weight": torch.ones(num),
    }


def measure(*batches: dict[str, Tensor | None], mean_depth: float = 0.5) -> dict[str, float]:
    metrics = Metrics(STD, torch.full((SIZE, SIZE), mean_depth))
    for batch in batches:
        rest = dict(batch)
        prediction = Prediction(rest.pop("mask_logits"), rest.pop("depth_logits"))
        metrics.update(prediction, **rest)  # type: ignore[arg-type]
    return metrics.compute()


def masks(predicted: Tensor, truth: Tensor) -> dict[str, float]:
    return measure(case(len(truth)) | {"mask_logits": 20 * predicted - 10, "mask": truth})


def test_every_metric_agrees_with_numpy() -> None:
    batch = case()
    found = measure(batch, mean_depth=0.4)
    array = {name: part.double().numpy() for name, part in batch.items()}
    predicted, truth = array["mask_logits"] > 0, array["mask"] > 0.5
    overlap = (predicted & truth).sum((1, 2, 3))
    union = (predicted | truth).sum((1, 2, 3))
    areas = predicted.sum((1, 2, 3)) + truth.sum((1, 2, 3))
    p, t = 1 / (1 + np.exp(-array["depth_logits"])), array["depth"]
    levels = 255 * np.array(STD)[:, None, None] * (array["composite"] - array["background"])
    free = np.sqrt((levels**2).sum(1, keepdims=True)) > 40
    q = 1 / (1 + np.exp(-array["mask_logits"]))
    products, sums = (q * truth).sum((1, 2, 3)), (q + truth).sum((1, 2, 3))
    floored = np.maximum(t, 1 / 255)
    ratio = np.maximum(p / floored, floored / p)
    divergence = kl_div(t, p) + kl_div(1 - t, 1 - p)
    # checked against scipy in their own tests
    boundary = boundary_f(batch["mask_logits"] > 0, batch["mask"] > 0.5)
    ssim = similarity(batch["depth_logits"].sigmoid(), batch["depth"])
    expected = {
        "mask_iou": (overlap / union).mean(),
        "mask_iou_global": overlap.sum() / union.sum(),
        "mask_dice": (2 * overlap / areas).mean(),
        "mask_dice_global": 2 * overlap.sum() / areas.sum(),
        "mask_iou_soft": (products / (sums - products)).mean(),
        "mask_dice_soft": (2 * products / sums).mean(),
        "mask_boundary_f": boundary.mean().item(),
        "mask_accuracy": (predicted == truth).mean(),
        "mask_bce_excess": -np.log(np.where(truth, q, 1 - q)).mean(),
        "depth_rmse": np.sqrt(((p - t) ** 2).mean()),
        "depth_mae": np.abs(p - t).mean(),
        "depth_absrel": (np.abs(p - t) / floored).mean(),
        "depth_delta1": (ratio < 1.25).mean(),
        "depth_delta2": (ratio < 1.25**2).mean(),
        "depth_delta3": (ratio < 1.25**3).mean(),
        "depth_ssim": ssim.mean().item(),
        "depth_bce_excess": divergence.mean(),
        "baseline_mask_iou": ((free & truth).sum((1, 2, 3)) / (free | truth).sum((1, 2, 3))).mean(),
        "baseline_depth_rmse": np.sqrt(((0.4 - t) ** 2).mean()),
    }
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_free_mask_takes_the_distance_of_two_colours_in_levels_of_255() -> None:
    """41 levels in one channel or 24 in each of three (41.6 together) are a change, 39 are not."""
    levels = torch.zeros(4, 3, SIZE, SIZE)
    levels[0, 1, :4] = 41
    levels[1, :, :4] = -24
    levels[2, 2, :4] = 39
    levels[3, :, :4] = 23
    truth = torch.zeros(4, 1, SIZE, SIZE)
    truth[:, :, :4] = 1
    background = case(4)["background"]
    composite = background + levels / (255 * torch.tensor(STD).view(3, 1, 1))
    for row, expected in enumerate((1.0, 1.0, 0.0, 0.0)):
        batch = case(4) | {"background": background, "composite": composite, "mask": truth}
        found = measure({name: part[row : row + 1] for name, part in batch.items()})
        assert found["baseline_mask_iou"] == expected


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_dice_of_a_mask_with_itself_is_1(seed: int) -> None:
    truth = case(3, seed)["mask"]
    found = masks(truth, truth)
    for name in ("mask_dice", "mask_iou", "mask_dice_global", "mask_iou_global", "mask_accuracy"):
        assert found[name] == 1
    for name in ("mask_dice_soft", "mask_iou_soft", "mask_boundary_f"):
        assert found[name] == pytest.approx(1, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_iou_is_symmetric_and_never_above_dice(seed: int) -> None:
    batch = case(3, seed)
    one, other = (batch["mask_logits"] > 0).float(), batch["mask"]
    found, swapped = masks(one, other), masks(other, one)
    for kind in ("", "_global", "_soft"):
        for name in ("mask_iou" + kind, "mask_dice" + kind):
            # logits of 10 are not quite 0 and 1
            assert found[name] == pytest.approx(swapped[name], abs=1e-3 if kind == "_soft" else 0)
            assert 0 <= found[name] <= 1
        assert found["mask_iou" + kind] <= found["mask_dice" + kind]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    order=st.permutations(range(5)),
    cuts=st.sets(st.integers(1, 4), max_size=4),
)
def test_neither_order_nor_the_cut_into_batches_matters(
    seed: int, order: list[int], cuts: set[int]
) -> None:
    batch = case(5, seed)
    borders = [0, *sorted(cuts), 5]
    parts = [
        {name: part[order[start:stop]] for name, part in batch.items()}
        for start, stop in pairwise(borders)
    ]
    found, whole = measure(*parts), measure(batch)
    # a convolution of other images beside it rounds a little differently
    assert found.pop("depth_ssim") == pytest.approx(whole.pop("depth_ssim"), abs=1e-6)
    assert found == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 1e30])
def test_samples_of_weight_0_change_nothing_whatever_they_hold(junk: float) -> None:
    batch = case(4)
    padding = {name: torch.full_like(part[:2], junk) for name, part in batch.items()}
    padding["weight"] = torch.zeros(2)
    padded = {name: torch.cat([part, padding[name]]) for name, part in batch.items()}
    found, expected = measure(padded), measure(batch)
    assert found.pop("depth_ssim") == pytest.approx(expected.pop("depth_ssim"), abs=1e-6)
    assert found == expected


def test_a_sample_of_weight_2_counts_like_two_samples() -> None:
    batch = case(2)
    doubled = {name: part[[0, 1, 1]] for name, part in batch.items()}
    found = measure(batch | {"weight": torch.tensor([1.0, 2.0])})
    assert found == pytest.approx(measure(doubled))


def test_two_empty_masks_agree_and_an_empty_one_disagrees_with_any_other() -> None:
    empty = torch.zeros(1, 1, SIZE, SIZE)
    found = masks(empty, empty)
    for name in ("mask_iou", "mask_dice", "mask_iou_global", "mask_dice_global"):
        assert found[name] == 1
    assert found["mask_boundary_f"] == 1
    assert masks(empty, 1 - empty)["mask_iou"] == masks(1 - empty, empty)["mask_iou"] == 0


def test_black_depth_has_a_finite_delta1() -> None:
    black = torch.zeros(1, 1, SIZE, SIZE)
    batch = case(1) | {"depth": black}
    assert measure(batch | {"depth_logits": black - 1e4})["depth_delta1"] == 1
    assert measure(batch | {"depth_logits": black})["depth_delta1"] == 0


def test_without_a_background_there_is_no_mask_baseline() -> None:
    found = measure({**case(), "background": None})
    assert "baseline_mask_iou" not in found
    assert {"mask_iou", "depth_rmse", "baseline_depth_rmse"} <= set(found)


@pytest.mark.parametrize(("task", "other"), [("mask", "depth"), ("depth", "mask")])
def test_a_task_that_the_network_lacks_is_left_out_of_the_table(task: str, other: str) -> None:
    found = measure({**case(), f"{task}_logits": None})
    assert not any(name.startswith(task) for name in found)
    assert any(name.startswith(other) for name in found)


def test_nothing_counted_gives_an_empty_table() -> None:
    assert measure(case() | {"weight": torch.zeros(5)}) == {}


def test_ranks_are_joined_by_adding_their_sums() -> None:
    whole, one, other = (Metrics(STD, torch.full((SIZE, SIZE), 0.5)) for _ in range(3))
    for seed, rank in ((1, one), (2, other)):
        rest = case(3, seed)
        prediction = Prediction(rest.pop("mask_logits"), rest.pop("depth_logits"))
        for metrics in (rank, whole):
            metrics.update(prediction, **rest)  # type: ignore[arg-type]
    one.sums += other.sums
    assert one.compute() == pytest.approx(whole.compute())


def test_bfloat16_images_and_logits_are_measured_in_float32() -> None:
    batch = case() | {"composite": case(seed=1)["background"]}
    narrow = ("mask_logits", "depth_logits", "background", "composite")
    half = {name: part.bfloat16() if name in narrow else part for name, part in batch.items()}
    widened = {name: part.float() for name, part in half.items()}
    assert measure(half) == measure(widened)


def test_depth_in_three_channels_is_averaged_for_metrics() -> None:
    """Their cross-entropy is each channel's own, as in training."""
    batch = case(3)
    channels = torch.cat([case(3, seed)["depth_logits"] for seed in (1, 2, 3)], 1)
    average = logit(channels.sigmoid().mean(1, keepdim=True))
    found = measure(batch | {"depth_logits": channels})
    expected = measure(batch | {"depth_logits": average})
    excess = found.pop("depth_bce_excess")
    assert excess > expected.pop("depth_bce_excess")
    assert found == pytest.approx(expected, abs=1e-6)
    single = [measure(batch | {"depth_logits": channels[:, [k]]}) for k in range(3)]
    assert excess == pytest.approx(np.mean([one["depth_bce_excess"] for one in single]))


def update_all(device: str, *batches: dict[str, Tensor]) -> tuple[Metrics, PublishedFigures]:
    metrics = Metrics(STD, torch.full((SIZE, SIZE), 0.5), device)
    figures = PublishedFigures(device)
    moved = [{name: part.to(device) for name, part in batch.items()} for batch in batches]
    with no_questions(device):
        for rest in moved:
            prediction = Prediction(rest.pop("mask_logits"), rest.pop("depth_logits"))
            metrics.update(prediction, **rest)  # type: ignore[arg-type]
            targets = {name: rest[name] for name in ("mask", "depth", "weight")}
            figures.update(prediction, **targets)
    return metrics, figures


@contextmanager
def no_questions(device: str) -> Iterator[None]:
    """Every way to ask a tensor for its content raises."""

    def refuse(*_: object, **__: object) -> NoReturn:
        msg = "an update asked the device for a value"
        raise AssertionError(msg)

    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__"):
                patch.setattr(Tensor, name, refuse)
            yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_update_never_asks_for_a_value(device: str) -> None:
    """On the meta device there are no values, so whatever depends on one fails."""
    metrics, figures = update_all(device, case(seed=0), case(seed=1))
    for sums in (metrics.sums, figures.sums):
        assert sums.device.type == device
        assert sums.dtype == torch.float64
    with pytest.raises(AssertionError, match="asked the device"), no_questions(device):
        metrics.compute()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_nothing_waits_for_the_device_before_the_metrics_are_read() -> None:
    """The same figures as on the CPU, although convolutions may be allowed TF32."""
    batches = case(seed=0), case(seed=1)
    update_all("cuda", *batches)  # what a first call sets up may wait
    for found, expected in zip(
        update_all("cuda", *batches), update_all("cpu", *batches), strict=True
    ):
        assert found.compute() == pytest.approx(expected.compute(), rel=1e-4, abs=1e-5)
