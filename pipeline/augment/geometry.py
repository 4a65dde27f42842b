"""Flips, scale, rotation and translation: one affine map per sample, so one interpolation.

All images of a sample go through it stacked as channels, which is what keeps them aligned.
Coordinates: x to the right, y down, the frame is -1 to 1. N samples, C channels, S = the side.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from pipeline.augment.config import AugmentConfig
from pipeline.augment.draws import Bools, Drawer, Floats, Stream


def draw_flips(config: AugmentConfig, drawer: Drawer) -> Bools:
    """(N, 2): mirrored left to right, mirrored top to bottom."""
    return np.stack(
        [
            drawer.chosen(config.flip, Stream.FLIP),
            drawer.chosen(config.flip_vertical, Stream.FLIP_VERTICAL),
        ],
        axis=1,
    )


def draw_warps(config: AugmentConfig, drawer: Drawer, flips: Bools) -> tuple[Bools, Floats]:
    """Which samples have to be interpolated, and from where.

    Returns:
        (N,) whether a sample is scaled, turned or moved; and (N, 2, 3) the affine map from places
        in its new frame to places in its picture: flips, then scale, then turn, then move, undone.
    """
    scaled, scales, offsets = _draw_scales(config, drawer)
    turned = drawer.chosen(config.rotation_chance if config.rotation else 0, Stream.ROTATION_CHANCE)
    angles = np.radians(drawer.around(0, config.rotation, Stream.ROTATION)) * turned
    moved, moves = _draw_moves(config, drawer)

    unturn = np.stack([np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)], axis=1)
    signs = 1.0 - 2.0 * flips
    linear = (signs / scales)[:, :, None] * unturn.reshape(-1, 2, 2)
    shift = signs * offsets - np.einsum("nij,nj->ni", linear, moves)
    return scaled | turned | moved, np.concatenate([linear, shift[:, :, None]], axis=2)


def _draw_scales(config: AugmentConfig, drawer: Drawer) -> tuple[Bools, Floats, Floats]:
    """(N,) which, (N, 2) how wide and high, (N, 2) where the frame's centre then looks.

    A crop lies anywhere in the picture, and a picture smaller than the frame anywhere in it.
    """
    same = (config.scale_min, config.scale_max, config.aspect) == (1, 1, 1)
    scaled = drawer.chosen(0 if same else config.scale_chance, Stream.SCALE_CHANCE)
    low, high = np.log([config.scale_min, config.scale_max])
    reach = np.log(config.aspect) / 2
    size = drawer.between(low, high, Stream.SCALE)
    aspect = drawer.around(0, reach, Stream.ASPECT)
    scales = np.exp(np.stack([size + aspect, size - aspect], axis=1) * scaled[:, None])
    places = [drawer.around(0, 1, stream) for stream in (Stream.POSITION_X, Stream.POSITION_Y)]
    return scaled, scales, np.stack(places, axis=1) * np.abs(1 - 1 / scales)


def _draw_moves(config: AugmentConfig, drawer: Drawer) -> tuple[Bools, Floats]:
    """(N,) which, (N, 2) by how much to the right and down; the side is 2."""
    moved = drawer.chosen(
        config.translate_chance if config.translate else 0, Stream.TRANSLATE_CHANCE
    )
    reach = 2 * config.translate
    moves = [drawer.around(0, reach, s) for s in (Stream.TRANSLATE_X, Stream.TRANSLATE_Y)]
    return moved, np.stack(moves, axis=1) * moved[:, None]


def flip(pixels_NHWx: Tensor, chosen: Tensor, dim: int = 2) -> Tensor:
    """Mirror the chosen samples of (N, H, W) or (N, H, W, C) pixels; never waits for the device.

    Args:
        pixels_NHWx: uint8.
        chosen: (N,) bool, on the device of the pixels.
        dim: 2 for left to right, 1 for top to bottom.
    """
    mirrored = pixels_NHWx.flip(dim).view(len(pixels_NHWx), -1)
    pixels = pixels_NHWx.reshape(mirrored.shape)
    # chosen eight bytes at a time: 2 to 4 times as fast for colours, 6 to 8 for greys
    if not any(n % 8 for n in (pixels.shape[1], pixels.stride(0), pixels.storage_offset())):
        pixels, mirrored = pixels.view(torch.int64), mirrored.view(torch.int64)
    found = torch.where(chosen.unsqueeze(1), mirrored, pixels)
    return found.view(torch.uint8).view(pixels_NHWx.shape)


def warp(planes_NCSS: Tensor, maps_N23: Tensor, fill: str) -> Tensor:
    """Look up every pixel of the new frames in the pictures, bilinearly.

    Args:
        planes_NCSS: float32; the last channel is the depth.
        maps_N23: float32, of `draw_warps`.
        fill: Of `AugmentConfig`. `reflect` mirrors about the outer edge of the outermost pixels.
    """
    centres = _centres(planes_NCSS.shape[-1], planes_NCSS.device)
    maps = maps_N23[:, None, None]
    # no matrix product: TF32 would round coordinates to a tenth of a pixel
    across = maps[..., 0] * centres.view(1, 1, -1, 1)
    down = maps[..., 1] * centres.view(1, -1, 1, 1) + maps[..., 2]
    places = across + down
    padding = "reflection" if fill == "reflect" else "border"
    found = F.grid_sample(planes_NCSS, places, padding_mode=padding, align_corners=False)
    if fill == "zero":
        found[:, :-1] *= (places.abs() <= 1).all(-1).unsqueeze(1)
    return found


@lru_cache(maxsize=64)
def _centres(size: int, device: torch.device) -> Tensor:
    """Where the pixels' centres are; kept, so that the device makes them once."""
    return torch.arange(1, 2 * size, 2, device=device) / size - 1
