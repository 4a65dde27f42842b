"""The later epochs: samples gathered from a cache, against the gathering alone.

The ceiling is `torch.index_select` of random rows of the same length (5 bytes a pixel) into memory
that is used again, on all threads, over 2 GiB of them at most: far more than a processor's cache.
The machine's memory must hold that, the host's cache, and the pages of ours and of FFCV's file; a
table for which there is no room would time the disk, and is not measured.

Ours are whole streams: the order, the gathering ahead in threads, the weights. A contender's first
turn, which is not counted, walks one epoch, and so fills its cache.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.harness import CannotRun, rate_of
from pipeline.cache.free_memory import host_room
from pipeline.loader import Loader, LoaderConfig

_CEILING_BYTES = 2 << 30
_ENDLESS = 1_000_000
CPU = torch.device("cpu")


@contextmanager
def cached_contenders(
    path: Path, folder: Path, size: int, batch_size: int, seconds: float
) -> Iterator[dict[str, Callable[[], float]]]:
    """The ceiling, and a loader with each cache that works without a GPU.

    Args:
        path: The set.
        folder: Where the file cache may lie.
        size: Side of the images in pixels.
        batch_size: Samples in a batch.
        seconds: Of a turn.
    """
    base = LoaderConfig(decoder="turbojpeg")
    with (
        tempfile.TemporaryDirectory(dir=folder) as files,
        Loader(path, replace(base, cache="host"), CPU) as host,
        Loader(path, replace(base, cache="file", cache_dir=Path(files)), CPU) as mapped,
    ):
        contenders = {
            "ceiling: index_select": _index_select(host.num_samples, size, batch_size, seconds),
            "cached, host": gathered(host, size, batch_size, seconds),
            "cached, file": gathered(mapped, size, batch_size, seconds),
        }
        needed, room = _bytes_needed(host.num_samples, size), host_room()
        if needed > room:
            msg = (
                f"memory has room for {room / 1e9:.1f} GB, and this table needs {needed / 1e9:.1f}"
            )
            contenders = dict.fromkeys(contenders, partial(_refuse, msg))
        yield contenders


def _bytes_needed(num: int, size: int) -> int:
    copy = num * 5 * size**2
    return 3 * copy + min(copy, _CEILING_BYTES)


def _refuse(reason: str) -> float:
    raise CannotRun(reason)


def gathered(
    loader: Loader,
    size: int,
    batch_size: int,
    seconds: float,
    finish: Callable[[], None] | None = None,
) -> Callable[[], float]:
    """A loader with a cache as a contender."""
    is_filled = False

    def once() -> float:
        nonlocal is_filled
        if not is_filled:
            fill(loader, size, batch_size)
            os.sync()  # the disk is at rest when a clock starts
            is_filled = True
        with loader.train_pixels(
            size=size, batch_size=batch_size, start=loader.num_samples, num_steps=_ENDLESS
        ) as batches:
            return rate_of(batches, batch_size, seconds, finish)

    return once


def fill(loader: Loader, size: int, batch_size: int) -> int:
    """Walk one epoch, all of it; how many samples that were."""
    steps = -(-loader.num_samples // batch_size)
    with loader.train_pixels(size=size, batch_size=batch_size, start=0, num_steps=steps) as epoch:
        for _ in epoch:
            pass
    return steps * batch_size


def _index_select(num: int, size: int, batch_size: int, seconds: float) -> Callable[[], float]:
    row_bytes = 5 * size**2
    rows = min(num, _CEILING_BYTES // row_bytes)
    table: torch.Tensor | None = None

    def batches() -> Iterator[None]:
        nonlocal table
        if table is None:
            table = torch.full((rows, row_bytes), 7, dtype=torch.uint8)
        out = torch.empty((batch_size, row_bytes), dtype=torch.uint8)
        orders = torch.randint(0, rows, (64, batch_size))
        while True:
            for numbers in orders:
                torch.index_select(table, 0, numbers, out=out)
                yield

    return lambda: rate_of(batches(), batch_size, seconds)
