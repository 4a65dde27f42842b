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
from pathlib import Path

_BUFFER_BYTES = 4 << 20
_ALIGNMENT = 4096
"""Of addresses, places and sizes: what every disk and file system takes."""

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
        self._buffer, self._other = (mmap.mmap(-1, _BUFFER_BYTES) for _ in range(2))
        self._filled = 0
        self._handed_over = 0

    def write(self, data: memoryview) -> None:
        """Append; `data` may change afterwards."""
        while data:
            part = data[: _BUFFER_BYTES - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            data = data[len(part) :]
            if self._filled == _BUFFER_BYTES:
                self._hand_over(_BUFFER_BYTES)

    def finish(self) -> None:
        """Have the whole file on the disk."""
        size = self._handed_over + self._filled
        self._hand_over(-(-self._filled // _ALIGNMENT) * _ALIGNMENT)
        self._wait()
        os.ftruncate(self._file, size)
        os.fsync(self._file)

    def close(self) -> None:
        """Let the file go, finished or not."""
        self._disk.shutdown()
        os.close(self._file)

    def _hand_over(self, num_bytes: int) -> None:
        self._wait()
        data = memoryview(self._buffer)[:num_bytes]
        self._writing = self._disk.submit(self._put, data, self._handed_over)
        self._handed_over += self._filled
        self._buffer, self._other, self._filled = self._other, self._buffer, 0

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
