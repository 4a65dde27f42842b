"""uint8 pixels and what was drawn for them to normalised images and targets, on the device.

N samples, S = the side. Geometry first, all images stacked as channels; then each picture's look;
then the holes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.augment.changes import Changes
from pipeline.augment.colour import mean_grey
from pipeline.augment.config import AugmentConfig
from pipeline.augment.cutout import shown
from pipeline.augment.draws import Bools
from pipeline.augment.geometry import flip, warp
from pipeline.augment.look import Look, Send, apply_look, for_rows
from pipeline.normalise import MASK_THRESHOLD, Normalisation


@dataclass(frozen=True, kw_only=True, slots=True)
class Pixels:
    """N samples as uint8, on the device."""

    background: Tensor | None
    """(N, S, S, 3)"""

    composite: Tensor
    """(N, S, S, 3)"""

    mask: Tensor
    """(N, S, S)"""

    depth: Tensor
    """(N, S, S)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planes:
    """N samples as float32, as `Batch` has them."""

    background: Tensor | None
    composite: Tensor
    mask: Tensor
    depth: Tensor


class Augmenter:
    """Applies changes.

    Args:
        config: What they were drawn by.
        normalisation: Of the images.
        send: Brings small arrays to the device, without waiting for it.
    """

    def __init__(self, config: AugmentConfig, normalisation: Normalisation, send: Send) -> None:
        self._config, self._normalisation, self._send = config, normalisation, send

    def flip(self, pixels: Pixels, flips: Bools) -> Pixels:
        """Mirror, exactly, as `draw_flips` has it."""
        for axis, dim in ((0, 2), (1, 1)):
            chosen = flips[:, axis]
            if chosen.any():
                there = self._send(chosen)
                pixels = Pixels(
                    background=(
                        None if pixels.background is None else flip(pixels.background, there, dim)
                    ),
                    composite=flip(pixels.composite, there, dim),
                    mask=flip(pixels.mask, there, dim),
                    depth=flip(pixels.depth, there, dim),
                )
        return pixels

    def __call__(self, pixels: Pixels, changes: Changes) -> Planes:
        """Mirror, move, recolour and cut."""
        config = self._config
        pivots = [mean_grey(pixels.composite) if config.contrast else None]
        if pixels.background is not None:
            apart = config.contrast and config.independent
            pivots.append(mean_grey(pixels.background) if apart else pivots[0])
        planes = self._moved(_stacked(self.flip(pixels, changes.flips)), changes)

        looks = (changes.look, changes.background_look or changes.look)
        images = [
            self._looking(planes[:, 3 * role : 3 * role + 3], looks[role], pivot)
            for role, pivot in enumerate(pivots)
        ]
        # what interpolation leaves between 127 and 128 goes where a uint8 would be rounded to
        mask = (planes[:, -2:-1] >= MASK_THRESHOLD - 0.5).float()
        if changes.holes is not None and changes.holes.any():
            kept = shown(self._send(changes.holes), planes.shape[-1])
            images = [image.mul_(kept) for image in images]
            mask.mul_(kept)
        return Planes(
            background=images[1] if len(images) > 1 else None,
            composite=images[0],
            mask=mask,
            depth=planes[:, -1:].div(255).clamp_(0, 1),
        )

    def _moved(self, planes: Tensor, changes: Changes) -> Tensor:
        rows = changes.warped.nonzero()[0]
        maps = changes.maps[rows]
        return for_rows(
            planes, rows, self._send, lambda some: warp(some, self._send(maps), self._config.fill)
        )

    def _looking(self, planes: Tensor, look: Look, pivot: Tensor | None) -> Tensor:
        return apply_look(planes, look, pivot, self._config, self._normalisation, self._send)


def _stacked(pixels: Pixels) -> Tensor:
    """(N, 8, S, S) float32: composite, background, mask, depth; (N, 5, S, S) without background."""
    images = [pixels.composite]
    if pixels.background is not None:
        images.append(pixels.background)
    num, size = pixels.mask.shape[:2]
    channels = 3 * len(images)
    planes = torch.empty((num, channels + 2, size, size), device=pixels.mask.device)
    for role, image in enumerate(images):
        planes[:, 3 * role : 3 * role + 3] = image.permute(0, 3, 1, 2)
    planes[:, channels], planes[:, channels + 1] = pixels.mask, pixels.depth
    return planes
