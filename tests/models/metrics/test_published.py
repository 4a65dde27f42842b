import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.metrics import PublishedFigures
from models.metrics.published import dice_000, iou_004, rmse_004
from models.prediction import Prediction

MOMENTS = {
    ("000", "mask"): (0.04608837, 0.20544916),
    ("000", "depth"): (0.50911522, 0.28174302),
    ("004", "mask"): (0.05207, 0.21686),
    ("004", "depth"): (0.2981, 0.11561),
}
"""Mean and standard deviation that the systems printed of their own targets."""


def targets(system: str, task: str, side: int = 500) -> Tensor:
    """An image of two grey levels, one of them black, with the moments of a system's targets."""
    mean, std = MOMENTS[system, task]
    second_moment = mean**2 + std**2
    pixels = torch.zeros(side * side)
    pixels[: round(side * side * mean**2 / second_moment)] = second_moment / mean
    return pixels.view(1, 1, side, side)


def figures(*batches: tuple[Tensor | None, Tensor | None, Tensor, Tensor]) -> dict[str, float]:
    """Of batches of probabilities of mask and depth, and their targets; every weight is 1."""
    found = PublishedFigures()
    for mask_answer, depth_answer, mask, depth in batches:
        logits = [
            None if part is None else torch.logit(part) for part in (mask_answer, depth_answer)
        ]
        found.update(Prediction(*logits), mask=mask, depth=depth, weight=torch.ones(len(mask)))
    return found.compute()


def batch(num: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.rand(num, 1, 6, 7, generator=generator).clamp(0.01, 0.99) for _ in range(4)]
    parts[2] = (parts[2] > 0.7).float()
    return tuple(parts)  # type: ignore[return-value]


def dice_of_one_image(answered: Tensor, target: Tensor) -> float:
    """000's `DiceCoeff` in numpy: `target` as its loader delivered it, in [0, 1/255]."""
    x, t = answered.double().numpy().ravel(), target.double().numpy().ravel()
    return float((2 * np.dot(x, t) + 0.0001) / (x.sum() + t.sum() + 0.0001))


@pytest.mark.parametrize(("task", "printed"), [("mask", 0.00377), ("depth", 0.00261)])
def test_a_perfect_prediction_has_000s_dice_of_a_few_thousandths(task: str, printed: float) -> None:
    """The second moment over 255 times the mean: what its own data allow."""
    target = targets("000", task)
    assert round(dice_000(target / 255, target).item(), 5) == printed
    mean, std = MOMENTS["000", task]
    assert round((mean**2 + std**2) / (255 * mean), 5) == printed


def test_both_tasks_together_are_000s_perfect_319_millionths() -> None:
    """The system printed 0.0031, which is 0.97 of it."""
    mask, depth = targets("000", "mask"), targets("000", "depth")
    answers = [part.clamp(1e-7, 1 - 1e-7) for part in (mask, depth)]
    found = figures((answers[0], answers[1], mask, depth))
    assert round(found["published_000_dice"], 5) == 0.00319
    assert round(found["published_000_dice_perfect"], 5) == 0.00319
    assert round(found["published_000_dice_mask"], 5) == 0.00377
    assert round(found["published_000_dice_depth"], 5) == 0.00261


def test_predicting_too_much_raises_000s_dice() -> None:
    """Depth trained by RMSE printed 0.00394, above its perfect 0.00261; plain white has 0.00398."""
    target = targets("000", "depth")
    white = torch.ones_like(target)
    assert dice_000(white, target).item() == pytest.approx(2 / 255 * 0.509, rel=5e-3)
    assert dice_000(white, target) > 1.5 * dice_000(target / 255, target)


def test_a_perfect_prediction_has_an_iou_of_056_in_004() -> None:
    mask, depth = targets("004", "mask"), targets("004", "depth")
    assert round(iou_004(mask, mask).item(), 2) == 0.91
    assert round(iou_004(depth, depth).item(), 2) == 0.21
    answers = [part.clamp(1e-7, 1 - 1e-7) for part in (mask, depth)]
    found = figures((answers[0], answers[1], mask, depth))
    assert round(found["published_004_iou"], 2) == 0.56
    assert round(found["published_004_iou_perfect"], 2) == 0.56


