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

from shards.layouts.matching import (
    AUXILIARY,
    Facts,
    LayoutOptions,
    Named,
    Related,
    join,
    sees,
    sort_members,
    tab_separated,
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


def recognises(members: Members) -> bool:
    """Whether composites, masks and depth maps lie in folders of these names."""
    return sees(members, _read)


def match(members: Members, options: LayoutOptions) -> Match:
    """Sort every member into triplets, backgrounds, and the rest.

    Raises:
        ShardError: `file_map.txt` cannot be read.
    """
    del options  # the names say everything
    by_role = sort_members(members, _read)
    files = [number for number in by_role.found.auxiliary
             if members[number].name.rpartition("/")[2] == _RELATION]  # fmt: skip
    if not files:
        return join(by_role, _relation(_rows_by_name(by_role.single["composite"])))
    rows = [tuple(split_stem(field)[1] for field in row)
            for row in tab_separated(members, files, fields=4)]  # fmt: skip
    return join(by_role, _relation(rows))


def _read(name: str) -> Named | None:
    folder, stem = split_stem(name)
    if folder in _ROLES:
        return Named(_ROLES[folder], stem)
    known = name.rpartition("/")[2] in {_RELATION, "bbox.txt"}
    return Named(AUXILIARY, stem) if known else None


def _relation(rows: list[tuple[str, ...]]) -> Iterable[Related]:
    half = _half(composite for _, composite, _, _ in rows)
    for background, composite, mask, depth in rows:
        foreground, mirrored = None, None
        if named := _COMPOSITE.fullmatch(composite):
            foreground, mirrored = named["foreground"], int(named["variant"]) > half
        yield Related(composite, mask, depth, Facts(background, foreground, mirrored))


def _rows_by_name(composites: Iterable[str]) -> list[tuple[str, ...]]:
    return [
        (named["background"], stem, f"{stem}_mask", f"{stem}_depth_map")
        for stem in composites
        if (named := _COMPOSITE.fullmatch(stem))
    ]


def _half(stems: Iterable[str]) -> int:
    """Past which variant objects are mirrored: 20 in the original, half where there are more."""
    variants = [int(named["variant"]) for stem in stems if (named := _COMPOSITE.fullmatch(stem))]
    return max(_VARIANTS_PER_HALF, max(variants, default=0) // 2)
