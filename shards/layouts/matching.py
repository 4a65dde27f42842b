"""What all layouts do alike: names sorted by role, then joined into triplets by key.

A layout says what a member's name means (`Named`) and which keys belong together (`Related`).
Positions in a listing never decide anything. Whatever cannot be used is rejected by name, and
every member has exactly one fate.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from shards.archive import MemberError
from shards.error import ShardError
from shards.triplet import (
    Match,
    Members,
    Rejection,
    Triplet,
    first_of,
    is_debris,
    is_unsafe,
    natural,
    safe_key,
    split_stem,
)

IMAGES = ("composite", "mask", "depth")
AUXILIARY = "auxiliary"
MAX_LINE = 4096
"""Characters of a label file's line: five paths; and an `int` of more digits would raise."""


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


class Related(NamedTuple):
    """Which keys form a triplet."""

    composite: str
    mask: str
    depth: str
    facts: Facts


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
    for member in members.kinds:
        if (named := read(member.name)) is not None:
            wanted.discard(named.role)
            if not wanted:
                return True
    return False


def sort_members(members: Members, read: Callable[[str], Named | None]) -> Sorted:
    """Sort every member by what its name says.

    Identical copies of a member are debris; different members of one name spoil it.
    """
    found = Match(triplets=[], backgrounds={})
    by_role: dict[str, dict[str, list[int]]] = {role: {} for role in (*IMAGES, "background")}
    for number, member in enumerate(members):
        name = member.name
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
            by_role[named.role].setdefault(named.key, []).append(number)
    single = {role: _single(members, keys, found) for role, keys in by_role.items()}
    ids = sorted(single["background"], key=natural)
    found.backgrounds = {name: single["background"][name] for name in ids}
    return Sorted(single, found)


def relate_equal_keys(members: Sorted, facts: Callable[[str], Facts]) -> list[Related]:
    """The relation where composite, mask and depth share a key."""
    keys = dict.fromkeys(key for role in IMAGES for key in members.single[role])
    return [Related(key, key, key, facts(key)) for key in keys]


def join(members: Sorted, relation: Iterable[Related]) -> Match:
    """Form the triplets of a relation; what it leaves over is rejected."""
    single, found = members
    composites, masks, depths = (single[role] for role in IMAGES)
    claimed: set[int] = set()
    related: set[str] = set()
    for row in relation:
        if row.composite in related:
            continue  # two archives may each carry the whole relation
        related.add(row.composite)
        numbers = composites.get(row.composite), masks.get(row.mask), depths.get(row.depth)
        present = tuple(number for number in numbers if number is not None)
        claimed.update(present)
        if len(present) == len(IMAGES):
            composite, mask, depth = present
            key = safe_key(row.composite)
            found.triplets.append(Triplet(key, composite, mask, depth, *row.facts))
        elif present:
            missing = [role for role, number in zip(IMAGES, numbers, strict=True) if number is None]
            reason = f"has no {' and no '.join(missing)}"
            found.rejected.append(Rejection(safe_key(row.composite), present, reason))
    for role in IMAGES:
        for key, number in single[role].items():
            if number not in claimed:
                reason = f"{role} that no triplet claims"
                found.rejected.append(Rejection(safe_key(key), (number,), reason))
    return found


def tab_separated(members: Members, files: Iterable[int], fields: int) -> Iterator[list[str]]:
    """The rows of relation files, one list of so many fields each.

    Raises:
        ShardError: A file cannot be read, or a line has another number of fields.
    """
    remedy = "mend it, or remove it to relate the images by their names"
    for number in files:
        try:
            text = members.read(number).decode("utf-8")
        except (MemberError, UnicodeDecodeError) as error:
            msg = f"{members.describe(number)} cannot be read ({error}); {remedy}"
            raise ShardError(msg) from None
        for line_number, line in enumerate(text.splitlines(), start=1):
            if len(line) > MAX_LINE:
                msg = f"{members.describe(number)}, line {line_number} is too long; {remedy}"
                raise ShardError(msg)
            row = [field.strip() for field in line.split("\t")]
            if row == [""]:
                continue
            if len(row) != fields:
                msg = (
                    f"{members.describe(number)}, line {line_number} has {len(row)} fields "
                    f"instead of {fields}; {remedy}"
                )
                raise ShardError(msg)
            yield row


def _single(members: Members, keys: dict[str, list[int]], found: Match) -> dict[str, int]:
    single = {}
    for key, numbers in keys.items():
        if len(numbers) == 1:
            single[key] = numbers[0]
            continue
        first, others, same = first_of(members, numbers)
        if same:
            single[key] = first
            found.debris.extend(others)
        else:
            reason = f"{len(numbers)} different members have this name"
            found.rejected.append(Rejection(safe_key(key), tuple(numbers), reason))
    return single
