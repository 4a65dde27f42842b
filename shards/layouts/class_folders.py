"""Reference 001: a folder per background, counted from 0, and depth in files that say "mask".

fg_bg/bg_000/fg_004_bg_000_000009.jpg              composites, in folders per background or flat
fg_bg_mask/bg_000/fg_004_bg_000_mask_000009.jpg
mask_fg_bg/bg_000/mask_fg_004_bg_000_000009.png    depth
fg_bg/bg_000/fg_004_bg_000_000009_disp.jpeg        by `--depth disparity`: magma, near bright
bgformat/bg/000.jpg                                backgrounds; fgformat/ is not needed

The last number counts through everything; even ones are mirrored.
"""

import re

from shards.layouts.matching import (
    AUXILIARY,
    Facts,
    LayoutOptions,
    Named,
    join,
    relate_equal_keys,
    sees,
    sort_members,
)
from shards.triplet import Match, Members, split_stem

NAME = "class-folders"
LOOKS_FOR = "fg_F_bg_B_N.jpg, fg_F_bg_B_mask_N.jpg and mask_fg_F_bg_B_N.png"

_COMPOSITE = re.compile(r"(?P<foreground>fg_\d+)_bg_(?P<background>\d+)_(?P<number>\d+)")
_MASK = re.compile(r"(fg_\d+_bg_\d+)_mask_(\d+)")
_DEPTH = re.compile(r"mask_(fg_\d+_bg_\d+_\d+)")
_DISPARITY = re.compile(r"(fg_\d+_bg_\d+_\d+)_disp")


def recognises(members: Members) -> bool:
    """Whether composites and masks are there under these names."""
    return sees(members, _read, roles=("composite", "mask"))


def match(members: Members, options: LayoutOptions) -> Match:
    """Sort every member into triplets, backgrounds, and the rest."""
    by_role = sort_members(members, lambda name: _read(name, disparity=options.disparity))
    return join(by_role, relate_equal_keys(by_role, _facts))


def _facts(key: str) -> Facts:
    named = _COMPOSITE.fullmatch(key)
    if named is None:
        return Facts()
    return Facts(named["background"], named["foreground"], mirrored=int(named["number"]) % 2 == 0)


def _read(name: str, *, disparity: bool = False) -> Named | None:
    folder, stem = split_stem(name)
    if _COMPOSITE.fullmatch(stem):
        return Named("composite", stem)
    if found := _MASK.fullmatch(stem):
        return Named("mask", f"{found[1]}_{found[2]}")
    for pattern, wanted in ((_DEPTH, not disparity), (_DISPARITY, disparity)):
        if found := pattern.fullmatch(stem):
            return Named("depth" if wanted else AUXILIARY, found[1])
    if folder == "bg" and stem.isdecimal():
        return Named("background", stem)
    known = folder in {"fg", "mask"} or name.endswith("labels.txt")
    return Named(AUXILIARY, stem) if known else None
