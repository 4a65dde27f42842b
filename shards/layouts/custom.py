r"""A user's own layout: regular expressions in a TOML file, `--layout my.toml`.

    name = "office"
    composite = '.*/photos/(?P<key>(?P<background>room\d+)_(?P<foreground>chair\d+)_\d+)\.jpg'
    mask = '.*/alpha/(?P<key>.+)\.png'
    depth = '.*/z/(?P<key>.+)_z\.png'
    background = '.*/rooms/(?P<background>room\d+)\.jpg'    # optional
    auxiliary = '.*/notes/.*'                               # optional: known and not needed

    [depth_map]                                             # optional; these are the defaults
    encoding = "grey"       # or plasma, magma: a colour-mapped picture, with or without a frame
    polarity = "near-dark"  # or near-bright
    scaling = "absolute"    # or stretched

Each expression must match the whole name of a member inside its archive. The group `key` is what
relates composite, mask and depth. The composite's groups `background`, `foreground` and `mirrored`
(mirrored where it matches anything) say what is known of it; what is not known may be left out.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from shards.error import ShardError
from shards.layouts.depth import DepthFormat
from shards.layouts.matching import (
    AUXILIARY,
    IMAGES,
    Facts,
    LayoutOptions,
    Named,
    join,
    relate_equal_keys,
    sees,
    sort_members,
)
from shards.triplet import Match, Members

_GROUP = {"composite": "key", "mask": "key", "depth": "key", "background": "background"}
_KEYS = ("name", *IMAGES, "background", AUXILIARY, "depth_map")


@dataclass(frozen=True, slots=True)
class CustomLayout:
    """What a layout file says."""

    name: str
    patterns: Mapping[str, re.Pattern[str]]
    """By role."""
    depth: DepthFormat

    @property
    def looks_for(self) -> str:
        """For messages."""
        return "; ".join(f"{role} {pattern.pattern}" for role, pattern in self.patterns.items())

    def recognises(self, members: Members) -> bool:
        """Whether each kind of image is there."""
        return sees(members, self._read)

    def match(self, members: Members, options: LayoutOptions) -> Match:
        """Sort every member into triplets, backgrounds, and the rest."""
        del options  # the expressions say everything
        composites: dict[str, re.Match[str]] = {}

        def read(name: str) -> Named | None:
            named = self._read(name)
            if named is not None and named.role == "composite":
                found = self.patterns["composite"].fullmatch(name)
                assert found is not None
                composites[named.key] = found
            return named

        def facts(key: str) -> Facts:
            groups = composites[key].groupdict() if key in composites else {}
            mirrored = bool(groups["mirrored"]) if "mirrored" in groups else None
            return Facts(groups.get("background"), groups.get("foreground"), mirrored)

        by_role = sort_members(members, read)
        return join(by_role, relate_equal_keys(by_role, facts))

    def _read(self, name: str) -> Named | None:
        for role, pattern in self.patterns.items():
            if found := pattern.fullmatch(name):
                return Named(role, found[_GROUP[role]] if role in _GROUP else name)
        return None


def read_layout(path: Path) -> CustomLayout:
    """Read a layout file.

    Raises:
        ShardError: It cannot be read, or says something that no layout has.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"layout {path} cannot be read ({error}); docs/layouts.md has an example"
        raise ShardError(msg) from None
    _check_keys(path, values, _KEYS)
    patterns = {
        role: _pattern(path, role, values[role])
        for role in (*IMAGES, "background", AUXILIARY)
        if role in values
    }
    missing = [role for role in IMAGES if role not in patterns]
    if missing:
        msg = f"layout {path} has no expression for {', '.join(missing)}; docs/layouts.md has one"
        raise ShardError(msg)
    depth_map = values.get("depth_map", {})
    _check_keys(path, depth_map, tuple(field.name for field in fields(DepthFormat)))
    try:
        depth = DepthFormat(**depth_map)
    except ValueError as error:
        msg = f"layout {path}: {error}"
        raise ShardError(msg) from None
    return CustomLayout(str(values.get("name", path.stem)), patterns, depth)


def custom_layout(name: str, patterns: Mapping[str, str], depth: DepthFormat) -> CustomLayout:
    """A layout from expressions that were read before."""
    return CustomLayout(name, {role: re.compile(text) for role, text in patterns.items()}, depth)


def _check_keys(path: Path, values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)[0]
            msg = f"layout {path} has no key {key!r}; the nearest known one is {nearest!r}"
            raise ShardError(msg)


def _pattern(path: Path, role: str, expression: object) -> re.Pattern[str]:
    try:
        pattern = re.compile(str(expression))
    except re.error as error:
        msg = f"layout {path}: the expression for {role} is wrong ({error}): {expression}"
        raise ShardError(msg) from None
    group = _GROUP.get(role)
    if group is not None and group not in pattern.groupindex:
        msg = f"layout {path}: the expression for {role} needs a group (?P<{group}>...)"
        raise ShardError(msg)
    return pattern
