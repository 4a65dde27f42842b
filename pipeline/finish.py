"""The last hop: uint8 pixels, the backgrounds and what is drawn, to a Batch on the device.

Nothing here asks the device a question. N samples, S = the stage's size in pixels.
"""

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline import normalise
from pipeline.augment import AugmentConfig
from pipeline.augment.augmenter import Augmenter, Pixels, Planes
from pipeline.augment.changes import Changes, draw_changes
from pipeline.augment.draws import Drawer
from pipeline.augment.geometry import draw_flips
from pipeline.backgrounds import BackgroundBank
from pipeline.batch import Batch
from pipeline.decoder import DecodedBatch
from pipeline.normalise import Normalisation
from pipeline.order import Numbers
from pipeline.source import SampleSource

_PIXELS_AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 22}
"""Pixels of a picture that are augmented together. On a processor their planes then stay in its
cache and its allocator's hands: at 224 px a whole batch takes 1.2 to 2.7 times the processor time,
by preset; at 64 px it makes no difference. On a GPU it bounds memory: 0.13 GB a copy of planes."""


class Finisher:
    """Makes batches.

    Args:
        normalisation: Of the images.
        augment: What training changes.
        seed: Decides what is drawn.
        device: Where batches go.
    """

    def __init__(
        self,
        normalisation: Normalisation,
        augment: AugmentConfig,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self._normalisation, self._config = normalisation, augment
        self._seed, self._device = seed, device
        self._augmenter = Augmenter(augment, normalisation, self._send)

    def __call__(
        self,
        source: SampleSource,
        bank: BackgroundBank | None,
        decoded: DecodedBatch,
        epochs: Numbers | None = None,
    ) -> Batch:
        """One batch; augmented if told which epoch each of its samples belongs to."""
        numbers = self._send(decoded.numbers)
        pixels = Pixels(
            background=(
                None
                if bank is None
                else bank.gather(self._send(source.backgrounds[decoded.numbers]))
            ),
            composite=self._to_device(decoded.composite),
            mask=self._to_device(decoded.mask),
            depth=self._to_device(decoded.depth),
        )
        planes = self.planes(pixels, decoded.numbers, epochs)
        return Batch(
            background=planes.background,
            composite=planes.composite,
            mask=planes.mask,
            depth=planes.depth,
            number=numbers,
            weight=self._send(decoded.weights),
            is_void=not decoded.weights.any(),
        )

    def planes(self, pixels: Pixels, numbers: Numbers, epochs: Numbers | None = None) -> Planes:
        """Images and targets; augmented if told which epoch each sample belongs to."""
        if epochs is None:
            return self._normalised(pixels)
        drawer = Drawer(self._seed, epochs, numbers)
        if self._config.only_flips:
            flips = draw_flips(self._config, drawer)
            return self._normalised(self._augmenter.flip(pixels, flips))
        size = pixels.mask.shape[-1]
        return self._augmented(
            pixels, draw_changes(self._config, drawer, self._normalisation, size)
        )

    def _normalised(self, pixels: Pixels) -> Planes:
        return Planes(
            background=(
                None if pixels.background is None else self._normalisation.images(pixels.background)
            ),
            composite=self._normalisation.images(pixels.composite),
            mask=normalise.mask(pixels.mask),
            depth=normalise.depth(pixels.depth),
        )

    def _augmented(self, pixels: Pixels, changes: Changes) -> Planes:
        whole = _empty_like(pixels)
        for part in self._parts(*pixels.mask.shape[:2]):
            some = self._augmenter(_part(pixels, part), changes.rows(part))
            for field in fields(whole):
                out, planes = getattr(whole, field.name), getattr(some, field.name)
                if out is not None:
                    out[part].copy_(planes)
        return whole

    def _parts(self, num: int, size: int) -> Iterator[slice]:
        at_once = max(1, _PIXELS_AT_ONCE[self._device.type] // size**2)
        return (slice(first, first + at_once) for first in range(0, num, at_once))

    def _send(self, values: npt.NDArray[np.generic]) -> Tensor:
        return self._to_device(torch.from_numpy(np.ascontiguousarray(values)))

    def _to_device(self, tensor: Tensor) -> Tensor:
        if self._device.type == "cuda" and tensor.device.type == "cpu":
            pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
            return pinned.to(self._device, non_blocking=True)
        return tensor


def _part(pixels: Pixels, part: slice) -> Pixels:
    return Pixels(
        background=None if pixels.background is None else pixels.background[part],
        composite=pixels.composite[part],
        mask=pixels.mask[part],
        depth=pixels.depth[part],
    )


def _empty_like(pixels: Pixels) -> Planes:
    """Room for the result, channels-last."""

    def room(channels: int) -> Tensor:
        num, size = pixels.mask.shape[:2]
        there = torch.empty((num, size, size, channels), device=pixels.mask.device)
        return there.permute(0, 3, 1, 2)

    return Planes(
        background=None if pixels.background is None else room(3),
        composite=room(3),
        mask=room(1),
        depth=room(1),
    )
