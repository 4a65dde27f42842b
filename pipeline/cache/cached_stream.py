"""Batches of which the cached samples are gathered and the others decoded, and cached on their way.

What comes out is what streaming gives, bit for bit: a cache changes where pixels come from, never
which. The stream goes through stretches of two kinds. Where all samples of a batch are held, whole
batches are gathered ahead by a thread pool (or on the device). Where some are missing, only those
go through the decoder; its threads copy each chunk into the cache, and into its places in the
batch, while it is still in their processor's cache.

A cache without room for every sample has one stretch, of the second kind.
"""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from pipeline.ahead import in_order
from pipeline.cache.assembly import Assembly, Frames
from pipeline.cache.sample_table import HostTable, Numbers, SampleCache
from pipeline.decoder import DecodedBatch, Decoder, Request
from pipeline.source import SampleSource

_MAX_FILLING = 2
"""Batches that may wait to be copied to a host table by threads of ours."""


class CachedStream:
    """One stream through a cache. One thread consumes it.

    Args:
        cache: What is held, and where what is decoded goes.
        decoder: Decodes the rest.
        source: Where the encoded samples come from.
        exact: See `Decoder.stream`.
        device: Where batches go.
        threads: Threads that gather.
        ahead: Batches under way while the consumer holds one.
    """

    def __init__(
        self,
        cache: SampleCache,
        decoder: Decoder,
        source: SampleSource,
        *,
        exact: bool,
        device: torch.device,
        threads: int,
        ahead: int,
    ) -> None:
        self._cache, self._device = cache, device
        self._decoder, self._source, self._exact = decoder, source, exact
        self._threads = threads
        # each batch more that is gathered ahead pushes another out of the L3 cache: 4 % at 64 px
        self._ahead = min(ahead, threads) if isinstance(cache.table, HostTable) else 0
        self._frames = Frames(cache.table.size, pinned=device.type == "cuda")
        self._filling: deque[Future[None]] = deque()

    def batches(self, requests: Iterable[Request]) -> Generator[DecodedBatch]:
        """The batches in order, each valid until the next is asked for."""
        left = _Peekable(requests)
        with ThreadPoolExecutor(self._threads, thread_name_prefix="maskdepth-gather") as pool:
            while left.next is not None:
                yield from self._gathered(left, pool)
                if left.next is not None:
                    yield from self._decoded(left, pool)
            while self._filling:
                self._filling.popleft().result()

    def _gathered(self, left: "_Peekable", pool: ThreadPoolExecutor) -> Generator[DecodedBatch]:
        """Batches while all their samples are held."""
        num_frames = self._ahead + 1
        num_tasks = math.ceil(self._threads / num_frames)

        def jobs() -> Iterator[tuple[Assembly, Sequence[Callable[[], None]]]]:
            while (assembly := self._next(left, held=True)) is not None:
                yield assembly, assembly.gathering(num_tasks, num_frames)

        for assembly, _ in in_order(jobs(), pool, ahead=self._ahead):
            yield assembly.gathered()
            self._frames.give_back(assembly.frame)

    def _decoded(self, left: "_Peekable", pool: ThreadPoolExecutor) -> Generator[DecodedBatch]:
        """Batches while some of their samples are not."""
        planned: deque[Assembly] = deque()

        def requests() -> Iterator[Request]:
            is_first = True  # and no decoder takes a longer request than that
            while (assembly := self._next(left, held=False)) is not None:
                assembly.gather_in(pool)
                planned.append(assembly)
                yield assembly.to_decode(padded=is_first)
                is_first = False

        def fill(
            table: HostTable, numbers: Numbers, parts: Sequence[Tensor], good: Numbers
        ) -> None:
            while len(self._filling) >= _MAX_FILLING:
                self._filling.popleft().result()
            self._filling.append(pool.submit(_put, table, numbers, *_to_host(parts), good))

        stream = self._decoder.stream(
            self._source, requests(), size=self._cache.table.size, exact=self._exact
        )
        with stream as decoded:
            for pixels in decoded:
                assembly = planned.popleft()
                self._cache.bad.update({bad.number: bad for bad in pixels.bad})
                yield assembly.decoded(pixels, fill)
                self._frames.give_back(assembly.frame)

    def _next(self, left: "_Peekable", *, held: bool) -> Assembly | None:
        """The next batch, if it is of that kind."""
        if left.next is None:
            return None
        missing = self._cache.missing(left.next)
        if held != (self._cache.is_whole and not missing.size):
            return None
        return Assembly(self._cache, left.take(), missing, self._device, self._frames)


def _to_host(parts: Sequence[Tensor]) -> tuple[list[Tensor], torch.cuda.Event | None]:
    """The parts in host memory; on their way there until the event, if there is one."""
    if parts[0].device.type == "cpu":
        return list(parts), None
    here = [torch.empty_like(part, device="cpu", pin_memory=True) for part in parts]
    for target, part in zip(here, parts, strict=True):
        target.copy_(part, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return here, event


def _put(
    table: HostTable,
    numbers: Numbers,
    parts: Sequence[Tensor],
    here: torch.cuda.Event | None,
    good: Numbers,
) -> None:
    if here is not None:
        here.synchronize()
    table.put(numbers, [part.numpy() for part in parts], good)


class _Peekable:
    """Requests, of which the next may be looked at before it is taken."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._requests = iter(requests)
        self.next = next(self._requests, None)

    def take(self) -> Request:
        """The next one; it must be there."""
        taken, self.next = self.next, next(self._requests, None)
        assert taken is not None
        return taken
