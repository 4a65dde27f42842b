"""A new file whose bytes follow the writer to the disk, past the page cache where that can be.

Pages of the cache must be found, cleared and written back: on a virtual machine whose host takes
back free pages that is a quarter of copying a set, and everywhere they push out the archives that
are still to be read. And what `maskdepth verify` reads next is then what the disk holds.
"""

import errno
import fcntl
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from shards.pages import pages

_WRITE_BYTES = 1 << 20
"""So many are handed to the disk at once, or more."""

_BUFFER_BYTES = 6 << 20
"""Of memory to begin with; a larger piece has it grow. Huge pages are quicker to hand over."""

_ALIGNMENT = 4096
"""Of addresses, places and sizes: what every disk and file system takes."""

_spare: list[mmap.mmap] = []
"""Memory of files that are closed: to get pages anew takes longer than to fill them."""

_DIRECT = getattr(os, "O_DIRECT", 0)  # macOS has none


class DiskFile:
    """Appends to a new file; one buffer is filled while the other is written.

    Raises:
        OSError: The file cannot be made or written, here or at any later call.
    """

    def __init__(self, path: Path) -> None:
        self._file, self._is_direct = _opened(path)
        # written in the caller's thread, the disk would wait for the caller, and the caller for it
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="maskdepth-disk")
        self._writing: Future[None] | None = None
        self._buffer, self._other = _memory_at_hand(), _memory_at_hand()
        self._filled = 0
        self._handed_over = 0

    def reserve(self, num_bytes: int) -> memoryview:
        """Memory for what comes next, to be filled and appended; asked again, it is forgotten."""
        needed = self._filled + num_bytes
        if needed > len(self._buffer):
            larger = pages(needed + needed // 8)  # the next piece may be larger
            larger[: self._filled] = self._buffer[: self._filled]
            self._buffer = larger
        return memoryview(self._buffer)[self._filled : needed]

    def append(self, num_bytes: int) -> None:
        """Have the first so many reserved bytes follow what is there."""
        self._filled += num_bytes
        if self._filled >= _WRITE_BYTES:
            self._hand_over()

    def write(self, data: memoryview) -> None:
        """Append a copy."""
        while data:
            part = data[:_WRITE_BYTES]
            self.reserve(len(part))[:] = part
            self.append(len(part))
            data = data[len(part) :]

    def finish(self) -> None:
        """Have the whole file on the disk."""
        size = self._handed_over + self._filled
        self._filled = -(-self._filled // _ALIGNMENT) * _ALIGNMENT
        self._hand_over()
        self._wait()
        os.ftruncate(self._file, size)
        os.fsync(self._file)

    def close(self) -> None:
        """Let the file go, finished or not."""
        self._disk.shutdown()
        os.close(self._file)
        _spare.extend((self._buffer, self._other))

    def _hand_over(self) -> None:
        """Write what a disk takes of what is there; the rest begins the other buffer."""
        self._wait()
        num_bytes = self._filled // _ALIGNMENT * _ALIGNMENT
        data = memoryview(self._buffer)[:num_bytes]
        self._writing = self._disk.submit(self._put, data, self._handed_over)
        rest = self._buffer[num_bytes : self._filled]
        self._other[: len(rest)] = rest
        self._handed_over += num_bytes
        self._buffer, self._other, self._filled = self._other, self._buffer, len(rest)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _put(self, data: memoryview, at: int) -> None:
        while data:
            try:
                num = os.pwrite(self._file, data, at)
            except OSError as error:
                if not self._is_direct or error.errno != errno.EINVAL:
                    raise
                # what some file systems say only now, and all of them after a write cut short
                flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
                fcntl.fcntl(self._file, fcntl.F_SETFL, flags & ~_DIRECT)
                self._is_direct = False
                continue
            data, at = data[num:], at + num
        if not self._is_direct:  # synced only at its end a file would keep its process waiting
            os.fdatasync(self._file)


def prepare() -> None:
    """Have the memory of one file at hand, for a process that has nothing else to do yet."""
    for _ in range(2):
        memory = pages(_BUFFER_BYTES)
        memory[:] = bytes(len(memory))
        _spare.append(memory)


def _memory_at_hand() -> mmap.mmap:
    with suppress(IndexError):  # asking first would not do: another thread may take the last
        return _spare.pop()
    return pages(_BUFFER_BYTES)


def _opened(path: Path) -> tuple[int, bool]:
    """A descriptor, and whether it goes past the page cache."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    if _DIRECT:
        try:
            return os.open(path, flags | _DIRECT, 0o666), True
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system without
                raise
    return os.open(path, flags, 0o666), False
