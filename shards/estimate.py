"""Backgrounds that a data set does not hold, from composites: the median outside the masks."""

from collections.abc import Sequence

import numpy as np

from shards.archive import MemberError
from shards.imagery import ImageError, decode_sized
from shards.statistics import encode_png
from shards.triplet import Members, Triplet

COMPOSITES = 25
"""So many composites of a background enter its estimate: enough for objects to move aside."""

MAX_BYTES = 256 << 20
"""Of composites held at once; large images make do with fewer of them."""

_MASKED = np.uint16(1 << 15)
_MASK_LEVEL = 8
"""Above it a mask's pixel counts as covered: JPEG leaves ringing around an object."""


def estimate_background(
    members: Members, triplets: Sequence[Triplet], size: tuple[int, int]
) -> bytes | None:
    """A PNG of the scene that these composites share, or None if none can be read.

    A pixel that every composite covers gets the median of what covers it.

    Args:
        members: Of all sources.
        triplets: Composites of one background, in any order that is always the same.
        size: Height and width of the composites.
    """
    count = max(3, min(COMPOSITES, MAX_BYTES // (6 * size[0] * size[1])))
    step = max(1, len(triplets) // count)
    levels: list[np.ndarray[tuple[int, ...], np.dtype[np.uint16]]] = []
    for triplet in triplets[::step][:count]:
        try:
            composite = decode_sized(members.read(triplet.composite), size, 3)
            mask = decode_sized(members.read(triplet.mask), size, 1)
        except (MemberError, ImageError):
            continue  # the conversion meets it again and rejects it by name
        levels.append(composite + _MASKED * (mask > _MASK_LEVEL))
    if not levels:
        return None
    stack = np.sort(np.stack(levels), axis=0)  # what is covered comes last
    bare = (stack < _MASKED).sum(axis=0, keepdims=True)
    middle = np.where(bare > 0, (bare - 1) // 2, (len(levels) - 1) // 2)
    median = np.take_along_axis(stack, middle, axis=0)[0]
    return encode_png((median % _MASKED).astype(np.uint8))
