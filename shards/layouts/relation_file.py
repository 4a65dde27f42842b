"""Reference 004, the MODEST museum: one folder per kind of image and a file that relates them.

ROOT/bg/bg001.jpeg                    backgrounds
ROOT/bg_fg/bg001_fg001_01.jpeg        composites; variants past 20 are mirrored
ROOT/bg_fg_mask/bg001_fg001_01_mask.jpeg
ROOT/bg_fg_depth_map/bg001_fg001_01_depth_map.jpeg
ROOT/file_map.txt                     background, composite, mask, depth: stems, tab separated
ROOT/fg, ROOT/fg_mask, ROOT/bbox.txt  not needed for samples

Without `file_map.txt` the relation is read off the names, which say the same.
"""

import re
from collections.abc import Iterable

from shards.archive import MemberError
from shards.error import ShardError
from shards.layouts.matching import (
    AUXILIARY,
    Facts,
    Named,
    Related,
    join,
    sort_members,
)
from shards.triplet import Match, Members, split_stem

NAME = "relation-file"
LOOKS_FOR = "folders bg_fg/, bg_fg_mask/ and bg_fg_depth_map/, related by file_map.txt"

_ROLES = {
    "bg": "background",
    "bg_fg": "composite",
    "bg_fg_mask": "mask",
    "bg_fg_depth_map": "depth",
    "fg": AUXILIARY,
    "fg_mask": AUXILIARY,
}
_RELATION = "file_map.txt"
_COMPOSITE = re.compile(r"(?P<background>.+)_(?P<foreground>fg\d+)_(?P<variant>\d+)")
_VARIANTS_PER_HALF = 20  # the original's count, kept as the border where fewer are present

_Row = tuple[str, str, str, str]


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
    by_role = sort_members(members, _read)
    files = [number for number in by_role.found.auxiliary
             if members[number].name.rpartition("/")[2] == _RELATION]  # fmt: skip
    rows = _rows_of(members, files) if files else _rows_by_name(by_role.single["composite"])
    return join(by_role, _relation(rows))


def _read(name: str) -> Named | None:
    folder, stem = split_stem(name)
    if folder in _ROLES:
        return Named(_ROLES[folder], stem)
    known = name.rpartition("/")[2] in {_RELATION, "bbox.txt"}
    return Named(AUXILIARY, stem) if known else None


def _relation(rows: list[_Row]) -> Iterable[Related]:
    half = _half(composite for _, composite, _, _ in rows)
    for background, composite, mask, depth in rows:
        foreground, mirrored = None, None
        if named := _COMPOSITE.fullmatch(composite):
            foreground, mirrored = named["foreground"], int(named["variant"]) > half
        yield Related(composite, mask, depth, Facts(background, foreground, mirrored))


def _rows_of(members: Members, files: list[int]) -> list[_Row]:
    rows: list[_Row] = []
    for number in files:
        try:
            text = members.read(number).decode("utf-8")
        except (MemberError, UnicodeDecodeError) as error:
            msg = (
                f"{members.describe(number)} cannot be read ({error}); mend it, "
                "or remove it to relate the images by their names"
            )
            raise ShardError(msg) from None
        for line_number, line in enumerate(text.splitlines(), start=1):
            stems = [split_stem(field.strip())[1] for field in line.split("\t")]
            if stems == [""]:
                continue
            if len(stems) != 4:
                msg = (
                    f"{members.describe(number)}, line {line_number} has {len(stems)} fields "
                    "instead of background, composite, mask, depth; mend it, "
                    "or remove the file to relate the images by their names"
                )
                raise ShardError(msg)
            background, composite, mask, depth = stems
            rows.append((background, composite, mask, depth))
    return rows


def _rows_by_name(composites: Iterable[str]) -> list[_Row]:
    return [
        (named["background"], stem, f"{stem}_mask", f"{stem}_depth_map")
        for stem in composites
        if (named := _COMPOSITE.fullmatch(stem))
    ]


def _half(stems: Iterable[str]) -> int:
    """Past which variant objects are mirrored: 20 in the original, half where there are more."""
    variants = [int(named["variant"]) for stem in stems if (named := _COMPOSITE.fullmatch(stem))]
    return max(_VARIANTS_PER_HALF, max(variants, default=0) // 2)
