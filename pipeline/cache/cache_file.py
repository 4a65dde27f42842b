"""Decoded samples in a mapped file that outlives the run, shared by all processes of a machine.

    4,096 bytes   one line of text: what the file holds, and its CRC-32
    M bytes       1 where that sample's row is whole, else 0; padded to 4,096
    M rows        composite, mask and depth of each sample (`sample_table.py`)

What must not happen, and what prevents it:

- *A bus error* where the disk fills up or the file shrinks: it is allocated in full, and locked,
  before it is mapped. Whoever finds it locked shares it; it is made, or made anew, only by a
  process that has it alone.
- *A flag without pixels*, whenever the process or the machine stops: a flag is set only after the
  rows before it have reached the disk. A kill costs the rows of the last second.
- *Another set's pixels*: set, split, size, decoder and its version are in the name and the header.
"""

import fcntl
import hashlib
import json
import logging
import mmap
import os
import threading
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cache.memory_plan import BYTES_PER_PIXEL, gigabytes
from pipeline.cache.sample_table import Bools, HostTable, Numbers
from pipeline.error import LoaderError

Identity = Mapping[str, Any]
"""What decides the pixels; plain values."""

COMMIT_EVERY_S = 1.0
_PAGE = 4096
_MAGIC = b"maskdepth-cache-1"
_WAIT_S = 5.0
"""How long a damaged file that others use may take to be mended by them."""


_logger = logging.getLogger(__name__)


def cache_path(folder: Path, identity: Identity) -> Path:
    """Where the samples of an identity lie."""
    digest = hashlib.blake2b(_canonical(identity), digest_size=8).hexdigest()
    return folder / f"{identity['split']}-{identity['size']}px-{digest}.cache"


def bytes_on_disk(path: Path) -> int:
    """What a cache file has taken of its disk already; 0 if there is none."""
    return path.stat().st_blocks * 512 if path.exists() else 0


class FileTable(HostTable):
    """Rows in a file that is mapped and locked; see `open_file_table`.

    Args:
        file: Open file, locked for sharing; closed with the table.
        num: M.
        size: H.
    """

    def __init__(self, file: int, num: int, size: int) -> None:
        self._file = file
        area = np.frombuffer(mmap.mmap(file, _file_bytes(num, size)), np.uint8)
        rows = area[_rows_begin(num) :].reshape(num, BYTES_PER_PIXEL * size**2)
        super().__init__(rows, size)
        self._flags = area[_PAGE : _PAGE + num]
        self._held[:num] = self._flags == 1
        self._pending: list[Numbers] = []
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._committer = threading.Thread(
            target=self._commit_often, name="maskdepth-cache", daemon=True
        )
        self._committer.start()

    def holds(self, numbers: Numbers) -> Bools:
        """(N,) whether each sample has been written, by this process or another."""
        held = super().holds(numbers)
        if not held.all():
            others = np.flatnonzero(~held & (numbers < len(self)))
            held[others] = self._flags[numbers[others]] == 1
        return held

    def written(self, numbers: Numbers) -> None:
        """Rows have been written; their flags follow when they have reached the disk."""
        with self._lock:
            self._pending.append(numbers)

    def commit(self) -> None:
        """Wait until what has been written is on the disk, then flag it."""
        with self._lock:
            pending, self._pending = self._pending, []
        if pending:
            os.fdatasync(self._file)
            self._flags[np.concatenate(pending)] = 1

    def close(self) -> None:
        """Flag what has been written, then let go of map, lock and file."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._committer.join()
        self.commit()
        os.fdatasync(self._file)
        super().close()
        self._flags = self._flags[:0].copy()
        os.close(self._file)

    def _commit_often(self) -> None:
        while not self._closing.wait(COMMIT_EVERY_S):
            self.commit()


def open_file_table(folder: Path, identity: Identity, *, num: int) -> FileTable:
    """The cache file of an identity, as another run or process left it, or a new one.

    Args:
        folder: Where it lies; made if missing.
        identity: What decides the pixels; `size` and `split` among it.
        num: Samples that a new file holds; one that exists keeps its own number.

    Raises:
        LoaderError: The folder cannot be written, or has no room.
    """
    path = cache_path(folder, identity)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        msg = f"{path} cannot be opened ({error.strerror}); choose another --cache-dir"
        raise LoaderError(msg) from None
    try:
        return FileTable(file, _share(file, path, identity, num), identity["size"])
    except BaseException:
        os.close(file)
        raise


def _share(file: int, path: Path, identity: Identity, num: int) -> int:
    """Lock a sound file for sharing, making it where needed; returns how many rows it has."""
    give_up = time.monotonic() + _WAIT_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # somebody makes it or has it mapped
        else:
            if _num_rows(file, identity) is None:
                _make(file, path, identity, num)
        fcntl.flock(file, fcntl.LOCK_SH)
        # the lock may have passed through other hands on its way from one kind to the other
        if (found := _num_rows(file, identity)) is not None:
            return found
        fcntl.flock(file, fcntl.LOCK_UN)
        if time.monotonic() > give_up:
            msg = f"{path} is damaged and in use; end the other runs, or choose another --cache-dir"
            raise LoaderError(msg)
        time.sleep(0.01)


def _make(file: int, path: Path, identity: Identity, num: int) -> None:
    if os.fstat(file).st_size:
        _logger.warning("%s is damaged or unfinished; it is filled anew", path)
    size = _file_bytes(num, identity["size"])
    os.ftruncate(file, 0)
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        os.ftruncate(file, 0)
        msg = (
            f"{path} cannot have the {gigabytes(size)} it needs ({error.strerror}); choose another "
            "--cache-dir, or --cache off"
        )
        raise LoaderError(msg) from None
    text = _canonical({**identity, "rows": num})
    header = b"%s %08x %s\n" % (_MAGIC, zlib.crc32(text), text)
    if len(header) > _PAGE:
        msg = f"the header of {path} takes {len(header)} bytes"
        raise AssertionError(msg)
    os.fdatasync(file)  # nothing but zeros before there is a header that vouches for them
    os.pwrite(file, header, 0)
    os.fdatasync(file)


def _num_rows(file: int, identity: Identity) -> int | None:
    """How many rows a file has; None if it is damaged, unfinished or another identity's."""
    magic, _, rest = os.pread(file, _PAGE, 0).partition(b" ")
    crc, _, line = rest.partition(b" ")
    text = line.partition(b"\n")[0]
    if magic != _MAGIC or crc != b"%08x" % zlib.crc32(text):
        return None
    num = json.loads(text)["rows"]
    whole = os.fstat(file).st_size == _file_bytes(num, identity["size"])
    if text != _canonical({**identity, "rows": num}) or not whole:
        return None
    flags = np.frombuffer(os.pread(file, num, _PAGE), np.uint8)
    return None if (flags > 1).any() else num


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def _rows_begin(num: int) -> int:
    return _PAGE + -(-num // _PAGE) * _PAGE


def _file_bytes(num: int, size: int) -> int:
    return _rows_begin(num) + num * BYTES_PER_PIXEL * size**2
