"""Geometry against scipy, complex numbers and hand-made pictures."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy import ndimage

from pipeline.augment import AugmentConfig
from pipeline.augment.draws import Drawer, Stream, draws
from pipeline.augment.geometry import draw_flips, draw_warps, flip, warp

NUM = 600
NUMBERS, EPOCHS = np.arange(NUM), np.full(NUM, 2)
CONFIG = AugmentConfig(
    flip=0.5, flip_vertical=0.5, rotation=40, rotation_chance=0.7, scale_min=0.6, scale_max=2,
    aspect=1.3, scale_chance=0.6, translate=0.2, translate_chance=0.5,
)  # fmt: skip


def drawn(
    config: AugmentConfig,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    drawer = Drawer(5, EPOCHS, NUMBERS)
    flips = draw_flips(config, drawer)
    return flips, *draw_warps(config, drawer, flips)


def applied(maps: npt.NDArray[np.float64], x: float, y: float) -> npt.NDArray[np.float64]:
    """(N, 2): where the place (x, y) of each frame looks in its picture."""
    return maps @ np.array([x, y, 1.0])


@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 6, 5, 3)])
@pytest.mark.parametrize(("dim", "turn"), [(2, np.s_[:, :, ::-1]), (1, np.s_[:, ::-1])])
def test_a_flip_is_numpys_and_leaves_the_others_alone(
    shape: tuple[int, ...], dim: int, turn: tuple[slice, ...]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    chosen = np.array([True, False, False, True])
    expected = pixels.copy()
    expected[chosen] = pixels[chosen][turn]
    found = flip(torch.from_numpy(pixels), torch.from_numpy(chosen), dim)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_maps_undo_flips_scale_turn_and_move() -> None:
    """A place of the picture, sent forward by complex numbers, is found again by the map."""
    flips, warped, maps = drawn(CONFIG)

    def value(stream: Stream, low: float, high: float) -> npt.NDArray[np.float64]:
        return low + (high - low) * draws(5, EPOCHS, NUMBERS, stream)

    turned = value(Stream.ROTATION_CHANCE, 0, 1) < 0.7
    scaled = value(Stream.SCALE_CHANCE, 0, 1) < 0.6
    moved = value(Stream.TRANSLATE_CHANCE, 0, 1) < 0.5
    np.testing.assert_array_equal(warped, turned | scaled | moved)
    assert 0.92 < warped.mean() < 0.96  # 1 - 0.3 * 0.4 * 0.5

    size = 0.6 * (2 / 0.6) ** value(Stream.SCALE, 0, 1)
    stretch = np.sqrt(1.3 ** value(Stream.ASPECT, -1, 1))
    width, height = np.where(scaled, size * stretch, 1), np.where(scaled, size / stretch, 1)
    x = np.where(flips[:, 0], -0.3, 0.3) - value(Stream.POSITION_X, -1, 1) * abs(1 - 1 / width)
    y = np.where(flips[:, 1], 0.4, -0.4) - value(Stream.POSITION_Y, -1, 1) * abs(1 - 1 / height)
    angle = np.where(turned, np.radians(value(Stream.ROTATION, -40, 40)), 0)
    # y points down, so a turn against the clock is a negative angle
    place = (x * width + 1j * y * height) * np.exp(-1j * angle)
    move = 0.4 * (value(Stream.TRANSLATE_X, -1, 1) + 1j * value(Stream.TRANSLATE_Y, -1, 1))
    place = place + np.where(moved, move, 0)
    found = np.einsum("nij,nj->ni", maps, np.stack([place.real, place.imag, np.ones(NUM)], 1))
    np.testing.assert_allclose(found, np.broadcast_to([0.3, -0.4], (NUM, 2)), atol=1e-12)


def test_a_positive_rotation_turns_as_pillow_does() -> None:
    _, _, maps = drawn(AugmentConfig(flip=0, rotation=30))
    angles = 60 * draws(5, EPOCHS, NUMBERS, Stream.ROTATION) - 30
    smooth = ndimage.gaussian_filter(np.random.default_rng(1).random((48, 48)), 3)
    picture = Image.fromarray((255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32))
    planes = torch.from_numpy(np.array(picture)).expand(8, 1, 48, 48).contiguous()
    found = warp(planes, torch.from_numpy(maps[:8]).float(), "edge")
    for number in range(8):
        turned = picture.rotate(angles[number], Image.Resampling.BILINEAR)
        inside = np.s_[10:38, 10:38]
        np.testing.assert_allclose(found[number, 0][inside], np.array(turned)[inside], atol=0.6)


@pytest.mark.parametrize(("fill", "mode"), [("reflect", "reflect"), ("edge", "nearest")])
def test_every_channel_is_interpolated_as_scipy_does(fill: str, mode: str) -> None:
    size, num = 24, 40
    flips, _, maps = drawn(CONFIG)
    assert flips[:num].any(axis=0).all()
    planes = np.random.default_rng(2).uniform(0, 255, (num, 3, size, size)).astype(np.float32)
    found = warp(torch.from_numpy(planes), torch.from_numpy(maps[:num]).float(), fill).numpy()
    for number in range(num):
        # rows come first in scipy, and pixel i lies at (2 i + 1) / size - 1
        linear = maps[number, ::-1, 1::-1]
        middle = (size - 1) / 2
        shift = maps[number, ::-1, 2] * size / 2 + middle - linear @ [middle, middle]
        for channel in range(3):
            expected = ndimage.affine_transform(
                planes[number, channel].astype(np.float64), linear, shift, order=1, mode=mode
            )
            np.testing.assert_allclose(found[number, channel], expected, atol=0.02)


def test_zero_fill_blackens_images_and_mask_and_carries_the_depth_on() -> None:
    """A picture at half size: its frame is black and without object; the depth is the edge's."""
    planes = torch.full((1, 5, 8, 8), 200.0)
    planes[:, 4] = torch.arange(8.0) * 10
    half = torch.tensor([[[2.0, 0, 0], [0, 2, 0]]])
    found = warp(planes, half, "zero")[0]
    expected = np.zeros((8, 8), np.float32)
    expected[2:6, 2:6] = 200
    for channel in range(4):
        np.testing.assert_array_equal(found[channel], expected)
    np.testing.assert_allclose(found[4, 0], [0, 0, 5, 25, 45, 65, 70, 70], atol=1e-4)


