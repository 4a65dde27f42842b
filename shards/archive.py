"""Members of zips and folders: listed once into columns, read by offset from any process.

`zipfile` keeps 390 bytes and 8 us a member and cannot be shared between processes; a set has 1.2
million members. Here a directory becomes columns, a member a tuple that pickles, and a read one
`pread`. Archives are hostile until read: sizes are bounded before anything is decompressed, no
name ever becomes a path, and every member must lie in its own bytes.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from shards.error import ShardError

MAX_MEMBER_BYTES = 64 << 20
"""No image or label file of these data sets is larger; a declared size beyond it is refused."""

_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF8 = 1 << 0, 1 << 11
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_BIG = 0xFFFFFFFF


class MemberError(Exception):
    """A single member cannot be read; the message is the reason, without the member's name."""


class Member(NamedTuple):
    """Where one member lies. `crc` and `offset` are -1 for a file in a folder."""

    name: str
    size: int
    """Bytes of content."""
    crc: int
    offset: int
    """Of the local header in the zip."""
    stored_size: int
    """Bytes in the zip."""
    method: int
    encrypted: bool


class Archive(Protocol):
    """A zip, or a folder's loose files."""

    name: str
    """How `KEY.json` and the manifest call it: relative to the source the user named."""
    path: Path
    members: Sequence[Member]
    size_bytes: int

    def read(self, member: Member) -> bytes:
        """The member's content, checked against its declared size and CRC.

        Raises:
            MemberError: It cannot be had; the message says why.
        """
        ...

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        ...


class FolderArchive:
    """The files below a folder, zips excepted."""

    def __init__(self, path: Path, name: str, members: Sequence[Member] = ()) -> None:
        self.path, self.name, self.members = path, name, members
        self.size_bytes = sum(member.size for member in members)

    def read(self, member: Member) -> bytes:
        """See `Archive.read`."""
        _check_size(member)
        try:
            with (self.path / member.name).open("rb") as file:
                content = file.read(member.size + 1)
        except OSError as error:
            raise MemberError(error.strerror or str(error)) from None
        if len(content) != member.size:
            msg = "changed its size since it was listed"
            raise MemberError(msg)
        return content

    def close(self) -> None:
        """Nothing is held open."""

    def __reduce__(self) -> tuple[type["FolderArchive"], tuple[Path, str]]:
        return FolderArchive, (self.path, self.name)  # a task brings the members it needs


class ZipArchive:
    """A zip, opened lazily, so that the object can be handed to another process."""

    def __init__(self, path: Path, name: str, members: Sequence[Member] = ()) -> None:
        self.path, self.name, self.members = path, name, members
        self.size_bytes = path.stat().st_size if members else 0
        self._fd = -1

    def read(self, member: Member) -> bytes:
        """See `Archive.read`."""
        _check_size(member)
        if member.encrypted:
            msg = "is encrypted"
            raise MemberError(msg)
        content = self._content(member)
        if len(content) != member.size or zlib.crc32(content) != member.crc:
            msg = "does not match its CRC-32"
            raise MemberError(msg)
        return content

    def _content(self, member: Member) -> bytes:
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        # names have the same length in both headers, and a local extra field is rarely longer
        guess = _LOCAL.size + len(member.name) + 64 + member.stored_size
        block = os.pread(self._fd, guess, member.offset)
        if len(block) < _LOCAL.size or block[:4] != b"PK\3\4":
            msg = "has no local header where the directory says"
            raise MemberError(msg)
        name_bytes, extra_bytes = _LOCAL.unpack_from(block)[9:11]
        start = _LOCAL.size + name_bytes + extra_bytes
        stored = block[start : start + member.stored_size]
        if len(stored) < member.stored_size:
            stored = os.pread(self._fd, member.stored_size, member.offset + start)
        if member.method == _STORED:
            return stored
        if member.method != _DEFLATED:
            msg = f"uses compression method {member.method}; only stored and deflated are read"
            raise MemberError(msg)
        try:
            # one byte over the declared size is enough to see that the declaration lied
            return zlib.decompressobj(-15).decompress(stored, member.size + 1)
        except zlib.error as error:
            msg = f"cannot be decompressed ({error})"
            raise MemberError(msg) from None

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __reduce__(self) -> tuple[type["ZipArchive"], tuple[Path, str]]:
        return ZipArchive, (self.path, self.name)  # a task brings the members it needs


