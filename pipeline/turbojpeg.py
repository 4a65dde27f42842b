"""Decode and resize on the processor: libjpeg-turbo (by simplejpeg) and torch, in threads.

Per sample and core at 224 pixels (q75, Zen 5): reading and CRC 5 us, decoding 200 us, resizing to
64 pixels 60 us after a full decode or 25 us after one at a reduced DCT scale. The threads work on
chunks of a batch, so that a resize is one call for all of them: torch's antialiased bilinear filter
on uint8 gives Pillow's pixels, bit for bit, at a quarter of its time, if it gets RGB as
channels-last and grey images packed by four as the planes of one.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pipeline.ahead import in_order
from pipeline.decoder import DecodedBatch, Request, first_good, undecodable
from pipeline.source import BadSample, SampleSource
from pipeline.stills import COLOURS, DecodeError, Pixels, decode

CHUNK = 8
"""Samples per task: enough to share a resize call, few enough to stay in the L2 cache."""

_GREY_PER_IMAGE = 4

_SCALE_MARGINS = (1, 4 / 3, 1)
"""How much larger than the stage a composite, mask or depth map is decoded at least: at its very
size a mask's sharp edges are 18 levels off in one pixel of a thousand, so 11."""

_Faults = list[tuple[int, BadSample]]
"""Places in a batch (or chunk) and why they stay empty."""


@dataclass(frozen=True, kw_only=True)
class TurboJpegDecoder:
    """A thread pool per stream over simplejpeg."""

    threads: int
    """How many threads decode."""

    prefetch_batches: int
    """Batches under way while the consumer holds one."""

    pin_memory: bool = False
    """Decode into page-locked memory, for a CUDA device to copy from while it computes."""

    name: str = field(default="turbojpeg", init=False)

    @contextmanager
    def stream(
        self, source: SampleSource, requests: Iterable[Request], *, size: int, exact: bool
    ) -> Iterator[Iterator[DecodedBatch]]:
        """See `Decoder.stream`."""
        work = _ChunkDecoder(source, size, exact=exact)
        with (
            ThreadPoolExecutor(self.threads, thread_name_prefix="maskdepth-decode") as pool,
            closing(self._batches(work, requests, pool)) as batches,
        ):
            yield batches

    def _batches(
        self, work: "_ChunkDecoder", requests: Iterable[Request], pool: ThreadPoolExecutor
    ) -> Generator[DecodedBatch]:
        # a fresh array per batch would cost more in page faults than the resize does
        free: deque[_Frames] = deque()

        def jobs() -> Iterator[tuple[tuple[Request, _Frames], list[Callable[[], _Faults]]]]:
            for request in requests:
                num = len(request.numbers)
                frames = free.popleft() if free else _Frames(num, work.size, pin=self.pin_memory)
                starts = range(0, request.num_counted, CHUNK)
                yield (request, frames), [partial(work, request, frames, at) for at in starts]

        for (request, frames), faults in in_order(jobs(), pool, ahead=self.prefetch_batches):
            yield frames.finish(request, dict(fault for chunk in faults for fault in chunk))
            # page-locked frames may still be read by the device: torch's own allocator waits for it
            if not self.pin_memory:
                free.append(frames)

    def decode_images(
        self, images: Sequence[bytes], *, size: int, names: Sequence[str] = ()
    ) -> Tensor:
        """See `Decoder.decode_images`."""
        result = np.empty((len(images), size, size, 3), np.uint8)
        for number, content in enumerate(images):
            try:
                pixels = decode(content, "RGB")
            except DecodeError as error:
                raise undecodable(names, number, error) from None
            result[number] = _resize_rgb(pixels[None], size)[0]
        return torch.from_numpy(result)


class _Frames:
    """The memory of one batch."""

    def __init__(self, num: int, size: int, *, pin: bool) -> None:
        empty = partial(torch.empty, dtype=torch.uint8, pin_memory=pin)
        self.composite, self.mask, self.depth = (
            empty((num, size, size, 3)),
            empty((num, size, size)),
            empty((num, size, size)),
        )
        self.arrays = (
            self.composite.numpy(),
            self.mask.unsqueeze(-1).numpy(),
            self.depth.unsqueeze(-1).numpy(),
        )

    def finish(self, request: Request, bad: dict[int, BadSample]) -> DecodedBatch:
        """Fill the places without pixels of their own and hand the batch out."""
        replaced = [*bad, *range(request.num_counted, len(request.numbers))]
        if replaced:
            # a rank may get nothing but padding at the end of a validation split
            good = first_good(request, bad.values(), replaced) if request.num_counted else None
            for array in self.arrays:
                array[replaced] = 0 if good is None else array[good]
        return DecodedBatch(
            composite=self.composite,
            mask=self.mask,
            depth=self.depth,
            numbers=request.numbers,
            weights=request.weights(bad),
            bad=tuple(bad.values()),
        )


