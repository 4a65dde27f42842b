"""USTAR members written and read by hand, because the tar is the format and its speed is ours.

`tarfile` needs 16 us for a header, four times a sample; this needs 2. Everything that could
differ between two machines (owner, time, mode) is a constant, so equal content is equal bytes.
"""

import hashlib
import struct
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from shards.disk_file import DiskFile
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
_EMPTY = np.frombuffer(
    _LAYOUT.pack(b"", _PREFIX_FIELDS, bytes(12), _TIME, bytes(6) + b"\0 ", _SUFFIX), np.uint8
)
_OCTAL_11 = np.arange(30, -1, -3)
"""By how many bits each of eleven octal digits lies to the left."""


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


def headers(names: Sequence[bytes], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """The (N, 512) USTAR headers of many regular files, each as `header` would make it, at once.

    Raises:
        ShardError: As `header`.
    """
    if max(map(len, names)) > MAX_NAME_BYTES or int(sizes.max()) > _MAX_SIZE:
        for name, size in zip(names, sizes.tolist(), strict=True):
            header(name.decode("ascii"), size)
    blocks = np.empty((len(names), BLOCK), np.uint8)
    blocks[:] = _EMPTY
    blocks[:, :100] = np.array(names, "S100").view(np.uint8).reshape(-1, 100)
    blocks[:, 124:135] = (sizes[:, None] >> _OCTAL_11) & 7 | ord("0")
    sums = blocks[:, :100].sum(axis=1, dtype=np.int64)
    sums += blocks[:, 124:135].sum(axis=1, dtype=np.int64) + _CONSTANT_SUM
    blocks[:, 148:154] = (sums[:, None] >> _OCTAL_11[-6:]) & 7 | ord("0")
    return blocks


class TarWriter:
    """Appends members to a new tar and hashes it while the disk follows.

    Used as a context manager: a clean exit ends the archive and syncs it to disk.
    """

    def __init__(self, path: Path) -> None:
        self._file = DiskFile(path)
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

    def reserve(self, num_bytes: int) -> memoryview:
        """Memory for whole members, headers and padding included, to be filled and appended."""
        self._flush()
        return self._file.reserve(num_bytes)

    def append(self, members: memoryview) -> None:
        """Have what was reserved, filled by now, follow what is there."""
        self._hash.update(members)
        self.size_bytes += len(members)
        self._written += len(members)
        self._file.append(len(members))

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
        self._file.write(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                end = self.size_bytes + 2 * BLOCK
                self._pending.append(_ZEROS[: 2 * BLOCK] + _ZEROS[: -end % _RECORD])
                self.size_bytes = end + -end % _RECORD
                self._flush()
                self._file.finish()
        finally:
            self._file.close()


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
