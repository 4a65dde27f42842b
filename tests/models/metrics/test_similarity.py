import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from models.metrics.similarity import similarity


def pictures(num: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth images in [0, 1]."""
    noise = np.random.default_rng(seed).random((num, 1, height, width))
    return torch.from_numpy(gaussian_filter(noise, (0, 0, 1.5, 1.5))).float()


def expected(x: NDArray[np.float64], y: NDArray[np.float64], radius: int) -> float:
    """Wang et al.'s formula with scipy's Gaussian, pixels whose window leaves the image cut off."""

    def blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
        blurred = gaussian_filter(image, 1.5, radius=radius)
        return blurred[radius : len(x) - radius, radius : x.shape[1] - radius]

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    ssim = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(ssim.mean())


@pytest.mark.parametrize(
    ("height", "width", "radius"), [(64, 48, 5), (11, 11, 5), (10, 30, 3), (8, 8, 3), (6, 9, 2)]
)
def test_it_agrees_with_scipy_with_a_window_of_11_or_what_fits(
    height: int, width: int, radius: int
) -> None:
    one, other = (pictures(3, height, width, seed) for seed in (1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = similarity(one, other)
    exact = [
        expected(x, y, radius)
        for x, y in zip(one[:, 0].double().numpy(), other[:, 0].double().numpy(), strict=True)
    ]
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), exact, atol=2e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_it_is_symmetric_at_most_1_and_1_for_equal_images(seed: int) -> None:
    one, other = pictures(2, 16, 16, seed), pictures(2, 16, 16, seed + 1)
    torch.testing.assert_close(similarity(one, other), similarity(other, one))
    assert (similarity(one, other) < 1).all()
    torch.testing.assert_close(similarity(one, one), torch.ones(2, dtype=torch.float64))


def test_nan_in_one_image_stays_there() -> None:
    one, other = pictures(3, 16, 16, 1), pictures(3, 16, 16, 2)
    broken = one.clone()
    broken[1] = torch.nan
    found, whole = similarity(broken, other), similarity(one, other)
    assert found[1].isnan()
    assert torch.equal(found[[0, 2]], whole[[0, 2]])
