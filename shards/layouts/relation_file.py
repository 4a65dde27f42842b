r"""Reference 004, the MODEST museum: one folder per kind of image and a file that relates them.

    ROOT/bg/bg001.jpeg                    backgrounds
    ROOT/bg_fg/bg001_fg001_01.jpeg        composites; variants past 20 are mirrored
    ROOT/bg_fg_mask/bg001_fg001_01_mask.jpeg
    ROOT/bg_fg_depth_map/bg001_fg001_01_depth_map.jpeg
    ROOT/file_map.txt                     background, composite, mask, depth: stems, tab separated
    ROOT/fg, ROOT/fg_mask, ROOT/bbox.txt  not needed for samples

Without `file_map.txt` the relation is read off the names, which say the same.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

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

NAME = "relation-file"
LOOKS_FOR = "folders bg_fg/, bg_fg_mask/ and bg_fg_depth_map/, related by file_map.txt"

_ROLES = {"bg": "background", "bg_fg": "composite", "bg_fg_mask": "mask",
          "bg_fg_depth_map": "depth"}  # fmt: skip
_AUXILIARY_FOLDERS = {"fg", "fg_mask"}
_AUXILIARY_FILES = {"file_map.txt", "bbox.txt"}
_COMPOSITE = re.compile(r"(?P<background>.+)_(?P<foreground>fg\d+)_(?P<variant>\d+)")
_VARIANTS_PER_HALF = 20  # the original's count, kept as the border where fewer are present

_ByRole = dict[str, dict[str, list[int]]]
_Relation = list[tuple[str, str, str, str]]


def recognises(members: Members) -> bool:
    """Whether composites, masks and depth maps lie in folders of these names."""
    wanted = {"bg_fg", "bg_fg_mask", "bg_fg_depth_map"}
    for member in members:
        wanted.discard(split_stem(member.name)[0])
        if not wanted:
            return True
    return False


def match(members: Members) -> Match:
    """Sort every member into triplets, backgrounds, and the rest.

    Raises:
        ShardError: `file_map.txt` cannot be read.
    """
    found = Match(triplets=[], backgrounds={})
    by_role: _ByRole = {role: defaultdict(list) for role in _ROLES.values()}
    maps: list[int] = []
    for number, member in enumerate(members):
        folder, stem = split_stem(member.name)
        file = member.name.rpartition("/")[2]
        if is_debris(member.name):
            found.debris.append(number)
        elif is_unsafe(member.name):
            found.rejected.append(Rejection(safe_key(stem), (number,), "unsafe member name"))
        elif folder in _ROLES:
            by_role[_ROLES[folder]][stem].append(number)
        elif folder in _AUXILIARY_FOLDERS or file in _AUXILIARY_FILES:
            found.auxiliary.append(number)
            if file == "file_map.txt":
                maps.append(number)
        else:
            found.debris.append(number)
    single = {role: _single(members, stems, found) for role, stems in by_role.items()}
    relation = _read_relation(members, maps) if maps else _relation_by_name(single["composite"])
    _relate(relation, single, found)
    return found


def _single(members: Members, stems: dict[str, list[int]], found: Match) -> dict[str, int]:
    """One member per stem: identical copies are debris, differing ones spoil the name."""
    single = {}
    for stem, numbers in stems.items():
        first, others, same = first_of(members, numbers)
        if same:
            single[stem] = first
            found.debris.extend(others)
        else:
            reason = f"{len(numbers)} different members have this name"
            found.rejected.append(Rejection(safe_key(stem), tuple(numbers), reason))
    return single


def _read_relation(members: Members, maps: list[int]) -> _Relation:
    relation: _Relation = []
    for number in maps:
        try:
            text = members.read(number).decode("utf-8")
        except (MemberError, UnicodeDecodeError) as error:
            msg = (
                f"{members.describe(number)} cannot be read ({error}); mend it, "
                "or remove it to relate the images by their names"
            )
            raise ShardError(msg) from None
        for line_number, line in enumerate(text.splitlines(), start=1):
            fields = tuple(field.strip() for field in line.split("\t"))
            if fields == ("",):
                continue
            if len(fields) != 4:
                msg = (
                    f"{members.describe(number)}, line {line_number} has {len(fields)} fields "
                    "instead of background, composite, mask, depth; mend it, "
                    "or remove the file to relate the images by their names"
                )
                raise ShardError(msg)
            relation.append(tuple(split_stem(field)[1] for field in fields))  # type: ignore[arg-type]
    return relation


def _relation_by_name(composites: dict[str, int]) -> _Relation:
    return [
        (named["background"], stem, f"{stem}_mask", f"{stem}_depth_map")
        for stem in composites
        if (named := _COMPOSITE.fullmatch(stem))
    ]


def _relate(relation: _Relation, single: dict[str, dict[str, int]], found: Match) -> None:
    backgrounds, composites = single["background"], single["composite"]
    masks, depths = single["mask"], single["depth"]
    found.backgrounds = dict(sorted(backgrounds.items(), key=lambda item: natural(item[0])))
    half = _half(stem for _, stem, _, _ in relation)
    used: set[int] = set()
    related: set[str] = set()
    for background, stem, mask, depth in relation:
        if stem in related:
            continue  # two archives may each carry the whole map
        related.add(stem)
        parts = {"composite": composites.get(stem), "mask": masks.get(mask),
                 "depth": depths.get(depth)}  # fmt: skip
        numbers = tuple(number for number in parts.values() if number is not None)
        missing = [part for part, number in parts.items() if number is None]
        if backgrounds and background not in backgrounds:
            missing.append(f"background {background}")
        if missing:
            if numbers:
                reason = f"has no {' and no '.join(missing)}"
                found.rejected.append(Rejection(safe_key(stem), numbers, reason))
                used.update(numbers)
            continue
        named = _COMPOSITE.fullmatch(stem)
        used.update(numbers)
        found.triplets.append(
            Triplet(
                key=safe_key(stem),
                composite=numbers[0],
                mask=numbers[1],
                depth=numbers[2],
                background=background if backgrounds else None,
                foreground=named["foreground"] if named else None,
                mirrored=int(named["variant"]) > half if named else None,
            )
        )
    for role in ("composite", "mask", "depth"):
        for stem, number in single[role].items():
            if number not in used:
                reason = f"{role} that no triplet claims"
                found.rejected.append(Rejection(safe_key(stem), (number,), reason))


def _half(stems: Iterable[str]) -> int:
    """Past which variant objects are mirrored: 20 in the original, half where there are more."""
    variants = [int(named["variant"]) for stem in stems if (named := _COMPOSITE.fullmatch(stem))]
    return max(_VARIANTS_PER_HALF, max(variants, default=0) // 2)
