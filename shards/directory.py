"""A zip's central directory, streamed by blocks and believed only as far as it adds up.

Everything in it may be forged: counts, sizes and offsets up to 2**64, members that share bytes,
names that are no text. What is inconsistent is refused here, before anything is read by it, in
memory that grows with the file and never with what the file declares.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shards.error import ShardError
from shards.members import ROW, MemberTable, Rows

LOCAL = struct.Struct("<4s5H3L2H")
"""The header before a member's bytes: signature, version, flags, method, time, date, CRC, two
sizes, length of the name and of the extra field."""

ENCRYPTED = 1 << 0
MAX_NAME_BYTES = 4096
"""The longest path Linux takes: a longer name was never a file's."""

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = np.dtype([
    ("signature", "<u4"), ("made_by", "<u2"), ("needs", "<u2"), ("flags", "<u2"), ("method", "<u2"),
    ("time", "<u2"), ("date", "<u2"), ("crc", "<u4"), ("stored_size", "<u4"), ("size", "<u4"),
    ("name", "<u2"), ("extra", "<u2"), ("comment", "<u2"), ("disk", "<u2"), ("internal", "<u2"),
    ("external", "<u4"), ("offset", "<u4"),
])  # fmt: skip
"""A directory entry; name, extra field and comment, of these lengths, follow."""

_SIGNATURE = int.from_bytes(b"PK\1\2", "little")
_LENGTHS, _LENGTHS_AT = struct.Struct("<3H"), 28
_LONGEST = _ENTRY.itemsize + 3 * 0xFFFF
_UTF8 = 1 << 11
_SMALL, _BIG = 0xFFFF, 0xFFFFFFFF
_BLOCK_BYTES = 1 << 20

Numbers = npt.NDArray[np.int64]


class Directory(NamedTuple):
    """What a zip lists."""

    members: MemberTable
    digest: str
    """SHA-256 of the directory: what the zip held, without reading all of it."""


class _End(NamedTuple):
    entries: int
    wrapped: bool
    """The count has 16 bits and may stand for itself plus any multiple of 65,536."""
    directory_bytes: int
    directory_offset: int
    prefix_bytes: int
    """Bytes before the zip proper (a self-extractor's program): added to every offset."""


def read_directory(path: Path) -> Directory:
    """List a zip's members.

    Raises:
        ShardError: It is no zip, is truncated, split over disks or inconsistent, or its members
            overlap.
    """
    content = hashlib.sha256()
    names: list[str] = []
    tables: list[Rows] = [np.zeros(0, ROW)]
    header_ends: list[Numbers] = [np.zeros(0, np.int64)]
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = _find_end(path, file.fileno(), size)
        for block, positions in _blocks(path, file.fileno(), end):
            fields = _entries_at(block, positions)
            rows = _rows(path, block, positions, fields, end)
            content.update(block)
            names += _names(block, positions, fields)
            tables.append(rows)
            header_ends.append(rows["offset"] + LOCAL.size + fields["name"])
            if len(names) * (LOCAL.size + _ENTRY.itemsize) > size:
                raise damaged(path, f"it lists more members than its {size} bytes can hold")
    found = len(names)
    if found != end.entries and not (end.wrapped and found & _SMALL == end.entries):
        raise damaged(path, f"its directory lists {found} members, its end says {end.entries}")
    rows = np.concatenate(tables)
    _check_overlap(path, rows, np.concatenate(header_ends), end)
    return Directory(MemberTable(names, rows), content.hexdigest())


