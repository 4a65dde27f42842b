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
from collections.abc import Iterable, Iterator, Sequence

from shards.layouts.matching import (
    AUXILIARY,
    Facts,
    LayoutOptions,
    Named,
    Relation,
    join,
    sees,
    sort_members,
    tab_columns,
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
    images = {folder: role for folder, role in _ROLES.items() if role != AUXILIARY}
    by_role = sort_members(members, _read, images)
    files = [number for number in by_role.found.auxiliary
             if members[number].name.rpartition("/")[2] == _RELATION]  # fmt: skip
    if files:
        backgrounds, *images_of = map(_stems, tab_columns(members, files, fields=4))
    else:
        stems = [stem for stem in by_role.single["composite"] if _COMPOSITE.fullmatch(stem)]
        backgrounds = [stem.rsplit("_", 2)[0] for stem in stems]
        images_of = [stems, [f"{stem}_mask" for stem in stems],
                     [f"{stem}_depth_map" for stem in stems]]  # fmt: skip
    composites, masks, depths = images_of
    return join(by_role, Relation(composites, masks, depths, _facts(backgrounds, composites)))


def _read(name: str) -> Named | None:
    folder, stem = split_stem(name)
    if folder in _ROLES:
        return Named(_ROLES[folder], stem)
    known = name.rpartition("/")[2] in {_RELATION, "bbox.txt"}
    return Named(AUXILIARY, stem) if known else None


def _stems(fields: Sequence[str]) -> Sequence[str]:
    everything = "".join(fields)
    if "/" not in everything and "." not in everything:
        return fields
    return [split_stem(field)[1] for field in fields]


def _facts(backgrounds: Sequence[str], composites: Sequence[str]) -> list[Facts]:
    named = list(_parts(composites))
    half = _half(variant for _, variant in filter(None, named))
    return [
        Facts(background, *(parts[0], parts[1] > half) if parts else (None, None))
        for background, parts in zip(backgrounds, named, strict=True)
    ]


def _parts(stems: Iterable[str]) -> Iterator[tuple[str, int] | None]:
    """Foreground and variant of composites: `bg001_fg001_07` is (`fg001`, 7)."""
    variants: dict[str, int] = {}  # a few dozen endings
    foregrounds: set[str] = set()
    for stem in stems:
        first, _, last = stem.rpartition("_")
        background, _, foreground = first.rpartition("_")
        if not background or last not in variants or foreground not in foregrounds:
            named = _COMPOSITE.fullmatch(stem)
            if named is None:
                yield None
                continue
            variants[last] = int(named["variant"])
            foregrounds.add(foreground)
        yield foreground, variants[last]


def _half(variants: Iterable[int]) -> int:
    """Past which variant objects are mirrored: 20 in the original, half where there are more."""
    return max(_VARIANTS_PER_HALF, max(variants, default=0) // 2)