class _ChunkDecoder:
    """Reads, decodes and resizes a chunk of a batch; called by any thread of the pool."""

    def __init__(self, source: SampleSource, size: int, *, exact: bool) -> None:
        self.size = size
        self._source = source
        full = source.image_size
        self._decoded_sizes = [
            full if exact else scaled_size(full, math.ceil(size * margin))
            for margin in _SCALE_MARGINS
        ]
        self._at_least = [0 if found == full else min(found) for found in self._decoded_sizes]
        self._is_native = full == (size, size)
        self._memory = threading.local()

    def __call__(self, request: Request, frames: _Frames, at: int) -> _Faults:
        """Fill places `at` to `at + CHUNK` of the batch; returns those that could not be."""
        numbers = request.numbers[at : min(at + CHUNK, request.num_counted)]
        results = [array[at : at + len(numbers)] for array in frames.arrays]
        places = results if self._is_native else self._scratch(len(numbers))
        faults, odd = self._decode(numbers, places)
        if not self._is_native:
            self._resize(results)
        for part, i, pixels in odd:
            results[part][i] = (_resize_grey if part else _resize_rgb)(pixels[None], self.size)[0]
        return [(at + i, fault) for i, fault in faults]

    def _decode(
        self, numbers: npt.NDArray[np.int64], places: Sequence[Pixels]
    ) -> tuple[_Faults, list[tuple[int, int, Pixels]]]:
        """Decode into the places; what has another size than the set's images comes back."""
        faults: _Faults = []
        odd: list[tuple[int, int, Pixels]] = []
        for i, sample in enumerate(self._source.read_many(numbers)):
            if isinstance(sample, BadSample):
                faults.append((i, sample))
                continue
            for part, content in enumerate(sample):
                place = places[part][i]
                try:
                    pixels = decode(
                        content, COLOURS[part], at_least=self._at_least[part], into=place
                    )
                except DecodeError as error:
                    faults.append((i, self._source.bad(int(numbers[i]), part, str(error))))
                    break
                if pixels.shape != place.shape:
                    odd.append((part, i, pixels))
        return faults, odd

    def _scratch(self, num: int) -> list[Pixels]:
        """Places for `num` samples at the sizes they are decoded at; this thread's own."""
        if not hasattr(self._memory, "parts"):
            self._memory.parts = [
                np.empty((CHUNK, *size, 1 if part else 3), np.uint8)
                for part, size in enumerate(self._decoded_sizes)
            ]
        return [part[:num] for part in self._memory.parts]

    def _resize(self, results: Sequence[Pixels]) -> None:
        num = len(results[0])
        rgb, *greys = self._memory.parts
        results[0][...] = _resize_rgb(rgb[:num], self.size)
        for result, grey in zip(results[1:], greys, strict=True):
            whole = -(-num // _GREY_PER_IMAGE) * _GREY_PER_IMAGE
            result[...] = _resize_grey(grey[:whole], self.size)[:num]


def scaled_size(image_size: tuple[int, int], at_least: int) -> tuple[int, int]:
    """Height and width a JPEG is decoded at, no side under `at_least` if it has as much.

    Scales are eighths up to 5/8: decoding at 6/8 or 7/8 takes longer than in full.
    """
    for eighths in range(1, 6):
        height, width = (-(-side * eighths // 8) for side in image_size)
        if min(height, width) >= at_least:
            return height, width
    return image_size


def _resize_rgb(images: Pixels, size: int) -> Pixels:
    """(N, H, W, 3) to (N, size, size, 3)."""
    channels_last = torch.from_numpy(images).permute(0, 3, 1, 2)
    return _bilinear(channels_last, size).permute(0, 2, 3, 1).numpy()


def _resize_grey(images: Pixels, size: int) -> Pixels:
    """(N, H, W, 1) to (N, size, size, 1)."""
    num, height, width, _ = images.shape
    missing = -num % _GREY_PER_IMAGE
    if missing:
        images = np.concatenate([images, np.zeros((missing, height, width, 1), np.uint8)])
    planes = torch.from_numpy(images).view(-1, _GREY_PER_IMAGE, height, width)
    return _bilinear(planes, size).reshape(-1, size, size, 1)[:num].numpy()


def _bilinear(images: Tensor, size: int) -> Tensor:
    if images.shape[2:] == (size, size):
        return images
    return interpolate(images, size=(size, size), mode="bilinear", antialias=True)
