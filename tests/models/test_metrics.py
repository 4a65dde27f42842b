import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.metrics import Metrics
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
    ratio = np.maximum(np.maximum(p, 1 / 255) / np.maximum(t, 1 / 255), 0)
    expected = {
        "mask_iou": (overlap / union).mean(),
        "mask_iou_global": overlap.sum() / union.sum(),
        "mask_dice": (2 * overlap / areas).mean(),
        "depth_rmse": np.sqrt(((p - t) ** 2).mean()),
        "depth_mae": np.abs(p - t).mean(),
        "depth_delta1": ((ratio < 1.25) & (ratio > 1 / 1.25)).mean(),
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


@given(seed=st.integers(0, 2**31))
def test_dice_of_a_mask_with_itself_is_1(seed: int) -> None:
    truth = case(3, seed)["mask"]
    found = masks(truth, truth)
    assert found["mask_dice"] == found["mask_iou"] == found["mask_iou_global"] == 1


@given(seed=st.integers(0, 2**31))
def test_iou_is_symmetric_and_never_above_dice(seed: int) -> None:
    batch = case(3, seed)
    one, other = (batch["mask_logits"] > 0).float(), batch["mask"]
    found, swapped = masks(one, other), masks(other, one)
    for name in ("mask_iou", "mask_dice", "mask_iou_global"):
        assert found[name] == pytest.approx(swapped[name])
        assert 0 <= found[name] <= 1
    assert found["mask_iou"] <= found["mask_dice"]


@given(seed=st.integers(0, 2**31), cut=st.integers(1, 4))
def test_it_does_not_matter_how_samples_are_cut_into_batches(seed: int, cut: int) -> None:
    batch = case(5, seed)
    parts = [
        {name: part[rows] for name, part in batch.items()}
        for rows in (slice(cut), slice(cut, None))
    ]
    assert measure(*parts) == pytest.approx(measure(batch), rel=1e-9)


def test_samples_of_weight_0_change_nothing_even_if_they_hold_nan() -> None:
    batch = case(4)
    padding = {name: torch.full_like(part[:2], math.nan) for name, part in batch.items()}
    padding["weight"] = torch.zeros(2)
    padded = {name: torch.cat([part, padding[name]]) for name, part in batch.items()}
    assert measure(padded) == measure(batch)


def test_a_sample_of_weight_2_counts_like_two_samples() -> None:
    batch = case(2)
    doubled = {name: part[[0, 1, 1]] for name, part in batch.items()}
    found = measure(batch | {"weight": torch.tensor([1.0, 2.0])})
    assert found == pytest.approx(measure(doubled))


def test_two_empty_masks_agree_and_an_empty_one_disagrees_with_any_other() -> None:
    empty = torch.zeros(1, 1, SIZE, SIZE)
    found = masks(empty, empty)
    assert found["mask_iou"] == found["mask_dice"] == found["mask_iou_global"] == 1
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_nothing_waits_for_the_device_before_the_metrics_are_read() -> None:
    batches = [{name: part.cuda() for name, part in case(seed=seed).items()} for seed in range(2)]
    metrics = Metrics(STD, torch.full((SIZE, SIZE), 0.5), "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for rest in batches:
            prediction = Prediction(rest.pop("mask_logits"), rest.pop("depth_logits"))
            metrics.update(prediction, **rest)  # type: ignore[arg-type]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert metrics.compute() == pytest.approx(measure(case(seed=0), case(seed=1)), rel=1e-5)
