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
from collections.abc import Iterator

from shards.layouts.matching import (
    AUXILIARY,
    Facts,
    LayoutOptions,
    Named,
    Related,
    Sorted,
    join,
    relate_equal_keys,
    sees,
    sort_members,
    tab_separated,
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


def _related_by_labels(members: Members, files: list[int]) -> Iterator[Related]:
    for row in tab_separated(members, files, fields=5):
        background, foreground, *images = (split_stem(field)[1] for field in row)
        keys = [_key(digits[1]) if (digits := _DIGITS.search(stem)) else stem for stem in images]
        composite, mask, depth = keys
        mirrored = _number(composite) % 2 == 0 if _DIGITS.search(composite) else None
        yield Related(composite, mask, depth, Facts(background, foreground, mirrored))


def _key(digits: str) -> str:
    return f"fg-bg{int(digits)}"


def _number(key: str) -> int:
    return int(key.removeprefix("fg-bg"))


def _backgrounds_by_position(members: Members, by_role: Sorted) -> dict[str, str]:
    """Composite number to background: equal runs inside each set."""
    ids = list(by_role.found.backgrounds)
    if not ids:
        return {}
    sets: dict[str, list[int]] = defaultdict(list)
    for key, number in by_role.single["composite"].items():
        sets[_set_of(members, number)].append(_number(key))
    # a set may lack members at its ends; the longest one tells how many a whole one has
    count = max(max(numbers) - min(numbers) + 1 for numbers in sets.values())
    run = -(-count // len(ids))
    found = {}
    for numbers in sets.values():
        first = (min(numbers) - 1) // count * count + 1
        for number in numbers:
            position = min((number - first) // run, len(ids) - 1)
            found[_key(str(number))] = ids[position]
    return found


def _set_of(members: Members, number: int) -> str:
    """The archive and the folder above `Fg-Bg`: `data_part1.zip`, `data_1`."""
    root = members[number].name.rpartition("/Fg-Bg/")[0]
    return f"{members.archive_number(number)}/{root}"
