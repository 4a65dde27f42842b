"""Members of zips and folders: listed once, read by offset from any process.

`zipfile` takes 8 us a member and cannot be shared between processes; a set has 1.2 million
members. Here a member is a tuple that pickles, and a read one `pread`. Archives are hostile until
read: sizes are bounded before anything is decompressed, no zip's name ever becomes a path, and a
member's two headers must say the same.
"""

import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, Protocol

from shards.directory import ENCRYPTED, LOCAL, Directory, decode_name, read_directory
from shards.error import ShardError
from shards.members import Member, MemberTable

MAX_MEMBER_BYTES = 64 << 20
"""No image or label file of these data sets is larger; a declared size beyond it is refused."""

STORED, _DEFLATED = 0, 8
_BIG = 0xFFFFFFFF


class MemberError(Exception):
    """A single member cannot be read; the message is the reason, without the member's name."""


class Archive(Protocol):
    """A zip, or a folder's loose files."""

    name: str
    """How `KEY.json` and the manifest call it: relative to the source the user named."""
    path: Path
    members: MemberTable
    size_bytes: int

    @property
    def digest(self) -> str:
        """SHA-256 over the list of members: what a source held, without reading all of it."""
        ...

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

    def __init__(
        self,
        path: Path,
        name: str,
        members: MemberTable | None = None,
        odd_names: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self.name, self.members = path, name, members or MemberTable.of(())
        self.size_bytes = int(self.members.rows["size"].sum())
        self._odd_names = odd_names or {}  # of the few files whose names are no UTF-8

    @property
    def digest(self) -> str:
        """See `Archive.digest`."""
        content = hashlib.sha256()
        for member in sorted(self.members):
            line = f"{member.name}\0{member.size}\n"
            content.update(line.encode(errors="surrogateescape"))
        return content.hexdigest()

    def read(self, member: Member) -> bytes:
        """See `Archive.read`."""
        _check_size(member)
        try:
            with (self.path / self._odd_names.get(member.name, member.name)).open("rb") as file:
                content = file.read(member.size + 1)
        except OSError as error:
            raise MemberError(error.strerror or str(error)) from None
        if len(content) != member.size:
            msg = "changed its size since it was listed"
            raise MemberError(msg)
        return content

    def close(self) -> None:
        """Nothing is held open."""

    def __reduce__(
        self,
    ) -> tuple[type["FolderArchive"], tuple[Path, str, None, Mapping[str, str]]]:
        # a task brings the members it needs
        return FolderArchive, (self.path, self.name, None, self._odd_names)


class ZipArchive:
    """A zip, opened lazily, so that the object can be handed to another process."""

    def __init__(self, path: Path, name: str, directory: Directory | None = None) -> None:
        self.path, self.name = path, name
        self.members, self.digest = directory or Directory(MemberTable.of(()), "")
        self.size_bytes = path.stat().st_size if directory else 0
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
        # a name has the same length in both headers, and a local extra field is rarely longer
        name_bytes = len(member.name) * (1 if member.name.isascii() else 4)
        block = self._pread(LOCAL.size + name_bytes + 64 + member.stored_size, member.offset)
        if len(block) < LOCAL.size or block[:4] != b"PK\3\4":
            msg = "has no local header where the directory says"
            raise MemberError(msg)
        start = _check_local(block, member)
        stored = block[start : start + member.stored_size]
        if len(stored) < member.stored_size:
            stored = self._pread(member.stored_size, member.offset + start)
        if member.method == STORED:
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

    def descriptor(self) -> int:
        """The open file.

        Raises:
            MemberError: It cannot be opened.
        """
        if self._fd < 0:
            try:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise MemberError(error.strerror or str(error)) from None
        return self._fd

    def _pread(self, num_bytes: int, offset: int) -> bytes:
        try:
            return os.pread(self.descriptor(), num_bytes, offset)
        except OSError as error:
            raise MemberError(error.strerror or str(error)) from None

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
        paths: Zips, loose files such as relations, or folders holding either, at any depth. Among
            several sources a folder's own name is part of its files' names, as it is in a zip.

    Raises:
        ShardError: A path is missing, or a zip's directory is damaged.
    """
    archives: list[Archive] = []
    for path in paths:
        if path.is_dir():
            archives.extend(_open_folder(path, with_own_name=len(paths) > 1))
        elif path.is_file():
            archives.append(_open_file(path))
        else:
            msg = f"{path} does not exist; name a zip, or a folder with zips or images"
            raise ShardError(msg)
    archives.sort(key=lambda archive: (archive.name, archive.digest))
    if not any(archive.members for archive in archives):
        msg = f"{', '.join(map(str, paths))}: no files in there; name the data set's zips or folder"
        raise ShardError(msg)
    return archives


def _open_folder(path: Path, *, with_own_name: bool) -> Iterator[Archive]:
    loose: list[Member] = []
    odd_names: dict[str, str] = {}
    root = path.resolve().parent if with_own_name else path
    try:
        for folder, subfolders, files in os.walk(path, onerror=_unreadable):
            subfolders.sort()
            for file in sorted(files):
                full = Path(folder, file)
                below = full.relative_to(path)
                if not full.is_file():  # a pipe, a socket, a link to nothing
                    continue
                if full.suffix.lower() == ".zip" and not file.startswith("."):
                    yield open_zip(full, _shown(below.as_posix()))
                    continue
                on_disk = (path.resolve().name / below if with_own_name else below).as_posix()
                loose.append(_loose(full, relative := _shown(on_disk)))
                if relative != on_disk:
                    odd_names[relative] = on_disk
    except OSError as error:
        _unreadable(error)
    if loose:
        yield FolderArchive(root, ".", MemberTable.of(sorted(loose)), odd_names)


def _open_file(path: Path) -> Archive:
    """A zip, whatever its name, or one loose file."""
    name = _shown(path.name)
    try:
        with path.open("rb") as file:
            is_zip = path.suffix.lower() == ".zip" or file.read(2) == b"PK"
        if is_zip:
            return open_zip(path, name)
        odd_names = {name: path.name} if name != path.name else {}
        return FolderArchive(path.parent, ".", MemberTable.of([_loose(path, name)]), odd_names)
    except OSError as error:
        _unreadable(error)


def _loose(path: Path, name: str) -> Member:
    size = path.stat().st_size
    return Member(name, size, -1, -1, size, STORED, False)


def _shown(name: str) -> str:
    """A file's name as text; lone surrogates (bytes that are no UTF-8) fit in no file of a set."""
    return name if name.isprintable() else os.fsencode(name).decode("utf-8", "backslashreplace")


def _unreadable(error: OSError) -> NoReturn:
    msg = f"{error.filename} cannot be read ({error.strerror}); mend that, or leave it out"
    raise ShardError(msg) from None


def open_zip(path: Path, name: str) -> ZipArchive:
    """Read a zip's central directory.

    Raises:
        ShardError: It is no zip, cannot be read, is truncated, split over disks or inconsistent,
            or its members overlap.
    """
    try:
        return ZipArchive(path, name, read_directory(path))
    except OSError as error:
        _unreadable(error)


def _check_local(block: bytes, member: Member) -> int:
    """Compare a member's own header with the directory's; returns where its bytes start.

    Writers that stream leave the CRC and the sizes 0; a zip64 header has its sizes elsewhere.
    """
    _, _, flags, method, _, _, crc, stored_size, size, name_bytes, extra_bytes = LOCAL.unpack_from(
        block
    )
    name_end = LOCAL.size + name_bytes
    if decode_name(block[LOCAL.size : name_end], flags) != member.name:
        other = "name"
    elif method != member.method or flags & ENCRYPTED:
        other = "compression"
    elif crc not in (member.crc, 0):
        other = "CRC-32"
    elif size not in (member.size, 0, _BIG) or stored_size not in (member.stored_size, 0, _BIG):
        other = "size"
    else:
        return name_end + extra_bytes
    msg = f"has another {other} in its own header than in the zip's directory"
    raise MemberError(msg)


def _check_size(member: Member) -> None:
    if member.size > MAX_MEMBER_BYTES or member.stored_size > MAX_MEMBER_BYTES:
        msg = f"declares {member.size} bytes, more than the {MAX_MEMBER_BYTES} an image may have"
        raise MemberError(msg)
    if member.size == 0:
        msg = "is empty"
        raise MemberError(msg)