def decode_name(raw: bytes, flags: int) -> str:
    r"""A member's name as text that any file or terminal takes.

    UTF-8 wherever it is valid, since many writers forget the flag, else what the flag says. Bytes
    that are no text become `\xff`, never lone surrogates, which no UTF-8 file could hold.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "backslashreplace") if flags & _UTF8 else raw.decode("cp437")


def damaged(path: Path, found: str) -> ShardError:
    """The error for an archive that cannot be what its writer made."""
    return ShardError(f"{path} is damaged: {found}; fetch or copy it again")


def _find_end(path: Path, fd: int, size: int) -> _End:
    tail_offset = max(0, size - _END.size - _SMALL)  # the end record and the longest comment
    tail = os.pread(fd, size - tail_offset, tail_offset)
    at = _end_record(tail)
    if at < 0:
        msg = (
            f"{path} is no zip, or its end is missing (cut off while copying?); "
            "fetch or copy it again"
        )
        raise ShardError(msg)
    small = _END.unpack_from(tail, at)[1:7]
    end_offset, wrapped = tail_offset + at, True
    disk, first_disk, here, entries, directory_bytes, offset = small
    locator_at = at - _END64_LOCATOR.size
    if locator_at >= 0 and tail[locator_at : locator_at + 4] == b"PK\6\7":
        _, _, record_offset, disks = _END64_LOCATOR.unpack_from(tail, locator_at)
        if disks > 1:
            raise _split(path)
        end_offset, large = _end64(path, fd, record_offset, tail_offset + locator_at)
        disk, first_disk, here, entries, directory_bytes, offset = large
        limits = (_SMALL,) * 4 + (_BIG,) * 2
        if any(a not in (b, top) for a, b, top in zip(small, large, limits, strict=True)):
            raise damaged(path, "its two end records contradict each other")
        wrapped = False
    if disk or first_disk:
        raise _split(path)
    prefix = end_offset - directory_bytes - offset
    if prefix < 0 or here != entries or entries * _ENTRY.itemsize > directory_bytes:
        raise damaged(path, "its central directory does not fit the file")
    return _End(entries, wrapped, directory_bytes, offset + prefix, prefix)


def _end_record(tail: bytes) -> int:
    """Where the end record starts: one whose comment ends with the file, else the last one."""
    at = last = tail.rfind(b"PK\5\6", 0, max(0, len(tail) - _END.size + 4))
    while at >= 0:
        (comment_bytes,) = struct.unpack_from("<H", tail, at + _END.size - 2)
        if at + _END.size + comment_bytes == len(tail):
            return at
        at = tail.rfind(b"PK\5\6", 0, at)
    return last


def _end64(
    path: Path, fd: int, record_offset: int, locator_offset: int
) -> tuple[int, tuple[int, ...]]:
    """The zip64 end record: where the locator says, or right before it if a prefix moved it."""
    for offset in (record_offset, locator_offset - _END64.size):
        if 0 <= offset <= locator_offset - _END64.size:
            record = os.pread(fd, _END64.size, offset)
            if record[:4] == b"PK\6\6":
                return offset, _END64.unpack(record)[4:]
    raise damaged(path, "its zip64 end record is missing")


def _blocks(path: Path, fd: int, end: _End) -> Iterator[tuple[bytes, Numbers]]:
    """Pieces of the directory that hold whole entries, with the positions where these begin."""
    rest = b""
    next_read, stop = end.directory_offset, end.directory_offset + end.directory_bytes
    while next_read < stop:
        more = os.pread(fd, min(_BLOCK_BYTES, stop - next_read), next_read)
        if not more:
            raise damaged(path, "it became shorter while it was read")
        next_read += len(more)
        block = rest + more
        positions, whole = _positions(block)
        rest = block[whole:]
        if len(positions):
            yield block[:whole], positions
        if rest[:4] == b"PK\5\5":  # a signature may end the list
            return
        # what is left is the beginning of an entry, unless it is too long or no such thing
        if len(rest) > _LONGEST or (len(rest) >= 4 and rest[:4] != b"PK\1\2"):
            raise _no_entry(path, next_read - len(rest))
    if rest:
        raise _no_entry(path, next_read - len(rest))


def _positions(block: bytes) -> tuple[Numbers, int]:
    """Where the whole entries of a block begin, and where the last of them ends.

    Every signature is taken for an entry; where they do not follow upon each other (a name or
    comment may hold one too) the entries are walked one by one.
    """
    words = np.ndarray(max(0, len(block) - _ENTRY.itemsize + 1), "<u4", block, strides=(1,))
    positions = np.flatnonzero(words == _SIGNATURE)
    ends = positions + _lengths(_entries_at(block, positions))
    if len(ends) and ends[-1] > len(block):
        positions, ends = positions[:-1], ends[:-1]
    if not len(ends):
        return positions, 0
    follow = positions[0] == 0 and np.array_equal(positions[1:], ends[:-1])
    return (positions, int(ends[-1])) if follow and ends[-1] <= len(block) else _walk(block)


def _walk(block: bytes) -> tuple[Numbers, int]:
    positions, at = [], 0
    while at + _ENTRY.itemsize <= len(block) and block[at : at + 4] == b"PK\1\2":
        end = at + _ENTRY.itemsize + sum(_LENGTHS.unpack_from(block, at + _LENGTHS_AT))
        if end > len(block):
            break
        positions.append(at)
        at = end
    return np.array(positions, np.int64), at


def _entries_at(block: bytes, positions: Numbers) -> Rows:
    """The fixed fields of entries; a view that begins at every byte, of which some are taken."""
    everywhere: Rows = np.ndarray(
        max(0, len(block) - _ENTRY.itemsize + 1), _ENTRY, block, strides=(1,)
    )
    return everywhere[positions]


def _lengths(fields: Rows) -> Numbers:
    lengths = np.full(len(fields), _ENTRY.itemsize, np.int64)
    for name in ("name", "extra", "comment"):
        lengths += fields[name]
    return lengths


def _names(block: bytes, positions: Numbers, fields: Rows) -> list[str]:
    starts = positions + _ENTRY.itemsize
    bounds = list(zip(starts.tolist(), (starts + fields["name"]).tolist(), strict=True))
    text = block.decode("latin-1")  # a slice of it that is ASCII is the name
    names = [text[begin:end] for begin, end in bounds]
    if not all(map(str.isascii, names)):
        for at, (begin, end) in enumerate(bounds):
            if not names[at].isascii():
                names[at] = decode_name(block[begin:end], int(fields["flags"][at]))
    return names


def _rows(path: Path, block: bytes, positions: Numbers, fields: Rows, end: _End) -> Rows:
    """The members' numbers, refused where they cannot be true."""
    rows = np.empty(len(fields), ROW)
    for name in ("size", "crc", "stored_size", "method"):
        rows[name] = fields[name]
    rows["encrypted"] = fields["flags"] & ENCRYPTED
    offsets = fields["offset"].astype(np.uint64)
    for at in np.flatnonzero(
        (fields["size"] == _BIG) | (fields["stored_size"] == _BIG) | (fields["offset"] == _BIG)
    ).tolist():
        extra_at = int(positions[at]) + _ENTRY.itemsize + int(fields["name"][at])
        extra = block[extra_at : extra_at + int(fields["extra"][at])]
        row, sizes = rows[at], (int(fields[name][at]) for name in ("size", "stored_size", "offset"))
        row["size"], row["stored_size"], offsets[at] = _zip64_sizes(path, extra, *sizes)
    longest = int(fields["name"].max())
    if longest > MAX_NAME_BYTES:
        raise damaged(path, f"a name has {longest} bytes, a path {MAX_NAME_BYTES} at most")
    if not np.isin(fields["disk"], (0, _SMALL)).all():
        raise _split(path)
    # of 64 bits each: the sums below cannot be trusted before each part is small
    room = end.directory_offset - end.prefix_bytes
    begin = offsets + np.uint64(LOCAL.size) + fields["name"]
    wrong = (offsets > room) | (rows["stored_size"] > room)
    wrong |= begin + np.where(wrong, 0, rows["stored_size"]) > room
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        (name,) = _names(block, positions[at : at + 1], fields[at : at + 1])
        raise damaged(path, f"{name!r} lies outside the file, or in the directory")
    rows["offset"] = offsets + np.uint64(end.prefix_bytes)
    return rows