@pytest.mark.parametrize(
    ("printed", "rmse"), [(7.17, 0.1395), (8.39, 0.119), (9.03, 0.111), (11.73, 0.085)]
)
def test_004s_rmse_is_one_over_the_error(printed: float, rmse: float) -> None:
    depth = torch.full((4, 1, 8, 8), 0.3)
    found = figures((None, depth + rmse, depth, depth))
    assert found["published_004_rmse"] == pytest.approx(printed, rel=5e-3)
    assert found["published_004_rmse"] == pytest.approx(1 / rmse, rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_they_are_what_the_systems_loops_add_up(seed: int, sizes: list[int]) -> None:
    """Both loops in numpy: images, batches, and in 004 one accumulator for both tasks."""
    batches = [batch(num, seed + index) for index, num in enumerate(sizes)]
    coefficients: list[float] = []
    ious: list[float] = []
    numerator = denominator = 0.0
    for mask_answer, depth_answer, mask, depth in batches:
        for answer, target in ((mask_answer, mask), (depth_answer, depth)):
            coefficients += [
                dice_of_one_image(p / 255, t / 255) for p, t in zip(answer, target, strict=True)
            ]
            p, t = answer.double().numpy(), target.double().numpy()
            products = (p * t).sum((1, 2, 3))
            union = (p + t).sum((1, 2, 3)) - products
            ious += list((products + 1e-6) / (union + 1e-6))
            counted = t > 0.0001
            rmse = math.sqrt(((p - t)[counted] ** 2).mean()) if counted.any() else 0
            numerator += len(t)
            denominator += rmse * len(t)
    found = figures(*batches)
    assert found["published_000_dice"] == pytest.approx(np.mean(coefficients), rel=1e-5)
    assert found["published_004_iou"] == pytest.approx(np.mean(ious), rel=1e-5)
    assert found["published_004_rmse"] == pytest.approx(numerator / denominator, rel=1e-5)


def test_of_a_mask_004_sees_the_object_alone() -> None:
    """However wrong the rest is."""
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    answer = torch.where(mask > 0, 0.75, 1.0)
    assert rmse_004(answer, mask, torch.ones(1)).item() == pytest.approx(0.25)
    assert rmse_004(answer, torch.zeros_like(mask), torch.ones(1)) == 0


def test_samples_of_weight_0_change_nothing_even_if_they_hold_nan() -> None:
    parts = batch(3, 0)
    padded = [torch.cat((part, torch.full_like(part[:2], math.nan))) for part in parts]
    found = PublishedFigures()
    found.update(
        Prediction(torch.logit(padded[0]), torch.logit(padded[1])),
        mask=padded[2],
        depth=padded[3],
        weight=torch.tensor([1.0, 1, 1, 0, 0]),
    )
    assert found.compute() == pytest.approx(figures(parts), rel=1e-6)


@pytest.mark.parametrize("task", ["mask", "depth"])
def test_a_network_of_one_task_has_the_figures_of_that_task(task: str) -> None:
    mask_answer, depth_answer, mask, depth = batch(2, 0)
    if task == "mask":
        found, values = figures((mask_answer, None, mask, depth)), iou_004(mask_answer, mask)
    else:
        found, values = figures((None, depth_answer, mask, depth)), iou_004(depth_answer, depth)
    assert found["published_004_iou"] == pytest.approx(values.mean().item(), rel=1e-5)
    assert found["published_000_dice"] == found[f"published_000_dice_{task}"]
    assert sum(name.startswith("published_000_dice_") for name in found) == 2


def test_an_rmse_of_0_has_no_figure_and_nothing_counted_has_none_at_all() -> None:
    depth = torch.full((1, 1, 4, 4), 0.5)
    found = figures((None, depth, depth, depth))
    assert "published_004_rmse" not in found
    assert "published_004_iou" in found
    assert PublishedFigures().compute() == {}
