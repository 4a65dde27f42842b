import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline.augment.blur import blur


@pytest.mark.parametrize("largest", [0.5, 1.4, 3.0])
def test_it_is_scipys_gaussian_filter_with_a_sigma_per_sample(largest: float) -> None:
    planes = np.random.default_rng(0).uniform(0, 255, (5, 3, 40, 40)).astype(np.float32)
    sigmas = np.linspace(0.1, largest, 5).astype(np.float32)
    found = blur(torch.from_numpy(planes), torch.from_numpy(sigmas), largest)
    for image, picture, sigma in zip(found.numpy(), planes, sigmas, strict=True):
        expected = ndimage.gaussian_filter(
            picture.astype(np.float64), (0, sigma, sigma), mode="mirror",
            radius=(0, *[int(np.ceil(3 * largest))] * 2),
        )  # fmt: skip
        np.testing.assert_allclose(image, expected, atol=1e-3)


def test_a_kernel_wider_than_the_picture_keeps_its_mean_grey() -> None:
    picture = torch.full((1, 3, 8, 8), 90.0)
    torch.testing.assert_close(blur(picture, torch.tensor([8.0]), 8.0), picture)
