import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from models.metrics.boundary import boundary_f, dilate, outline, tolerance_px

Mask = NDArray[np.bool_]


def blob(seed: int, height: int, width: int, share: float = 0.3) -> Mask:
    """Smooth random shapes that cover about a share of the image."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    noise = gaussian_filter(noise, max(2, height / 24))
    return noise > np.quantile(noise, 1 - share)


def measured(one: Mask, other: Mask) -> float:
    batch = torch.from_numpy(np.stack((one, other))[:, None, None])
    return boundary_f(batch[0], batch[1]).item()


def drawn(mask: Mask) -> Mask:
    """The outline as DAVIS' `seg2bmap` defines it, pixel by pixel."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            below, right = min(y + 1, height - 1), min(x + 1, width - 1)
            here = mask[y, x]
            found[y, x] = (
                here != mask[y, right] or here != mask[below, x] or here != mask[below, right]
            )
    return found


def expected_f(predicted: Mask, truth: Mask) -> float:
    """DAVIS' `f_measure`, by Euclidean distances instead of a dilation."""
    tolerance = np.ceil(0.0075 * np.linalg.norm(truth.shape))
    outlines = drawn(predicted), drawn(truth)
    if not (outlines[0].any() and outlines[1].any()):
        return float(outlines[0].any() == outlines[1].any())
    shares = [
        (distance_transform_edt(~other)[mine] <= tolerance).mean()
        for mine, other in (outlines, outlines[::-1])
    ]
    return 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 40), width=st.integers(1, 40))
def test_it_agrees_with_davis_by_distances(seed: int, height: int, width: int) -> None:
    predicted, truth = blob(seed, height, width, 0.2), blob(seed + 1, height, width)
    assert measured(predicted, truth) == pytest.approx(expected_f(predicted, truth))


@pytest.mark.parametrize("size", [64, 96, 224])
def test_it_agrees_with_davis_at_the_sizes_of_training(size: int) -> None:
    """At tolerances of 1, 2 and 3 px, on outlines that partly match."""
    truth = blob(size, size, size)
    predicted = np.roll(truth, 3, axis=0) | blob(size + 1, size, size, 0.05)
    found = measured(predicted, truth)
    assert found == pytest.approx(expected_f(predicted, truth))
    assert 0.1 < found < 0.95


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), radius=st.integers(1, 7))
def test_a_dilation_reaches_exactly_the_pixels_within_the_radius(seed: int, radius: int) -> None:
    mask = np.random.default_rng(seed).random((20, 25)) > 0.98
    expected = distance_transform_edt(~mask) <= radius if mask.any() else mask
    found = dilate(torch.from_numpy(mask)[None, None], radius)[0, 0].numpy()
    np.testing.assert_array_equal(found, expected)


def test_an_outline_is_a_line_along_the_object_and_not_along_the_image() -> None:
    mask = np.zeros((6, 7), dtype=bool)
    mask[2:, 3:] = True
    found = outline(torch.from_numpy(mask)[None, None])[0, 0].numpy()
    np.testing.assert_array_equal(found, drawn(mask))
    # the corner, the row above the object, the column beside it
    assert found.sum() == 1 + 4 + 4
    assert found[1, 2:].all()
    assert found[1:, 2].all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_it_is_symmetric_and_1_for_equal_masks(seed: int) -> None:
    one, other = blob(seed, 30, 34), blob(seed + 1, 30, 34)
    assert measured(one, one) == 1
    assert measured(one, other) == pytest.approx(measured(other, one))
    assert 0 <= measured(one, other) <= 1


@pytest.mark.parametrize(("size", "tolerance"), [(32, 1), (64, 1), (96, 2), (128, 2), (224, 3)])
def test_an_object_moved_by_the_tolerance_is_met_and_one_moved_further_is_not(
    size: int, tolerance: int
) -> None:
    assert tolerance_px(size, size) == tolerance
    truth = np.zeros((size, size), dtype=bool)
    truth[size // 4 : size // 2, size // 4 : size // 2] = True
    assert measured(np.roll(truth, tolerance, axis=1), truth) == 1
    assert 0.3 < measured(np.roll(truth, tolerance + 1, axis=1), truth) < 0.7


def test_masks_without_an_outline_agree_with_each_other_only() -> None:
    empty = np.zeros((16, 16), dtype=bool)
    square = empty.copy()
    square[4:8, 4:8] = True
    assert measured(empty, empty) == measured(~empty, ~empty) == 1
    assert measured(empty, square) == measured(square, empty) == 0
    assert measured(~empty, square) == 0


def test_outlines_that_never_meet_score_0() -> None:
    one, other = (np.zeros((40, 40), dtype=bool) for _ in range(2))
    one[2:8, 2:8] = True
    other[30:36, 30:36] = True
    assert measured(one, other) == 0
