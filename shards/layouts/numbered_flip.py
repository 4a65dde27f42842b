"""Reference 003: numbered composites with flipped twins, depth as framed figures of that name.

bg_fg_1/2_bg_10_fg.jpg               composite of background 2; 10 counts objects and positions
bg_fg_1/2_bg_10_fgFlip.jpg           its mirrored twin
bg_fg_mask_1/2_bg_10_fg_mask.jpg     masks; sorted by name they come in another order
depthMap/2_bg_10_fg.jpg              a plasma figure with a white frame: `shards/colormap.py`
2_bg.png                             backgrounds, outside the zips or absent

Which object it is follows only from how many positions each object was given, which the names do
not tell: 20 in the original.
"""

import re

from shards.layouts.matching import (
    Facts,
    LayoutOptions,
    Named,
    join,
    relate_equal_keys,
    sees,
    sort_members,
)
from shards.triplet import Match, Members, split_stem

NAME = "numbered-flip"
LOOKS_FOR = "bg_fg*/B_bg_N_fg[Flip].jpg, bg_fg_mask*/ with _mask and depthMap/ of the same names"

_COMPOSITE = re.compile(r"(?P<background>\d+_bg)_(?P<number>\d+)_fg(?P<flip>Flip)?")
_MASK = re.compile(r"(\d+_bg_\d+_fg(?:Flip)?)_mask")
_BACKGROUND = re.compile(r"\d+_bg")


def recognises(members: Members) -> bool:
    """Whether the three kinds of image are there under these names."""
    return sees(members, _read)


def match(members: Members, options: LayoutOptions) -> Match:
    """Sort every member into triplets, backgrounds, and the rest."""
    positions = options.positions_per_foreground

    def facts(key: str) -> Facts:
        named = _COMPOSITE.fullmatch(key)
        if named is None:
            return Facts()
        foreground = None
        if positions is not None:
            foreground = f"fg{(int(named['number']) - 1) // positions + 1:03d}"
        return Facts(named["background"], foreground, mirrored=named["flip"] is not None)

    by_role = sort_members(members, _read)
    return join(by_role, relate_equal_keys(by_role, facts))


def _read(name: str) -> Named | None:
    folder, stem = split_stem(name)
    if _COMPOSITE.fullmatch(stem):
        return Named("depth" if folder.lower().startswith("depth") else "composite", stem)
    if found := _MASK.fullmatch(stem):
        return Named("mask", found[1])
    return Named("background", stem) if _BACKGROUND.fullmatch(stem) else None