def test_a_crop_stays_in_the_picture_and_a_small_picture_in_the_frame() -> None:
    _, _, crops = drawn(AugmentConfig(scale_min=1, scale_max=3, aspect=1))
    corners = np.stack([applied(crops, x, y) for x in (-1, 1) for y in (-1, 1)])
    assert np.abs(corners).max() <= 1 + 1e-12
    assert np.ptp(corners[0, :, 0]) > 0.9  # and lies anywhere in it
    _, _, small = drawn(AugmentConfig(scale_min=0.4, scale_max=1, aspect=1))
    corners = np.stack([applied(small, x, y) for x in (-1, 1) for y in (-1, 1)])
    assert np.abs(corners).min() >= 1 - 1e-12
    assert np.abs(applied(small, 0, 0)).max() > 1


def test_scales_are_drawn_evenly_in_the_logarithm() -> None:
    _, warped, maps = drawn(AugmentConfig(flip=0, scale_min=0.5, scale_max=2, aspect=1))
    scales = 1 / maps[:, 0, 0]
    assert warped.all()
    assert (scales.min() >= 0.5, scales.max() <= 2) == (True, True)
    assert (scales < 1).mean() == pytest.approx(0.5, abs=0.06)
    np.testing.assert_array_equal(maps[:, 0, 0], maps[:, 1, 1])


def test_what_is_not_asked_for_moves_nothing() -> None:
    _, warped, maps = drawn(AugmentConfig(flip=0, rotation_chance=1, translate_chance=1))
    assert not warped.any()
    np.testing.assert_array_equal(maps, np.broadcast_to(np.eye(2, 3), (NUM, 2, 3)))
