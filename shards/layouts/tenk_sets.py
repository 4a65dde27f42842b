"""Reference 002: zips of ten thousand, a folder name with a space, a number that means nothing.

data_TenK101/BG_FG/bg_001_fg_102_003.jpeg                      composites; objects past 100 mirrored
data_TenK101/BG_FG Masks/bg_001_fg_102_003.jpeg                the composite's own name; RGB
data_TenK101/DepthMaps/bg_001_fg_102_003_depth_map_217.jpeg    217 is a place in a listing
data_TenK101/BG/bg001.jpg                                      all backgrounds, in every zip
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

NAME = "tenk-sets"
LOOKS_FOR = "BG_FG/bg_B_fg_F_P.jpeg, 'BG_FG Masks'/ of the same names and DepthMaps/"

_FOREGROUNDS = 100
_COMPOSITE = re.compile(r"bg_(?P<background>\d+)_fg_(?P<foreground>\d+)_(?P<position>\d+)")
_DEPTH = re.compile(r"(bg_\d+_fg_\d+_\d+)_depth_map_\d+")
_ROLES = {"BG_FG": "composite", "BG_FG Masks": "mask"}


def recognises(members: Members) -> bool:
    """Whether the three kinds of image are there under these names."""
    return sees(members, _read)


def match(members: Members, options: LayoutOptions) -> Match:
    """Sort every member into triplets, backgrounds, and the rest."""
    del options  # the names say everything
    by_role = sort_members(members, _read)
    return join(by_role, relate_equal_keys(by_role, _facts))


def _facts(key: str) -> Facts:
    named = _COMPOSITE.fullmatch(key)
    if named is None:
        return Facts()
    number = int(named["foreground"])
    mirrored = number > _FOREGROUNDS
    foreground = f"fg{number - _FOREGROUNDS if mirrored else number:03d}"
    return Facts(f"bg{named['background']}", foreground, mirrored)


def _read(name: str) -> Named | None:
    folder, stem = split_stem(name)
    if folder in _ROLES and _COMPOSITE.fullmatch(stem):
        return Named(_ROLES[folder], stem)
    if folder == "DepthMaps" and (found := _DEPTH.fullmatch(stem)):
        return Named("depth", found[1])
    if folder == "BG" and re.fullmatch(r"bg\d+", stem):
        return Named("background", stem)
    return None
