"""How the names of a data set become triplets: one file per layout, found by the names alone."""

from collections.abc import Callable
from dataclasses import dataclass

from shards.error import ShardError
from shards.layouts import relation_file
from shards.triplet import Match, Members


@dataclass(frozen=True, slots=True)
class Layout:
    """One way of naming things."""

    name: str
    looks_for: str
    """What the detection wants to see, in words, for the message that lists what was tried."""
    recognises: Callable[[Members], bool]
    match: Callable[[Members], Match]
    depth_polarity: str
    """Whether near is dark or bright in this data set's depth maps."""
    depth_scaling: str
    """absolute: comparable between images; stretched: each image to its own full range."""


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            relation_file.NAME,
            relation_file.LOOKS_FOR,
            relation_file.recognises,
            relation_file.match,
            depth_polarity="near-dark",
            depth_scaling="absolute",
        ),
    )
}


def find_layout(name: str, members: Members) -> Layout:
    """The layout of that name, or for `auto` the one whose names are seen.

    Raises:
        ShardError: The name is unknown, or the sources fit none or several.
    """
    if name != "auto":
        if name not in LAYOUTS:
            msg = f"unknown layout {name!r}; use auto or one of: {', '.join(LAYOUTS)}"
            raise ShardError(msg)
        return LAYOUTS[name]
    found = [layout for layout in LAYOUTS.values() if layout.recognises(members)]
    if len(found) == 1:
        return found[0]
    wanted = "; ".join(f"{layout.name}: {layout.looks_for}" for layout in LAYOUTS.values())
    seen = ", ".join(sorted({member.name for member in members})[:5])
    trouble = "fit several layouts" if found else "hold no triplets of a known layout"
    sources = ", ".join(archive.name for archive in members.archives)
    msg = (
        f"the sources ({sources}) {trouble}; looked for {wanted}; "
        f"saw {len(members)} members such as {seen}; name the layout with --layout"
    )
    raise ShardError(msg)
