"""Short measurements of what a sample passes on its way: reading, decoding, gathering, copying.

They look at a few samples again and again, from the page cache, for a fraction of a second each:
enough to choose by, and to name what bounds a loader; `benchmarks/` measures for publication.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from pipeline.cache.memory_plan import BYTES_PER_PIXEL
from pipeline.cache.sample_table import DeviceTable, HostTable, memory_rows
from pipeline.decoder import Decoder, Request
from pipeline.source import BadSample, SampleSource

Clock = Callable[[], float]
Numbers = npt.NDArray[np.int64]

_MOST_SAMPLES = 1024
_AT_ONCE = 64
_GATHERED_BYTES = 64 << 20
"""More than a processor's cache holds."""


def warm_samples(
    source: SampleSource, *, near: int = 0, seconds: float = 0.3, clock: Clock = time.perf_counter
) -> Numbers:
    """Numbers of good samples that lie in the page cache now: neighbours, read in a row.

    Args:
        source: A split.
        near: One of them; a shard that is far away is fetched for it.
        seconds: When to be content with those read so far: the disk may be slow.
        clock: Seconds, ever increasing.
    """
    until, found = clock() + seconds, np.zeros(0, np.int64)
    first = max(0, min(near, source.num_samples - _MOST_SAMPLES))
    last = min(first + _MOST_SAMPLES, source.num_samples)
    for at in range(first, last, _AT_ONCE):
        numbers = np.arange(at, min(at + _AT_ONCE, last))
        good = [not isinstance(sample, BadSample) for sample in source.read_many(numbers)]
        found = np.concatenate([found, numbers[good]])
        if clock() >= until:
            break
    return found


def decode_rate(
    decoder: Decoder,
    source: SampleSource,
    numbers: Numbers,
    *,
    size: int,
    batch_size: int,
    exact: bool,
    seconds: float,
    clock: Clock = time.perf_counter,
) -> float:
    """Samples per second from encoded bytes to uint8 batches on the decoder's device.

    Args:
        decoder: What is measured.
        source: Where the samples come from.
        numbers: Which, over and over; at least one.
        size: Side in pixels.
        batch_size: Samples in a batch.
        exact: See `Decoder.stream`.
        seconds: How long, after a first batch that is not counted.
        clock: Seconds, ever increasing.
    """
    requests = _requests(numbers, batch_size)
    with decoder.stream(source, requests, size=size, exact=exact) as batches:
        next(batches)
        return _rate(batches, batch_size, seconds, clock)


def read_rate(
    source: SampleSource,
    numbers: Numbers,
    *,
    threads: int,
    seconds: float,
    clock: Clock = time.perf_counter,
) -> float:
    """Samples per second that threads read from the page cache and check."""
    random = np.random.default_rng(0).permutation(numbers)
    each = -(-len(random) // threads)
    shares = [random[at : at + each] for at in range(0, len(random), each)]

    def batches(pool: ThreadPoolExecutor) -> Iterator[int]:
        while True:
            yield len([*pool.map(source.read_many, shares)])

    with ThreadPoolExecutor(threads) as pool:
        return _rate(batches(pool), len(random), seconds, clock)


def gather_rate(
    *, size: int, batch_size: int, threads: int, seconds: float, clock: Clock = time.perf_counter
) -> float:
    """Samples per second that threads gather from decoded samples in the host's memory."""
    num = _num_gathered(size, batch_size)
    table, out = HostTable(memory_rows(num, size), size), memory_rows(batch_size, size)
    table.rows.fill(1)
    gather = partial(table.gather, in_use=out.nbytes)
    shares = [share for share in np.array_split(np.arange(batch_size), threads) if len(share)]

    def batches(pool: ThreadPoolExecutor) -> Iterator[int]:
        for numbers in _random_batches(num, batch_size):
            tasks = [
                pool.submit(gather, numbers[share], out[share[0] : share[-1] + 1])
                for share in shares
            ]
            yield len([task.result() for task in tasks])

    with closing(table), ThreadPoolExecutor(threads) as pool:
        return _rate(batches(pool), batch_size, seconds, clock)


def device_gather_rate(
    device: torch.device, *, size: int, batch_size: int, seconds: float
) -> float:
    """Samples per second gathered from decoded samples in a device's memory."""
    num = _num_gathered(size, batch_size)
    with closing(DeviceTable(num, size, device)) as table:
        batches = map(table.gather, _random_batches(num, batch_size))
        return _rate(batches, batch_size, seconds, time.perf_counter)


def _num_gathered(size: int, batch_size: int) -> int:
    return max(batch_size, _GATHERED_BYTES // (BYTES_PER_PIXEL * size**2))


def _random_batches(num: int, batch_size: int) -> Iterator[Numbers]:
    draw = np.random.default_rng(0)
    while True:
        yield draw.integers(0, num, batch_size)


def copy_rate(device: torch.device, *, size: int, batch_size: int, seconds: float) -> float:
    """Samples per second from page-locked host memory to a CUDA device."""
    rows = torch.empty((batch_size, BYTES_PER_PIXEL * size**2), dtype=torch.uint8, pin_memory=True)

    def copies() -> Iterator[None]:
        while True:
            rows.to(device, non_blocking=True)
            torch.cuda.synchronize(device)
            yield

    return _rate(copies(), batch_size, seconds, time.perf_counter)


def _requests(numbers: Numbers, batch_size: int) -> Iterator[Request]:
    for first in itertools.count(0, batch_size):
        at = np.arange(first, first + batch_size) % len(numbers)
        yield Request(numbers=numbers[at], num_counted=batch_size)


def _rate(batches: Iterator[object], batch_size: int, seconds: float, clock: Clock) -> float:
    done, began = 0, clock()
    while (elapsed := clock() - began) < seconds or not done:
        next(batches)
        done += batch_size
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        elapsed = clock() - began
    return done / elapsed
