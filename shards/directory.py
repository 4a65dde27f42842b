"""A zip's central directory, streamed entry by entry and believed only as far as it adds up.

Everything in it may be forged: counts, sizes and offsets up to 2**64, members that share bytes,
names that are no text. What is inconsistent is refused here, before anything is read by it, in
memory that grows with the file and never with what the file declares.
"""

import os
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shards.error import ShardError

LOCAL = struct.Struct("<4s5H3L2H")
"""The header before a member's bytes: signature, version, flags, method, time, date, CRC, two
sizes, length of the name and of the extra field."""

ENCRYPTED = 1 << 0
MAX_NAME_BYTES = 4096
"""The longest path Linux takes: a longer name was never a file's."""

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LONGEST = _CENTRAL.size + 3 * 0xFFFF
_UTF8 = 1 << 11
_SMALL, _BIG = 0xFFFF, 0xFFFFFFFF
_BLOCK_BYTES = 1 << 20

Entry = tuple[str, int, int, int, int, int, bool]
"""The fields of `shards.archive.Member`, in its order."""


class _End(NamedTuple):
    entries: int
    wrapped: bool
    """The count has 16 bits and may stand for itself plus any multiple of 65,536."""
    directory_bytes: int
    directory_offset: int
    prefix_bytes: int
    """Bytes before the zip proper (a self-extractor's program): added to every offset."""


def read_directory(path: Path) -> Iterator[Entry]:
    """List a zip's members.

    Raises:
        ShardError: It is no zip, is truncated, split over disks or inconsistent, or its members
            overlap; possibly only after some members were given out.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        end = _find_end(path, file.fileno(), size)
        offsets, ends, found = array("Q"), array("Q"), 0
        for raw_name, entry in _entries(path, file.fileno(), end):
            found += 1
            offset, stored_size = entry[3], entry[4]
            offsets.append(offset)
            ends.append(offset + LOCAL.size + len(raw_name) + stored_size)
            if found * (LOCAL.size + _CENTRAL.size) > size:
                raise damaged(path, f"it lists more members than its {size} bytes can hold")
            yield entry
    if found != end.entries and not (end.wrapped and found & _SMALL == end.entries):
        raise damaged(path, f"its directory lists {found} members, its end says {end.entries}")
    _check_overlap(path, offsets, ends, end)


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
    if prefix < 0 or here != entries or entries * _CENTRAL.size > directory_bytes:
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


def _entries(path: Path, fd: int, end: _End) -> Iterator[tuple[bytes, Entry]]:
    unpack, fixed, prefix = _CENTRAL.unpack_from, _CENTRAL.size, end.prefix_bytes
    block, at = b"", 0
    next_read, stop = end.directory_offset, end.directory_offset + end.directory_bytes
    while True:
        if len(block) - at < _LONGEST and next_read < stop:
            more = os.pread(fd, min(_BLOCK_BYTES, stop - next_read), next_read)
            if not more:
                raise damaged(path, "it became shorter while it was read")
            block, at, next_read = block[at:] + more, 0, next_read + len(more)
        if at == len(block) or block[at : at + 4] == b"PK\5\5":  # a signature may end the list
            return
        if at + fixed > len(block) or block[at : at + 4] != b"PK\1\2":
            raise _no_entry(path, next_read - len(block) + at)
        (_, _, _, flags, method, _, _, crc, stored_size, size, name_bytes, extra_bytes,
         comment_bytes, disk, _, _, offset) = unpack(block, at)  # fmt: skip
        name_end = at + fixed + name_bytes
        raw_name = block[at + fixed : name_end]
        at = name_end + extra_bytes + comment_bytes
        if at > len(block):
            raise _no_entry(path, next_read)
        if name_bytes > MAX_NAME_BYTES:
            raise damaged(path, f"a name has {name_bytes} bytes, a path {MAX_NAME_BYTES} at most")
        if size == _BIG or stored_size == _BIG or offset == _BIG:
            extra = block[name_end : name_end + extra_bytes]
            size, stored_size, offset = _zip64_sizes(path, extra, size, stored_size, offset)
        if disk not in (0, _SMALL):
            raise _split(path)
        name = decode_name(raw_name, flags)
        offset += prefix
        if offset + LOCAL.size + name_bytes + stored_size > end.directory_offset:
            raise damaged(path, f"{name!r} lies outside the file, or in the directory")
        encrypted = bool(flags & ENCRYPTED)
        yield raw_name, (name, size, crc, offset, stored_size, method, encrypted)


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


def _check_overlap(
    path: Path, member_offsets: "array[int]", member_ends: "array[int]", end: _End
) -> None:
    """Members that share bytes are how a small zip declares petabytes."""
    offsets, ends = np.array(member_offsets, np.uint64), np.array(member_ends, np.uint64)
    order = np.argsort(offsets, kind="stable")
    nexts = np.append(offsets[order][1:], np.uint64(end.directory_offset))
    (bad,) = np.nonzero(ends[order] > nexts)
    if len(bad):
        at = int(offsets[order[bad[0]]])
        msg = f"the member at byte {at} overlaps what follows it ({len(bad)} such members)"
        raise damaged(path, msg)


def _no_entry(path: Path, offset: int) -> ShardError:
    return damaged(path, f"its central directory has no entry at byte {offset}")


def _split(path: Path) -> ShardError:
    return ShardError(f"{path} is one part of a zip split over several files; join the parts first")
