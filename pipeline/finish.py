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
from pipeline.augment.draws import Bools, Drawer
from pipeline.augment.geometry import draw_flips
from pipeline.backgrounds import BackgroundBank
from pipeline.batch import Batch
from pipeline.decoder import DecodedBatch
from pipeline.normalise import Normalisation
from pipeline.order import Numbers
from pipeline.room import Room
from pipeline.source import SampleSource

_PIXELS_AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 22}
"""Pixels of a picture that are finished together. On a processor their planes then stay in its
cache and its allocator's hands: at 224 px augmenting a whole batch takes 1.2 to 2.7 times the
processor time, by preset; and the calls for smaller parts take longer than what they do. On a GPU
it bounds memory: 0.13 GB a copy of planes."""


class Finisher:
    """Makes the batches of one stream. One thread calls it at a time.

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
        self._room = Room(device)

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
                None if bank is None else self._gathered(bank, source.backgrounds[decoded.numbers])
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
            return self._flipped(pixels, None)
        drawer = Drawer(self._seed, epochs, numbers)
        if self._config.only_flips:
            return self._flipped(pixels, draw_flips(self._config, drawer))
        size = pixels.mask.shape[-1]
        return self._augmented(
            pixels, draw_changes(self._config, drawer, self._normalisation, size)
        )

    def _gathered(self, bank: BackgroundBank, numbers: Numbers) -> Tensor:
        room = self._room.take(len(numbers), *bank.pixels.shape[1:], dtype=torch.uint8)
        return bank.gather(self._send(numbers), room)

    def _flipped(self, pixels: Pixels, flips: Bools | None) -> Planes:
        whole = self._empty_like(pixels)
        for part in self._parts(pixels):
            some = _part(pixels, part)
            if flips is not None:
                some = self._augmenter.flip(some, flips[part])
            if some.background is not None and whole.background is not None:
                self._normalisation.images(some.background, whole.background[part])
            self._normalisation.images(some.composite, whole.composite[part])
            normalise.mask(some.mask, whole.mask[part])
            normalise.depth(some.depth, whole.depth[part])
        return whole

    def _augmented(self, pixels: Pixels, changes: Changes) -> Planes:
        whole = self._empty_like(pixels)
        for part in self._parts(pixels):
            some = self._augmenter(_part(pixels, part), changes.rows(part))
            for field in fields(whole):
                out, planes = getattr(whole, field.name), getattr(some, field.name)
                if out is not None:
                    out[part].copy_(planes)
        return whole

    def _empty_like(self, pixels: Pixels) -> Planes:
        """Room for the result, channels-last."""

        def room(channels: int) -> Tensor:
            num, size = pixels.mask.shape[:2]
            return self._room.take(num, size, size, channels).permute(0, 3, 1, 2)

        return Planes(
            background=None if pixels.background is None else room(3),
            composite=room(3),
            mask=room(1),
            depth=room(1),
        )

    def _parts(self, pixels: Pixels) -> Iterator[slice]:
        num, size = pixels.mask.shape[:2]
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
