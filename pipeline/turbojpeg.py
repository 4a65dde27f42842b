"""Decode and resize on the processor: libjpeg-turbo (by simplejpeg) and torch, in threads.

Per sample and core (q75 at 224 pixels, Zen 5): reading and CRC 8 us, decoding 210 us in full, or
170 us and less at a half and under; resizing to 64 pixels 60 us after a full decode, 27 us after
one at a half. A thread takes a task of up to 32 samples and works on it in chunks of 8, so that a
resize is one call for all images of a chunk.
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

from pipeline.ahead import in_order
from pipeline.decoder import DecodedBatch, Request, first_good, undecodable
from pipeline.memory import pages
from pipeline.resize import resize
from pipeline.source import BadSample, EncodedSample, SampleSource
from pipeline.stills import COLOURS, DecodeError, Pixels, decode

CHUNK = 8
"""Samples per resize, and per task at least: enough to share the call, few enough to stay in the
L2 cache."""

MOST_PER_TASK = 32
"""So many that handing a task over costs nothing to speak of."""

_SCALE_MARGINS = (1, 4 / 3, 1)
"""How much larger than the stage a composite, mask or depth map is decoded at least: nearer to its
size a mask's sharp edges are 18 levels off in one pixel of a thousand, so 9."""

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
        work = _TaskDecoder(source, size, exact=exact)
        with (
            ThreadPoolExecutor(self.threads, thread_name_prefix="maskdepth-decode") as pool,
            closing(self._batches(work, requests, pool)) as batches,
        ):
            yield batches

    def _batches(
        self, work: "_TaskDecoder", requests: Iterable[Request], pool: ThreadPoolExecutor
    ) -> Generator[DecodedBatch]:
        # a fresh array per batch would cost more in page faults than the resize does
        free: deque[_Frames] = deque()

        def jobs() -> Iterator[tuple[tuple[Request, _Frames], list[Callable[[], _Faults]]]]:
            longest = 0
            for request in requests:
                longest = longest or len(request.numbers)
                frames = (
                    free.popleft() if free else _Frames(longest, work.size, pin=self.pin_memory)
                )
                step = samples_per_task(request.num_counted, self.threads)
                starts = range(0, request.num_counted, step)
                yield (request, frames), [partial(work, request, frames, at, step) for at in starts]

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
            result[number] = resize(pixels[None], size)[0]
        return torch.from_numpy(result)


class _Frames:
    """The memory of one batch."""

    def __init__(self, num: int, size: int, *, pin: bool) -> None:
        shapes = ((num, size, size, 3), (num, size, size), (num, size, size))
        self.composite, self.mask, self.depth = (_empty(shape, pin=pin) for shape in shapes)
        self.arrays = (
            self.composite.numpy(),
            self.mask.unsqueeze(-1).numpy(),
            self.depth.unsqueeze(-1).numpy(),
        )

    def finish(self, request: Request, bad: dict[int, BadSample]) -> DecodedBatch:
        """Fill the places without pixels of their own and hand the batch out."""
        replaced = [*bad, *range(request.num_counted, len(request.numbers))]
        if replaced:
            good = first_good(request, replaced)
            for array in self.arrays:
                array[replaced] = 0 if good is None else array[good]
        num = len(request.numbers)
        return DecodedBatch(
            composite=self.composite[:num],
            mask=self.mask[:num],
            depth=self.depth[:num],
            numbers=request.numbers,
            weights=request.weights(bad),
            bad=tuple(bad.values()),
        )


def _empty(shape: tuple[int, ...], *, pin: bool) -> Tensor:
    if pin:
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
    # huge ones, for which torch does not ask: 10 us less per sample at 224, 80 for the first time
    return torch.from_numpy(pages(math.prod(shape)).reshape(shape))


def samples_per_task(num: int, threads: int) -> int:
    """Whole chunks, as many as leave each thread two tasks of a batch."""
    chunks = num // (2 * threads * CHUNK)
    return min(max(chunks, 1) * CHUNK, MOST_PER_TASK)


class _TaskDecoder:
    """Reads, decodes and resizes a part of a batch; called by any thread of the pool."""

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
        self._sizes_agree = len(source.image_sizes) == 1
        self._memory = threading.local()

    def __call__(self, request: Request, frames: _Frames, at: int, num: int) -> _Faults:
        """Fill `num` places of the batch from `at` on; returns those that could not be."""
        numbers = request.numbers[at : min(at + num, request.num_counted)]
        samples = self._source.read_many(numbers)
        faults: _Faults = []
        for i in range(0, len(samples), CHUNK):
            results = [a[at + i : at + min(i + CHUNK, len(samples))] for a in frames.arrays]
            found = self._fill(results, numbers[i:], samples[i : i + CHUNK])
            faults += [(at + i + j, bad) for j, bad in found]
            if request.on_decoded is not None:
                request.on_decoded(at + i, results, [j for j, _ in found])
        return faults

    def _fill(
        self,
        results: Sequence[Pixels],
        numbers: npt.NDArray[np.int64],
        samples: Sequence[EncodedSample | BadSample],
    ) -> _Faults:
        """Decode and resize a chunk into its places in the batch."""
        places = results if self._is_native else self._scratch(len(samples))
        faults: _Faults = []
        odd: list[tuple[Pixels, Pixels]] = []
        for i, (sample, *spots) in enumerate(zip(samples, *places, strict=True)):
            if isinstance(sample, BadSample):
                faults.append((i, sample))
                continue
            for part, content in enumerate(sample):
                try:
                    pixels = self._decode(part, content, spots[part])
                except DecodeError as error:
                    faults.append((i, self._source.bad(int(numbers[i]), part, str(error))))
                    break
                if pixels.shape != spots[part].shape:
                    odd.append((results[part][i], pixels))
        if not self._is_native:
            for result, place in zip(results, places, strict=True):
                result[...] = resize(place, self.size)
        for spot, pixels in odd:  # images of another size than the set's
            spot[...] = resize(pixels[None], self.size)[0]
        return faults

    def _decode(self, part: int, content: memoryview, spot: Pixels) -> Pixels:
        """Decode an image into its spot, or into memory of its own if it has another size."""
        colour, at_least = COLOURS[part], self._at_least[part]
        if self._sizes_agree:
            return decode(content, colour, at_least=at_least, into=spot)
        pixels = decode(content, colour, at_least=at_least)
        if pixels.shape == spot.shape:
            spot[...] = pixels
        return pixels

    def _scratch(self, num: int) -> list[Pixels]:
        """Places for `num` samples at the sizes they are decoded at; this thread's own."""
        if not hasattr(self._memory, "parts"):
            self._memory.parts = [
                np.empty((CHUNK, *size, 1 if part else 3), np.uint8)
                for part, size in enumerate(self._decoded_sizes)
            ]
        return [part[:num] for part in self._memory.parts]


def scaled_size(image_size: tuple[int, int], at_least: int) -> tuple[int, int]:
    """Height and width a JPEG is decoded at, no side under `at_least` if it has as much.

    Scales are 1/8, 1/4 and 1/2: libjpeg-turbo has vector code for these alone, so that decoding at
    3/8 takes longer than at 1/2, and at 5/8 longer than in full.
    """
    for divisor in (8, 4, 2):
        height, width = (-(-side // divisor) for side in image_size)
        if min(height, width) >= at_least:
            return height, width
    return image_size