def open_sources(paths: Sequence[Path]) -> list[Archive]:
    """List every zip and every loose file of the sources; ordered by name, not by argument.

    Args:
        paths: Zips, or folders holding zips, loose files or both, at any depth.

    Raises:
        ShardError: A path is missing, is neither, or a zip's directory is damaged.
    """
    archives: list[Archive] = []
    num_folders = sum(path.is_dir() for path in paths)
    for path in paths:
        if path.is_dir():
            name = "." if num_folders == 1 else path.resolve().name
            archives.extend(_open_folder(path, name))
        elif path.is_file():
            archives.append(open_zip(path, path.name))
        else:
            msg = f"{path} does not exist; name a zip, or a folder with zips or images"
            raise ShardError(msg)
    archives.sort(key=lambda archive: (archive.name, digest(archive)))
    if not any(archive.members for archive in archives):
        msg = f"{', '.join(map(str, paths))}: no files in there; name the data set's zips or folder"
        raise ShardError(msg)
    return archives


def digest(archive: Archive) -> str:
    """SHA-256 over the directory of members: what a source held, without reading all of it."""
    content = hashlib.sha256()
    for member in sorted(archive.members):
        line = f"{member.name}\0{member.size}\0{member.crc}\n"
        content.update(line.encode(errors="surrogateescape"))
    return content.hexdigest()


def _open_folder(path: Path, name: str) -> Iterator[Archive]:
    loose: list[Member] = []
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        for file in sorted(files):
            full = Path(folder, file)
            relative = full.relative_to(path).as_posix()
            if full.suffix.lower() == ".zip" and not file.startswith("."):
                yield open_zip(full, relative)
            elif full.is_file():
                size = full.stat().st_size
                loose.append(Member(relative, size, -1, -1, size, _STORED, False))
    if loose:
        yield FolderArchive(path, name, sorted(loose))


