"""What all layouts do alike: names sorted by role, then joined into triplets by key.

A layout says what a member's name means (`Named`) and which keys belong together (`Relation`).
Positions in a listing never decide anything. Whatever cannot be used is rejected by name, and
every member has exactly one fate.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np

from shards.archive import MemberError
from shards.error import ShardError
from shards.triplet import (
    Match,
    Members,
    Rejection,
    Triplet,
    all_plain,
    first_of,
    is_debris,
    is_unsafe,
    natural,
    safe_key,
    safe_keys,
    split_stem,
)

IMAGES = ("composite", "mask", "depth")
AUXILIARY = "auxiliary"
MAX_LINE = 4096
"""Characters of a label file's line: five paths; and an `int` of more digits would raise."""

_MEND = "mend it, or remove it to relate the images by their names"
_SEPARATORS = np.zeros(256, bool)
_SEPARATORS[[ord("\t"), ord("\n")]] = True
_IRREGULAR = ~_SEPARATORS
_IRREGULAR[33:127] = False
"""Bytes that are neither separators nor printable ASCII without the space."""


class Named(NamedTuple):
    """What a member's name says."""

    role: str
    """composite, mask, depth, background, or auxiliary: known and of no use to samples."""
    key: str
    """What relates it to others of its kind; a background's id."""


class Facts(NamedTuple):
    """What is known of a composite beside its images."""

    background: str | None = None
    foreground: str | None = None
    mirrored: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutOptions:
    """What a user may have to tell a layout."""

    positions_per_foreground: int | None = None
    """numbered-flip: so many numbers in a row show one object; None: unknown."""

    disparity: bool = False
    """class-folders: take the disparity beside each composite as its depth."""


@dataclass(slots=True)
class Relation:
    """Which keys form triplets: columns of equal length."""

    composites: Sequence[str] = field(default_factory=list)
    masks: Sequence[str] = field(default_factory=list)
    depths: Sequence[str] = field(default_factory=list)
    facts: Sequence[Facts] = field(default_factory=list)
    """Of the composites."""


class Sorted(NamedTuple):
    """The members of the sources by role and key, one each; the rest has its fate already."""

    single: dict[str, dict[str, int]]
    found: Match


def sees(
    members: Members, read: Callable[[str], Named | None], roles: Iterable[str] = IMAGES
) -> bool:
    """Whether a layout's reading of the names finds every one of the roles.

    Digits must not decide what a name's role is.
    """
    wanted = set(roles)
    for name in members.kinds:
        if (named := read(name)) is not None:
            wanted.discard(named.role)
            if not wanted:
                return True
    return False


def sort_members(
    members: Members, read: Callable[[str], Named | None], folders: Mapping[str, str] | None = None
) -> Sorted:
    """Sort every member by what its name says.

    Identical copies of a member are debris; different members of one name spoil it.

    Args:
        members: Of all sources.
        read: What a name says; None: nothing that the layout knows.
        folders: By the name of a folder the role that all its files have, their stems being their
            keys, as `read` would say of each: so that a million names need not be read one by one.
    """
    found = Match(triplets=[], backgrounds={})
    by_role = {role: _Keys() for role in (*IMAGES, "background")}
    for folder, (numbers, files) in _by_folder(members).items():
        role = (folders or {}).get(folder.rpartition("/")[2])
        if role in by_role and all_plain(folder, files):
            by_role[role].add([file.partition(".")[0] for file in files], numbers)
            continue
        for number in numbers:
            _sort_one(members.table.names[number], number, read, by_role, found)
    single = {role: keys.single(members, found) for role, keys in by_role.items()}
    ids = sorted(single["background"], key=natural)
    found.backgrounds = {name: single["background"][name] for name in ids}
    return Sorted(single, found)


def _by_folder(members: Members) -> dict[str, tuple[list[int], list[str]]]:
    """Path of a folder to its members and their file names."""
    found: dict[str, tuple[list[int], list[str]]] = {}
    for number, name in enumerate(members.table.names):
        folder, _, file = name.rpartition("/")
        if folder not in found:
            found[folder] = ([], [])
        numbers, files = found[folder]
        numbers.append(number)
        files.append(file)
    return found


def _sort_one(
    name: str,
    number: int,
    read: Callable[[str], Named | None],
    by_role: Mapping[str, "_Keys"],
    found: Match,
) -> None:
    if is_debris(name):
        found.debris.append(number)
    elif is_unsafe(name):
        key = safe_key(split_stem(name)[1])
        found.rejected.append(Rejection(key, (number,), "unsafe member name"))
    elif (named := read(name)) is None:
        found.debris.append(number)
    elif named.role == AUXILIARY:
        found.auxiliary.append(number)
    else:
        by_role[named.role].add([named.key], [number])


class _Keys:
    """The members of one role by key."""

    def __init__(self) -> None:
        self._first: dict[str, int] = {}
        self._repeated: dict[str, list[int]] = {}

    def add(self, keys: Sequence[str], numbers: Sequence[int]) -> None:
        new = dict(zip(keys, numbers, strict=True))
        if len(new) == len(keys) and self._first.keys().isdisjoint(new):
            self._first.update(new)
            return
        for key, number in zip(keys, numbers, strict=True):
            if key in self._first:
                self._repeated.setdefault(key, [self._first[key]]).append(number)
            else:
                self._first[key] = number

    def single(self, members: Members, found: Match) -> dict[str, int]:
        """One member for each key; copies are debris, and what differs is rejected."""
        for key, numbers in self._repeated.items():
            first, others, same = first_of(members, sorted(numbers))
            if same:
                self._first[key] = first
                found.debris.extend(others)
            else:
                del self._first[key]
                reason = f"{len(numbers)} different members have this name"
                found.rejected.append(Rejection(safe_key(key), tuple(sorted(numbers)), reason))
        return self._first