def _zip64_sizes(
    path: Path, extra: bytes, size: int, stored_size: int, offset: int
) -> tuple[int, int, int]:
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        at += 4
        if tag == 1:
            usable = min(length, len(extra) - at) // 8
            fields = iter(struct.unpack_from(f"<{usable}Q", extra, at))
            try:
                return (
                    next(fields) if size == _BIG else size,
                    next(fields) if stored_size == _BIG else stored_size,
                    next(fields) if offset == _BIG else offset,
                )
            except StopIteration:
                break
        at += length
    raise damaged(path, "a zip64 entry has no sizes")


def _check_overlap(path: Path, rows: Rows, header_ends: Numbers, end: _End) -> None:
    """Members that share bytes are how a small zip declares petabytes."""
    order = np.argsort(rows["offset"], kind="stable")
    offsets = rows["offset"][order]
    ends = (header_ends + rows["stored_size"].astype(np.int64))[order]
    nexts = np.append(offsets[1:], end.directory_offset)
    (bad,) = np.nonzero(ends > nexts)
    if len(bad):
        at = int(offsets[bad[0]])
        msg = f"the member at byte {at} overlaps what follows it ({len(bad)} such members)"
        raise damaged(path, msg)


def _no_entry(path: Path, offset: int) -> ShardError:
    return damaged(path, f"its central directory has no entry at byte {offset}")


def _split(path: Path) -> ShardError:
    return ShardError(f"{path} is one part of a zip split over several files; join the parts first")
