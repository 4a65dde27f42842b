"""A folder of fetched files that holds no more than it may. Several processes may share it.

    FOLDER/FINGERPRINT/train-000007.tar              whole and checked
    FOLDER/FINGERPRINT/train-000007.tar.63488000.part    on its way; its bytes are spoken for
    FOLDER/.lock

What is in the folder is all there is to know: nothing to restore after a kill. A file in use is
locked (`flock`, shared) by whoever uses it, one on its way by whoever fetches it; the locks of a
killed process are gone with it. Shards that nobody has locked make room, those used longest ago
first. Only who holds `.lock` opens, adds or removes a file, and holds it for milliseconds.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shards.manifest import BACKGROUNDS, FileRecord

_SET_FOLDER = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"\.(\d+)\.part$")


class NoRoomError(Exception):
    """What is in use leaves no room for a file; the message tells how much that is."""


class FetchedFiles:
    """The files of one folder.

    Args:
        folder: Where they lie; made if it is missing.
        max_bytes: What it may hold.

    Raises:
        OSError: The folder cannot be made or written.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        folder.mkdir(parents=True, exist_ok=True)

    def open(self, path: Path, record: FileRecord) -> int | None:
        """A descriptor of a whole file, which stays until that is closed; None: it is not there."""
        with self._locked(), suppress(FileNotFoundError):
            file = os.open(path, os.O_RDONLY)
            fcntl.flock(file, fcntl.LOCK_SH)
            os.utime(file)
            if os.fstat(file).st_size == record.bytes:
                return file
            os.close(file)
            path.unlink()
        return None

    def remove(self, path: Path) -> None:
        """Forget a file; who has it open may read on."""
        with self._locked():
            path.unlink(missing_ok=True)

    @contextmanager
    def arriving(self, path: Path, record: FileRecord) -> Iterator[Path | None]:
        """Make room for a file; gives where to put it, or None if another process fetches it.

        Left without an exception the file counts as whole, and `open` finds it.

        Raises:
            NoRoomError: What is in use leaves none.
            OSError: The disk is full.
        """
        part = path.with_name(f"{path.name}.{record.bytes}.part")
        file = self._claim(path, part, record.bytes)
        if file is None:
            yield None
            return
        try:
            yield part
            with self._locked():
                part.rename(path)
        except BaseException:
            self.remove(part)
            raise
        finally:
            os.close(file)

    def _claim(self, path: Path, part: Path, size: int) -> int | None:
        with self._locked():
            path.parent.mkdir(exist_ok=True)
            if path.exists():  # since the caller looked
                return None
            if not part.exists():  # else its bytes are counted already: somebody's, or left behind
                self._make_room(size)
            file = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
            if _lock_now(file):
                return file
            os.close(file)
            return None

    def _make_room(self, size: int) -> None:
        files = {path: _bytes_of(path) for path in self._files()}
        used = sum(files.values())
        for path in sorted(filter(_may_go, files), key=_last_used):
            if used + size <= self.max_bytes:
                break
            if _remove_if_unused(path):
                used -= files[path]
        if used + size > self.max_bytes:
            msg = f"{used:,} of {self.max_bytes:,} bytes of {self.folder} are in use"
            raise NoRoomError(msg)

    def _files(self) -> Iterator[Path]:
        for folder in self.folder.iterdir():
            if _SET_FOLDER.fullmatch(folder.name):
                yield from folder.iterdir()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # opened anew: two threads with one open file would share its lock
        lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _bytes_of(path: Path) -> int:
    """What a file takes, or will when it has arrived."""
    part = _PART.search(path.name)
    return int(part[1]) if part else path.stat().st_size


def _may_go(path: Path) -> bool:
    """Indices and backgrounds stay: they are small, and read before anything is streamed."""
    return path.name.endswith(".part") or (path.suffix == ".tar" and path.name != BACKGROUNDS)


def _last_used(path: Path) -> float:
    return path.stat().st_mtime


def _remove_if_unused(path: Path) -> bool:
    file = os.open(path, os.O_RDONLY)
    try:
        if _lock_now(file):
            path.unlink()
            return True
        return False
    finally:
        os.close(file)


def _lock_now(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
