"""How the names of a data set become triplets: one file per layout, found by the names alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from shards.error import ShardError
from shards.layouts import (
    class_folders,
    global_number,
    numbered_flip,
    relation_file,
    tenk_sets,
)
from shards.layouts.custom import CustomLayout, custom_layout, read_layout
from shards.layouts.depth import DepthFormat
from shards.layouts.matching import LayoutOptions
from shards.manifest import Manifest
from shards.triplet import Match, Members

MAGMA_DISPARITY = DepthFormat(encoding="magma", polarity="near-bright", scaling="stretched")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One way of naming things."""

    name: str
    looks_for: str
    """What the detection wants to see, in words, for the message that lists what was tried."""
    recognises: Callable[[Members], bool]
    match: Callable[[Members, LayoutOptions], Match]
    depth: DepthFormat
    definition: Mapping[str, str] = field(default_factory=dict)
    """A layout file's expressions, which decide the bytes; the known layouts have a name."""


def _known(module: ModuleType, depth: DepthFormat) -> Layout:
    return Layout(
        name=module.NAME,
        looks_for=module.LOOKS_FOR,
        recognises=module.recognises,
        match=module.match,
        depth=depth,
    )


LAYOUTS = {
    layout.name: layout
    for layout in (
        _known(global_number, DepthFormat(scaling="stretched")),
        _known(class_folders, DepthFormat(scaling="absolute")),
        _known(tenk_sets, DepthFormat(scaling="absolute")),
        _known(numbered_flip, DepthFormat(encoding="plasma", scaling="stretched")),
        _known(relation_file, DepthFormat(scaling="absolute")),
    )
}


def find_layout(name: str, members: Members) -> Layout:
    """The layout of that name, of that file, or for `auto` the one whose names are seen.

    Args:
        name: auto, a key of `LAYOUTS`, or the path of a TOML file (see `custom.py`).
        members: Of all sources.

    Raises:
        ShardError: The name is unknown, the file is wrong, or the sources fit none or several.
    """
    if name.endswith(".toml"):
        return _custom(read_layout(Path(name)))
    if name != "auto":
        if name not in LAYOUTS:
            known = ", ".join(LAYOUTS)
            msg = f"unknown layout {name!r}; use auto, one of: {known}, or a file NAME.toml"
            raise ShardError(msg)
        return LAYOUTS[name]
    found = [layout for layout in LAYOUTS.values() if layout.recognises(members)]
    if len(found) == 1:
        return found[0]
    wanted = "; ".join(f"{layout.name}: {layout.looks_for}" for layout in LAYOUTS.values())
    seen = ", ".join(sorted({member.name for member in members})[:5])
    trouble = "hold no triplets of a known layout"
    if found:
        trouble = f"fit several layouts ({', '.join(layout.name for layout in found)})"
    sources = ", ".join(archive.name for archive in members.archives)
    msg = (
        f"the sources ({sources}) {trouble}; looked for {wanted}; "
        f"saw {len(members)} members such as {seen}; name the layout with --layout"
    )
    raise ShardError(msg)


def layout_of(manifest: Manifest) -> Layout:
    """The layout that a set was made with, a user's own included.

    Raises:
        ShardError: This version does not know it.
    """
    definition = manifest.options.get("layout_definition")
    if definition:
        stored = {name: manifest.depth[name] for name in ("encoding", "polarity", "scaling")}
        return _custom(custom_layout(manifest.layout, definition, DepthFormat(**stored)))
    if manifest.layout not in LAYOUTS:
        msg = f"the set was made with layout {manifest.layout!r}, which this version does not know"
        raise ShardError(msg)
    return LAYOUTS[manifest.layout]


def _custom(custom: CustomLayout) -> Layout:
    return Layout(
        name=custom.name,
        looks_for=custom.looks_for,
        recognises=custom.recognises,
        match=custom.match,
        depth=custom.depth,
        definition={role: pattern.pattern for role, pattern in custom.patterns.items()},
    )
