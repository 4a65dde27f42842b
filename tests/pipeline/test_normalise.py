"""Normalisation against the formula in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import normalise
from pipeline.normalise import Normalisation
from shards.manifest import read_manifest

NORMALISATION = Normalisation(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)],
)
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return torch.device(request.param)


def test_images_follow_the_formula_and_are_channels_last(device: torch.device) -> None:
    values = torch.arange(256, dtype=torch.uint8).repeat(3, 1).T.reshape(1, 16, 16, 3)
    found = NORMALISATION.images(values.contiguous().to(device))
    exact = (values.double().numpy() / 255 - NORMALISATION.mean) / NORMALISATION.std
    assert found.shape == (1, 3, 16, 16)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(found.cpu().permute(0, 2, 3, 1), exact, atol=2e-6)


def test_normalised_images_go_back_to_the_same_pixels(device: torch.device) -> None:
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8, device=device)
    assert torch.equal(NORMALISATION.pixels(NORMALISATION.images(pixels)), pixels)


def test_masks_turn_at_128_and_depth_spans_0_to_1(device: torch.device) -> None:
    pixels = torch.tensor([[[0, 127], [128, 255]]], dtype=torch.uint8, device=device)
    assert normalise.mask(pixels).tolist() == [[[[0.0, 0.0], [1.0, 1.0]]]]
    expected = np.array([0, 127, 128, 255], np.float32) / np.float32(255)
    np.testing.assert_array_equal(normalise.depth(pixels).cpu().ravel(), expected)
    assert normalise.depth(pixels).shape == (1, 1, 2, 2)


def test_it_comes_from_the_sets_composites(small_set: Path) -> None:
    manifest = read_manifest(small_set)
    found = Normalisation.of_set(manifest)
    assert found.mean == manifest.statistics["composite"].mean
    assert found.std == manifest.statistics["composite"].std


def test_a_std_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="std above 0"):
        Normalisation(mean=(0.5, 0.5, 0.5), std=(0.1, 0.0, 0.1))
