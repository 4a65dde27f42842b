"""Reference 000: composites numbered through all zips, backgrounds and labels outside.

data_part1.zip: data_1/Fg-Bg/fg-bg800.jpg    composite N, counted through all sets
                data_1/Fg-Bg-Mask/fg-bg-mask800.jpg
                data_1/Depth/depth800.jpg
Background/bg1.jpg                           Foreground/, Mask/ beside it: not needed
labels.txt                                   background, foreground, composite, mask, depth:
                                             relative paths, tab separated

`labels.txt` relates everything. Without it the background follows from the position inside the
set: equal runs of composites, one per background in natural order (800 in the original, whose
README gives the rule for the global number, which is right only in the first set). Odd numbers are
plain, even ones mirrored at the same position.
"""

import re
from collections import defaultdict

from shards.layouts.matching import (
    AUXILIARY,
    IMAGES,
    Facts,
    LayoutOptions,
    Named,
    Relation,
    Sorted,
    join,
    relate_equal_keys,
    sees,
    sort_members,
    tab_columns,
)
from shards.triplet import Match, Members, split_stem

NAME = "global-number"
LOOKS_FOR = "Fg-Bg/fg-bgN.jpg, Fg-Bg-Mask/fg-bg-maskN.jpg and Depth/depthN.jpg"

_ROLES = {
    "Fg-Bg": ("composite", re.compile(r"fg-bg(\d+)")),
    "Fg-Bg-Mask": ("mask", re.compile(r"fg-bg-mask(\d+)")),
    "Depth": ("depth", re.compile(r"depth(\d+)")),
    "Background": ("background", re.compile(r"(bg\d+)")),
}
_AUXILIARY_FOLDERS = {"Foreground", "Mask"}
_LABELS = "labels.txt"
_DIGITS = re.compile(r"(\d+)$")


def recognises(members: Members) -> bool:
    """Whether the three kinds of image are there under these names."""
    return sees(members, _read)


def match(members: Members, options: LayoutOptions) -> Match:
    """Sort every member into triplets, backgrounds, and the rest.

    Raises:
        ShardError: `labels.txt` cannot be read.
    """
    del options  # the names say everything
    by_role = sort_members(members, _read)
    labels = [number for number in by_role.found.auxiliary
              if members[number].name.rpartition("/")[2] == _LABELS]  # fmt: skip
    if labels:
        return join(by_role, _related_by_labels(members, labels))
    backgrounds = _backgrounds_by_position(members, by_role)
    return join(
        by_role,
        relate_equal_keys(
            by_role, lambda key: Facts(backgrounds.get(key), mirrored=_number(key) % 2 == 0)
        ),
    )


def _read(name: str) -> Named | None:
    folder, stem = split_stem(name)
    if folder in _ROLES:
        role, pattern = _ROLES[folder]
        found = pattern.fullmatch(stem)
        if found is None:
            return None
        return Named(role, found[1] if role == "background" else _key(found[1]))
    known = folder in _AUXILIARY_FOLDERS or name.rpartition("/")[2] == _LABELS
    return Named(AUXILIARY, stem) if known else None


def _related_by_labels(members: Members, files: list[int]) -> Relation:
    rows = []
    for row in zip(*tab_columns(members, files, fields=5), strict=True):
        background, foreground, *images = (split_stem(field)[1] for field in row)
        keys = [_key(digits[1]) if (digits := _DIGITS.search(stem)) else stem for stem in images]
        composite, mask, depth = keys
        mirrored = _number(composite) % 2 == 0 if _DIGITS.search(composite) else None
        rows.append((composite, mask, depth, Facts(background, foreground, mirrored)))
    return Relation(*zip(*rows, strict=True)) if rows else Relation()


def _key(digits: str) -> str:
    return f"fg-bg{int(digits)}"


def _number(key: str) -> int:
    return int(key.removeprefix("fg-bg"))


def _backgrounds_by_position(members: Members, by_role: Sorted) -> dict[str, str]:
    """Composite key to background: equal runs inside each set.

    A set reaches from its lowest to its highest number; a mask or depth map alone also tells.
    """
    ids = list(by_role.found.backgrounds)
    if not ids:
        return {}
    sets: dict[str, set[int]] = defaultdict(set)
    for role in IMAGES:
        for key, number in by_role.single[role].items():
            sets[_set_of(members, number)].add(_number(key))
    longest = max(max(numbers) - min(numbers) + 1 for numbers in sets.values())
    found = {}
    for numbers in sets.values():
        first, run = _runs(min(numbers), max(numbers), len(ids), longest)
        for number in numbers:
            position = min((number - first) // run, len(ids) - 1)
            found[_key(str(number))] = ids[position]
    return found


def _runs(low: int, high: int, num_backgrounds: int, longest: int) -> tuple[int, int]:
    """First number of a set and how many of its numbers share a background.

    A set that does not divide evenly has lost members at an end: then the longest set tells where
    it began, if that one is whole.
    """
    count = high - low + 1
    first = (low - 1) // longest * longest + 1
    fits = high < first + longest and longest % num_backgrounds == 0
    if count % num_backgrounds and fits:
        return first, longest // num_backgrounds
    return low, -(-count // num_backgrounds)


def _set_of(members: Members, number: int) -> str:
    """The archive and the folder above the kinds of image: `data_part1.zip`, `data_1`."""
    root = members[number].name.rpartition("/")[0].rpartition("/")[0]
    return f"{members.archive_number(number)}/{root}"