def relate_equal_keys(members: Sorted, facts: Callable[[str], Facts]) -> Relation:
    """The relation where composite, mask and depth share a key."""
    keys = list(dict.fromkeys(key for role in IMAGES for key in members.single[role]))
    return Relation(keys, keys, keys, [facts(key) for key in keys])


def join(members: Sorted, relation: Relation) -> Match:
    """Form the triplets of a relation; what it leaves over is rejected."""
    single, found = members
    columns = (relation.composites, relation.masks, relation.depths)
    numbers = [list(map(single[role].get, column))
               for role, column in zip(IMAGES, columns, strict=True)]  # fmt: skip
    facts, composites = relation.facts, relation.composites
    whole = all(None not in column for column in numbers)
    if not whole or len(set(composites)) < len(composites):
        kept = _complete(relation, numbers, found)
        numbers = [[column[at] for at in kept] for column in numbers]
        facts, composites = [facts[at] for at in kept], [composites[at] for at in kept]
    new_triplet = partial(tuple.__new__, Triplet)  # a third of the time of calling the class
    rows = zip(safe_keys(composites), *numbers, *zip(*facts, strict=True), strict=True)
    found.triplets.extend(map(new_triplet, rows))
    _reject_unclaimed(single, found)
    return found


def _complete(
    relation: Relation, numbers: Sequence[Sequence[int | None]], found: Match
) -> list[int]:
    """Which rows have all their images; the others are rejected, and repeated ones left out."""
    related: set[str] = set()
    kept = []
    for at, composite in enumerate(relation.composites):
        if composite in related:
            continue  # two archives may each carry the whole relation
        related.add(composite)
        present = tuple(number for column in numbers if (number := column[at]) is not None)
        if len(present) == len(IMAGES):
            kept.append(at)
        elif present:
            missing = [role for role, column in zip(IMAGES, numbers, strict=True)
                       if column[at] is None]  # fmt: skip
            reason = f"has no {' and no '.join(missing)}"
            found.rejected.append(Rejection(safe_key(composite), present, reason))
    return kept


def _reject_unclaimed(single: Mapping[str, Mapping[str, int]], found: Match) -> None:
    claimed = set(itertools.chain.from_iterable(triplet[1:4] for triplet in found.triplets))
    claimed.update(number for rejection in found.rejected for number in rejection.members)
    for role in IMAGES:
        if not claimed.issuperset(single[role].values()):
            for key, number in single[role].items():
                if number not in claimed:
                    reason = f"{role} that no triplet claims"
                    found.rejected.append(Rejection(safe_key(key), (number,), reason))


def tab_columns(members: Members, files: Iterable[int], fields: int) -> list[list[str]]:
    """The columns of relation files, one after the other.

    Raises:
        ShardError: A file cannot be read, or a line has another number of fields.
    """
    columns: list[list[str]] = [[] for _ in range(fields)]
    for number in files:
        try:
            content = members.read(number)
            text = content.decode("utf-8")
        except (MemberError, UnicodeDecodeError) as error:
            msg = f"{members.describe(number)} cannot be read ({error}); {_MEND}"
            raise ShardError(msg) from None
        if _is_regular(content, fields):
            cells = text.replace("\n", "\t").split("\t")
            found = [cells[at : len(cells) - 1 : fields] for at in range(fields)]
        else:
            rows = list(_rows(text, members.describe(number), fields))
            found = [list(column) for column in zip(*rows, strict=True)] or [[]] * fields
        for column, cells in zip(columns, found, strict=True):
            column += cells
    return columns


def _is_regular(content: bytes, fields: int) -> bool:
    """Whether every line ends with a line feed and has so many fields, and nothing is to strip."""
    values = np.frombuffer(content, np.uint8)
    if not len(values) or _IRREGULAR[values].any():
        return False
    (ends,) = np.nonzero(_SEPARATORS[values])
    if ends[-1:] != [len(values) - 1] or len(ends) % fields:
        return False
    signs = values[ends].reshape(-1, fields)
    lengths = np.diff(ends[fields - 1 :: fields], prepend=-1)
    return bool(
        (signs[:, :-1] == ord("\t")).all()
        and (signs[:, -1] == ord("\n")).all()
        and lengths.max() <= MAX_LINE
    )


def _rows(text: str, file: str, fields: int) -> Iterator[list[str]]:
    for line_number, line in enumerate(text.splitlines(), start=1):
        if len(line) > MAX_LINE:
            msg = f"{file}, line {line_number} is too long; {_MEND}"
            raise ShardError(msg)
        row = [field.strip() for field in line.split("\t")]
        if row == [""]:
            continue
        if len(row) != fields:
            msg = f"{file}, line {line_number} has {len(row)} fields instead of {fields}; {_MEND}"
            raise ShardError(msg)
        yield row