def open_zip(path: Path, name: str) -> ZipArchive:
    """Read a zip's central directory.

    Raises:
        ShardError: It is no zip, is truncated or split over disks, or its members overlap.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        end = _find_end(path, file.fileno(), size)
        directory = os.pread(file.fileno(), end.directory_bytes, end.directory_offset)
    members = list(_parse_directory(path, directory, end))
    _check_overlap(path, members, end.directory_offset)
    return ZipArchive(path, name, members)


class _End(NamedTuple):
    entries: int
    directory_bytes: int
    directory_offset: int
    prefix_bytes: int
    """Bytes before the zip proper (a self-extractor's program): added to every offset."""


def _find_end(path: Path, fd: int, size: int) -> _End:
    tail_offset = max(0, size - 65_557)  # the end record and the longest comment
    tail = os.pread(fd, size - tail_offset, tail_offset)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        msg = (
            f"{path} is no zip, or its end is missing (cut off while copying?); "
            "fetch or copy it again"
        )
        raise ShardError(msg)
    _, disk, first_disk, _, entries, directory_bytes, offset, _ = _END.unpack_from(tail, at)
    end_offset = tail_offset + at
    locator_at = at - _END64_LOCATOR.size
    if locator_at >= 0 and tail[locator_at : locator_at + 4] == b"PK\6\7":
        _, _, record_offset, disks = _END64_LOCATOR.unpack_from(tail, locator_at)
        record = os.pread(fd, _END64.size, record_offset)
        if len(record) < _END64.size or record[:4] != b"PK\6\6" or disks > 1:
            raise _damaged(path, "its zip64 end record is missing")
        disk, first_disk, _, entries, directory_bytes, offset = _END64.unpack(record)[4:]
        end_offset = record_offset
    if disk or first_disk:
        msg = f"{path} is one part of a zip split over several files; join the parts first"
        raise ShardError(msg)
    prefix = end_offset - directory_bytes - offset
    if prefix < 0 or entries * _CENTRAL.size > directory_bytes:
        raise _damaged(path, "its central directory does not fit the file")
    return _End(entries, directory_bytes, offset + prefix, prefix)


def _parse_directory(path: Path, directory: bytes, end: _End) -> Iterator[Member]:
    unpack, fixed, at = _CENTRAL.unpack_from, _CENTRAL.size, 0
    for _ in range(end.entries):
        if at + fixed > len(directory) or directory[at : at + 4] != b"PK\1\2":
            raise _damaged(path, f"its central directory ends at byte {at} of {len(directory)}")
        (_, _, _, flags, method, _, _, crc, stored_size, size, name_bytes, extra_bytes,
         comment_bytes, _, _, _, offset) = unpack(directory, at)  # fmt: skip
        name_end = at + fixed + name_bytes
        raw_name = directory[at + fixed : name_end]
        if size == _BIG or stored_size == _BIG or offset == _BIG:
            extra = directory[name_end : name_end + extra_bytes]
            size, stored_size, offset = _zip64_sizes(path, extra, size, stored_size, offset)
        if offset + end.prefix_bytes + stored_size > end.directory_offset:
            raise _damaged(path, f"{_decode_name(raw_name, flags)!r} lies outside the file")
        yield Member(
            _decode_name(raw_name, flags),
            size,
            crc,
            offset + end.prefix_bytes,
            stored_size,
            method,
            bool(flags & _ENCRYPTED),
        )
        at = name_end + extra_bytes + comment_bytes


def _decode_name(raw: bytes, flags: int) -> str:
    if raw.isascii():
        return raw.decode("ascii")
    return raw.decode("utf-8" if flags & _UTF8 else "cp437", errors="surrogateescape")


def _zip64_sizes(
    path: Path, extra: bytes, size: int, stored_size: int, offset: int
) -> tuple[int, int, int]:
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        if tag == 1:
            fields = iter(
                struct.unpack_from(f"<{length // 8}Q", extra.ljust(at + 4 + length, b"\0"), at + 4)
            )
            try:
                return (
                    next(fields) if size == _BIG else size,
                    next(fields) if stored_size == _BIG else stored_size,
                    next(fields) if offset == _BIG else offset,
                )
            except StopIteration:
                break
        at += 4 + length
    raise _damaged(path, "a zip64 entry has no sizes")


def _check_overlap(path: Path, members: Sequence[Member], directory_offset: int) -> None:
    """Members that share bytes are how a small zip declares petabytes."""
    offsets = np.fromiter((member.offset for member in members), np.uint64, len(members))
    sizes = np.fromiter((member.stored_size for member in members), np.uint64, len(members))
    names = np.fromiter((len(member.name) for member in members), np.uint64, len(members))
    order = np.argsort(offsets, kind="stable")
    ends = (offsets + sizes + names + np.uint64(_LOCAL.size))[order]
    nexts = np.append(offsets[order][1:], np.uint64(directory_offset))
    (bad,) = np.nonzero(ends > nexts)
    if len(bad):
        name = members[int(order[bad[0]])].name
        raise _damaged(path, f"{name!r} overlaps what follows it ({len(bad)} such members)")


def _check_size(member: Member) -> None:
    if member.size > MAX_MEMBER_BYTES or member.stored_size > MAX_MEMBER_BYTES:
        msg = f"declares {member.size} bytes, more than the {MAX_MEMBER_BYTES} an image may have"
        raise MemberError(msg)
    if member.size == 0:
        msg = "is empty"
        raise MemberError(msg)


def _damaged(path: Path, found: str) -> ShardError:
    return ShardError(f"{path} is damaged: {found}; fetch or copy it again")
