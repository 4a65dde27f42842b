import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.metrics.mask import MASK_VALUES, mask_values


def pair(seed: int, share: float = 0.3) -> tuple[Tensor, Tensor]:
    """Logits, and a mask that has nothing to do with them."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(4, 1, 9, 10, generator=generator)
    return logits, (torch.rand(4, 1, 9, 10, generator=generator) < share).float()


def certain(mask: Tensor) -> Tensor:
    return 2e4 * mask - 1e4


def test_soft_values_and_accuracy_agree_with_numpy() -> None:
    logits, mask = pair(0)
    found = mask_values(logits, mask)
    assert tuple(found) == MASK_VALUES
    p, t = 1 / (1 + np.exp(-logits.double().numpy())), mask.double().numpy()
    products, sums = (p * t).sum((1, 2, 3)), (p + t).sum((1, 2, 3))
    np.testing.assert_allclose(found["iou_soft"], products / (sums - products), rtol=1e-6)
    np.testing.assert_allclose(found["dice_soft"], 2 * products / sums, rtol=1e-6)
    np.testing.assert_allclose(found["accuracy"], ((p > 0.5) == (t == 1)).mean((1, 2, 3)))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.0, 0.01, 0.3, 1.0]))
def test_soft_is_hard_for_a_prediction_of_0_and_1(seed: int, share: float) -> None:
    """Also where the prediction, the mask, or both are empty."""
    truth = pair(seed, share)[1]
    predicted = pair(seed + 1, share)[1]
    found = mask_values(certain(predicted), truth)
    torch.testing.assert_close(found["iou_soft"], found["iou"])
    torch.testing.assert_close(found["dice_soft"], found["dice"])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.0, 0.02, 0.5]))
def test_iou_never_exceeds_dice_and_all_lie_in_0_to_1(seed: int, share: float) -> None:
    found = mask_values(*pair(seed, share))
    for kind in ("", "_soft"):
        assert (found["iou" + kind] <= found["dice" + kind]).all()
    for name in ("iou", "dice", "iou_soft", "dice_soft", "boundary_f", "accuracy"):
        assert ((found[name] >= 0) & (found[name] <= 1)).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_mask_equal_to_the_truth_is_perfect(seed: int) -> None:
    mask = pair(seed)[1]
    found = mask_values(certain(mask), mask)
    for name in ("iou", "dice", "iou_soft", "dice_soft", "boundary_f", "accuracy"):
        assert (found[name] == 1).all()
    assert (found["excess"] == 0).all()


def test_an_empty_mask_is_met_by_a_prediction_that_is_nearly_empty() -> None:
    """Without that, the tail of a sigmoid would turn 1 into 0."""
    empty = torch.zeros(1, 1, 10, 10)
    assert mask_values(empty - 20, empty)["iou_soft"].item() == pytest.approx(1, abs=1e-6)
    quarter = torch.logit(torch.full_like(empty, 0.0025))
    assert mask_values(quarter, empty)["iou_soft"].item() == pytest.approx(0.75, abs=1e-6)
    assert mask_values(empty, empty)["iou_soft"] == 0


def test_grey_targets_are_cut_at_half_for_all_but_the_cross_entropy() -> None:
    logits, mask = pair(3)
    grey, black_and_white = mask_values(logits, 0.6 * mask + 0.1), mask_values(logits, mask)
    for name in MASK_VALUES:
        assert torch.equal(grey[name], black_and_white[name]) == (name != "excess")
