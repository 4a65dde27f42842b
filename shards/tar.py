"""USTAR members written and read by hand, because the tar is the format and its speed is ours.

`tarfile` needs 16 us for a header, four times a sample; this needs 2. Everything that could
differ between two machines (owner, time, mode) is a constant, so equal content is equal bytes.
"""

import hashlib
import os
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from shards.error import ShardError

BLOCK = 512
MAX_NAME_BYTES = 99
_RECORD = 20 * BLOCK  # GNU tar's blocking factor, so that every reader sees a regular end
_MAX_SIZE = 8**11 - 1
_ZEROS = bytes(_RECORD)
_PADDING = [bytes(size) for size in range(BLOCK)]
_PENDING_BYTES = 1 << 20
"""Written and hashed at once: a hash and a write for every member would take a fifth of copying."""

_PREFIX_FIELDS = b"0000644\x000000000\x000000000\x00"  # mode, uid, gid
_TIME = b"00000000000\x00"
_SUFFIX = b"0" + bytes(100) + b"ustar\x0000" + bytes(247)  # a regular file without owner or device
_CONSTANT_SUM = sum(_PREFIX_FIELDS) + sum(_TIME) + sum(_SUFFIX) + 8 * ord(" ")
_LAYOUT = struct.Struct("100s24s12s12s8s356s")


def header(name: str, size: int) -> bytes:
    """The 512-byte USTAR header of a regular file.

    Raises:
        ShardError: The name does not fit a plain USTAR header, or the size its 11 octal digits.
    """
    encoded = name.encode("ascii", errors="replace")
    if len(encoded) > MAX_NAME_BYTES or b"?" in encoded or b" " in encoded or size > _MAX_SIZE:
        msg = (
            f"{name!r} ({size} bytes) cannot be a member of a shard: names are ASCII, without "
            f"spaces, up to {MAX_NAME_BYTES} bytes; rename the source member"
        )
        raise ShardError(msg)
    digits = b"%011o\x00" % size
    checksum = b"%06o\x00 " % (sum(encoded) + sum(digits) + _CONSTANT_SUM)
    return _LAYOUT.pack(encoded, _PREFIX_FIELDS, digits, _TIME, checksum, _SUFFIX)


class TarWriter:
    """Appends members to a new tar and hashes it on the way.

    Used as a context manager: a clean exit ends the archive and syncs it to disk.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb", buffering=0)
        self._hash = hashlib.sha256()
        self._pending: list[bytes] = []
        self._written = 0
        self.size_bytes = 0

    def add(self, name: str, content: bytes) -> int:
        """Append a member; returns the offset of its first byte."""
        size = len(content)
        padding = -size % BLOCK
        self._pending += (header(name, size), content, _PADDING[padding])
        offset = self.size_bytes + BLOCK
        self.size_bytes = offset + size + padding
        if self.size_bytes - self._written >= _PENDING_BYTES:
            self._flush()
        return offset

    @property
    def sha256(self) -> str:
        """Of everything added so far."""
        self._flush()
        return self._hash.hexdigest()

    def _flush(self) -> None:
        data = memoryview(b"".join(self._pending))
        self._pending.clear()
        self._hash.update(data)
        self._written += len(data)
        while data:
            data = data[self._file.write(data) :]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with self._file:
            if kind is None:
                end = self.size_bytes + 2 * BLOCK
                self._pending.append(_ZEROS[: 2 * BLOCK] + _ZEROS[: -end % _RECORD])
                self.size_bytes = end + -end % _RECORD
                self._flush()
                os.fsync(self._file.fileno())


def read_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every regular member, in order.

    Raises:
        ShardError: The file is missing or is no whole tar.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.isfile():
                    file = archive.extractfile(member)
                    assert file is not None
                    yield member.name, file.read()
    except (OSError, tarfile.TarError) as error:
        msg = (
            f"{path.name} cannot be read ({error}); run `maskdepth verify` on the set, "
            "or `maskdepth convert` again to rewrite it"
        )
        raise ShardError(msg) from None
