"""How much of a set's files lies in memory already, and how fast its disk gives the rest."""

import ctypes
import itertools
import mmap
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

_BLOCK = 1 << 20
_READERS = 4
"""Blocks asked for at a time: a solid-state disk gives one of them at half its rate."""

_MOST_BLOCKS = 1 << 14
"""More than any disk gives in a second."""

_libc = ctypes.CDLL(None, use_errno=True)


def resident_bytes(path: Path) -> int:
    """How many bytes of a file are in the page cache.

    Raises:
        OSError: The file cannot be opened, or the system does not tell.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return 0
        pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
        # mapped and not touched: a file that shrinks meanwhile is no danger
        with mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
            view = np.frombuffer(mapped, np.uint8)
            status = _libc.mincore(
                ctypes.c_void_p(view.ctypes.data),
                ctypes.c_size_t(size),
                ctypes.c_void_p(pages.ctypes.data),
            )
            del view  # or the map cannot be closed
    if status:
        raise OSError(ctypes.get_errno(), "mincore")
    return min(int(np.count_nonzero(pages & 1)) * mmap.PAGESIZE, size)


def disk_rate(
    paths: Sequence[Path], *, seconds: float = 1.0, clock: Callable[[], float] = time.perf_counter
) -> float | None:
    """Bytes per second that a disk gives, past the page cache, which stays as it is.

    Args:
        paths: Files to read from; each block once.
        seconds: How long to read at most.
        clock: Seconds, ever increasing.

    Returns:
        None where the file system reads only by the page cache (memory, some networks), or where
        the files are too small to tell.
    """
    blocks = _blocks(paths)
    began = clock()
    with ThreadPoolExecutor(_READERS) as pool:
        # one iterator for all: each takes the next block when it has read its last
        done = sum(pool.map(lambda _: _read(blocks, began + seconds, clock), range(_READERS)))
    elapsed = clock() - began
    return done / elapsed if done >= _BLOCK and elapsed > 0 else None


def _blocks(paths: Sequence[Path]) -> Iterator[tuple[Path, int]]:
    every = (
        (path, at) for path in paths for at in range(0, path.stat().st_size - _BLOCK + 1, _BLOCK)
    )
    return iter([*itertools.islice(every, _MOST_BLOCKS)])  # a list's: threads may share it


def _read(blocks: Iterator[tuple[Path, int]], until: float, clock: Callable[[], float]) -> int:
    done = 0
    with mmap.mmap(-1, _BLOCK) as buffer:  # anonymous memory is aligned as O_DIRECT wants it
        for path, at in blocks:
            if clock() >= until:
                break
            try:
                file = os.open(path, os.O_RDONLY | os.O_DIRECT)
            except OSError:
                break
            try:
                done += os.preadv(file, [buffer], at)
            except OSError:
                break
            finally:
                os.close(file)
    return done
