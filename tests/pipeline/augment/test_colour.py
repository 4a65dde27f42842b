"""Colours against Pillow's enhancers and the standard library's YIQ."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from pipeline.augment import AugmentConfig
from pipeline.augment.colour import (
    draw_colours,
    hue_matrices,
    mean_grey,
    mix,
    saturation_matrices,
)
from pipeline.augment.draws import BACKGROUND, Drawer, Stream, draws
from pipeline.normalise import Normalisation

NUM = 6
NUMBERS, EPOCHS = np.arange(NUM), np.zeros(NUM, np.int64)
PLAIN = Normalisation(mean=(0, 0, 0), std=(1, 1, 1))
PIXELS = np.random.default_rng(4).integers(60, 180, (NUM, 16, 16, 3), dtype=np.uint8)


def changed(config: AugmentConfig, normalisation: Normalisation = PLAIN) -> np.ndarray:
    """(N, 16, 16, 3) float64 levels, if not normalised otherwise."""
    maps = draw_colours(config, Drawer(9, EPOCHS, NUMBERS), normalisation)
    pixels = torch.from_numpy(PIXELS)
    bias = torch.from_numpy(maps.bias) + torch.from_numpy(maps.pivot) * mean_grey(pixels)
    planes = pixels.permute(0, 3, 1, 2).float()
    found = mix(planes, torch.from_numpy(maps.matrix), bias)
    return 255 * found.permute(0, 2, 3, 1).double().numpy()


def drawn(stream: Stream, reach: float) -> np.ndarray:
    return reach * (2 * draws(9, EPOCHS, NUMBERS, stream) - 1)


@pytest.mark.parametrize(
    ("name", "stream", "enhancer"),
    [
        ("brightness", Stream.BRIGHTNESS, ImageEnhance.Brightness),
        ("contrast", Stream.CONTRAST, ImageEnhance.Contrast),
        ("saturation", Stream.SATURATION, ImageEnhance.Color),
    ],
)
def test_one_operation_is_pillows_but_for_its_rounding(
    name: str, stream: Stream, enhancer: type
) -> None:
    found = changed(AugmentConfig(**{name: 0.3}))  # type: ignore[arg-type]
    for pixels, image, factor in zip(PIXELS, found, 1 + drawn(stream, 0.3), strict=True):
        expected = np.asarray(enhancer(Image.fromarray(pixels)).enhance(factor))
        np.testing.assert_allclose(image, expected, atol=1.6)  # Pillow rounds greys, and results


def test_the_operations_follow_one_another_in_one_matrix() -> None:
    found = changed(AugmentConfig(brightness=0.3, contrast=0.3, saturation=0.4, hue=0.1, shift=0.1))
    grey = np.array([0.299, 0.587, 0.114])
    streams = {Stream.BRIGHTNESS: 0.3, Stream.CONTRAST: 0.3, Stream.SATURATION: 0.4,
               Stream.HUE: 0.1, Stream.SHIFT: 0.1}  # fmt: skip
    values = [drawn(stream, reach) for stream, reach in streams.items()]
    for number, (b, c, s, h, d) in enumerate(zip(*values, strict=True)):
        expected = PIXELS[number] / 255 * (1 + b)
        expected = (1 + c) * expected - c * (expected @ grey).mean()
        expected = (1 + s) * expected - s * (expected @ grey)[..., None]
        expected = expected @ hue_matrices(np.array([h]))[0].T + d
        np.testing.assert_allclose(found[number], 255 * expected, atol=1e-3)


def test_normalisation_comes_last_and_costs_nothing() -> None:
    config = AugmentConfig(brightness=0.3, contrast=0.3, hue=0.1)
    normalisation = Normalisation(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    expected = (changed(config) / 255 - normalisation.mean) / normalisation.std
    np.testing.assert_allclose(changed(config, normalisation) / 255, expected, atol=1e-5)


@pytest.mark.parametrize("turn", [-0.3, 0.1, 0.5])
def test_hue_is_a_rotation_in_yiq(turn: float) -> None:
    """Python's own YIQ has coefficients of two digits, hence the tolerance."""
    matrix = hue_matrices(np.array([turn]))[0]
    for colour in np.random.default_rng(0).random((50, 3)):
        y, i, q = colorsys.rgb_to_yiq(*colour)
        turned = complex(i, q) * np.exp(-2j * np.pi * turn)
        y_, i_, q_ = colorsys.rgb_to_yiq(*(matrix @ colour))
        assert (y_, i_, q_) == pytest.approx((y, turned.real, turned.imag), abs=0.02)


def test_a_positive_hue_turns_red_towards_green_and_greys_stay() -> None:
    third = hue_matrices(np.array([1 / 3]))[0]
    assert np.argmax(third @ [1, 0, 0]) == 1
    assert np.argmax(third @ [0, 1, 0]) == 2
    change = hue_matrices(np.array([0.02]))[0] @ [0.8, 0.5, 0.2] - [0.8, 0.5, 0.2]
    assert change[1] > 0  # orange towards yellow, as HSV turns it
    assert change[2] < 0
    for matrix in (third, saturation_matrices(np.array([0.3]))[0]):
        np.testing.assert_allclose(matrix @ [0.4, 0.4, 0.4], 0.4)


def test_the_mean_grey_is_exact() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 400, 400, 3), dtype=np.uint8)
    expected = (pixels.reshape(3, -1, 3).sum(1) @ [0.299, 0.587, 0.114]) / (255 * 400 * 400)
    np.testing.assert_allclose(mean_grey(torch.from_numpy(pixels))[:, 0], expected, rtol=1e-7)


def test_chances_are_drawn_apart() -> None:
    config = AugmentConfig(brightness=0.3, brightness_chance=0.3, shift=0.2, shift_chance=0.6)
    drawer = Drawer(1, np.zeros(4_000, np.int64), np.arange(4_000))
    maps = draw_colours(config, drawer, PLAIN)
    brighter, shifted = maps.matrix[:, 0, 0] * 255 != 1, maps.bias[:, 0] != 0
    brighter = ~np.isclose(maps.matrix[:, 0, 0] * 255, 1, atol=1e-6)
    assert brighter.mean() == pytest.approx(0.3, abs=0.03)
    assert shifted.mean() == pytest.approx(0.6, abs=0.03)
    assert (brighter & shifted).mean() == pytest.approx(0.18, abs=0.03)
    other = draw_colours(config, drawer, PLAIN, family=BACKGROUND)
    assert abs(np.corrcoef(other.bias[:, 0], maps.bias[:, 0])[0, 1]) < 0.05
