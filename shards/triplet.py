"""What belongs together: the result of reading a data set's names, before any image is opened.

A member is named by its position in `Members`, the concatenation of all archives, so that half a
million triplets stay small and a layout never touches an archive.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shards.archive import Archive, MemberError
from shards.members import Member, MemberTable

_DIGITS = re.compile(r"(\d+)")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_SAFE = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,78}[A-Za-z0-9_])?")
"""What `safe_key` leaves as it is."""

_CONTROL = re.compile(r"[\x00-\x1f]")
_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}
_SUSPICIOUS = ("//", "/../", "/._", "\\", "/__MACOSX/")
_DIGITS_TO_ZERO = str.maketrans("123456789", "000000000")


class Triplet(NamedTuple):
    """One composite with its mask and depth map: positions in `Members`."""

    key: str
    """Unique in the set, safe as a file name: the stem of the sample's members."""
    composite: int
    mask: int
    depth: int
    background: str | None
    """Id, a key of `Match.backgrounds`; None if unknown."""
    foreground: str | None
    mirrored: bool | None


class Rejection(NamedTuple):
    """Something that would be a triplet but cannot be used."""

    key: str
    members: tuple[int, ...]
    """All members lost with it; the first one is the one to blame."""
    reason: str


@dataclass(kw_only=True)
class Match:
    """Every member of the sources, by fate."""

    triplets: list[Triplet]
    backgrounds: dict[str, int]
    """Id to member, in the order of their numbers."""
    auxiliary: list[int] = field(default_factory=list)
    """Known, and of no use to samples: foregrounds, their masks, label files."""
    debris: list[int] = field(default_factory=list)
    """What no layout knows: folders, system files, identical copies."""
    rejected: list[Rejection] = field(default_factory=list)


class Members:
    """The members of all archives under one numbering."""

    def __init__(self, archives: Sequence[Archive]) -> None:
        self.archives = archives
        self.table = MemberTable.joined([archive.members for archive in archives])
        self._starts = [0, *accumulate(len(archive.members) for archive in archives)]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, number: int) -> Member:
        return self.table[number]

    def __iter__(self) -> Iterator[Member]:
        return iter(self.table)

    @cached_property
    def kinds(self) -> list[str]:
        """One name of each kind: those that differ in digits alone are of one kind."""
        names = self.table.names
        # all at once: a translation for each would take as long as the listing
        kinds = "\n".join(names).translate(_DIGITS_TO_ZERO).split("\n")
        if len(kinds) != len(names):  # a name with a line break
            kinds = [name.translate(_DIGITS_TO_ZERO) for name in names]
        return list(dict(zip(kinds, names, strict=True)).values())

    def archive_number(self, number: int) -> int:
        """Which archive holds a member."""
        return bisect_right(self._starts, number) - 1

    def archive_numbers(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which archive holds each of some members."""
        return np.searchsorted(self._starts, numbers, side="right") - 1

    def locate(self, number: int) -> tuple[int, Member]:
        """A member, and which archive holds it."""
        return self.archive_number(number), self.table[number]

    def read(self, number: int) -> bytes:
        """The member's checked content."""
        archive, member = self.locate(number)
        return self.archives[archive].read(member)

    def describe(self, number: int) -> str:
        """The member as a person would look for it: `archive: name`."""
        return f"{self.archives[self.archive_number(number)].name}: {self[number].name}"


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key under which bg2 comes before bg10, and every two names differ."""
    return [int(part) if part.isdecimal() else part for part in _DIGITS.split(name)], name


def safe_key(stem: str) -> str:
    """A stem as a WebDataset key: no dots, spaces or separators, at most 80 bytes."""
    return _UNSAFE.sub("-", stem)[:80].strip("-") or "sample"


def safe_keys(stems: Sequence[str]) -> Sequence[str]:
    """`safe_key` of each."""
    if all(map(_SAFE.fullmatch, stems)):
        return stems
    return [safe_key(stem) for stem in stems]


def is_debris(name: str) -> bool:
    """Whether a member is litter of an operating system, or a folder's own entry."""
    file = name.rpartition("/")[2]
    return (
        not file
        or file in _LITTER
        or file.startswith("._")
        or ("__MACOSX" in name and "__MACOSX" in name.split("/"))
    )


def is_unsafe(name: str) -> bool:
    """Whether a name tries to leave the archive, or hides something: never a triplet's name."""
    return (
        name.startswith(("/", "\\"))
        or (".." in name and ".." in name.replace("\\", "/").split("/"))
        or name[1:2] == ":"
        or (not name.isprintable() and _CONTROL.search(name) is not None)
    )


def all_plain(folder: str, files: Sequence[str]) -> bool:
    """Whether no file of a folder is debris or unsafe; False where only a closer look tells."""
    text = f"/{'/'.join(files)}/"
    return (
        bool(folder)
        and not is_debris(f"{folder}/x")
        and not is_unsafe(f"{folder}/x")
        and not any(sign in text for sign in _SUSPICIOUS)
        and _LITTER.isdisjoint(files)
        and text.isprintable()
    )


def split_stem(name: str) -> tuple[str, str]:
    """The folder's own name and the stem: `root/bg_fg/a_01.jpeg` is (`bg_fg`, `a_01`)."""
    folder, _, file = name.rpartition("/")
    return folder.rpartition("/")[2], file.partition(".")[0]


def first_of(members: Members, numbers: Iterable[int]) -> tuple[int, list[int], bool]:
    """Choose among members of one name.

    Returns:
        The first of them, the others, and whether all hold the same bytes.
    """
    first, *others = numbers
    return first, others, all(_same_bytes(members, first, other) for other in others)


def _same_bytes(members: Members, one: int, other: int) -> bool:
    if members[one].size != members[other].size:
        return False
    if members[one].crc >= 0 and members[other].crc >= 0:
        return members[one].crc == members[other].crc
    try:  # a loose file has no CRC to compare
        return members.read(one) == members.read(other)
    except MemberError:
        return False
