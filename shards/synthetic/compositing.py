"""Pastes foregrounds on backgrounds: composite, mask and depth of a triplet, encoded.

Composites are made from the background as it is stored, decoded, like the published sets: away
from the object the two differ by compression noise. All arithmetic is in integers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from shards.synthetic.encoding import Bytes8, Encodings, rgb_jpeg
from shards.synthetic.pairing import Combination

HEIGHTS = (0.25, 0.55)
"""Smallest and largest height of an object, as a share of the frame."""

WIDEST = 0.9
"""Largest width of an object, as a share of the frame."""

SCENE, FIGURE, PLACE = range(3)
"""What a generator is for, after the seed: one stream of numbers for each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backdrop:
    """A background ready to be pasted on."""

    jpeg: bytes
    depth: Bytes8
    """(S, S), near is dark."""

    ramp: Bytes8
    """(S,) the depth of an object by the row of its foot."""


class Rendered(NamedTuple):
    """A triplet's three files, and where the object was pasted."""

    triplet: Combination
    composite: bytes
    mask: bytes
    depth: bytes
    place: tuple[int, int, int, int]
    """Left, top, width, height in pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Some triplets and all that is needed to render them: no process keeps a state."""

    seed: int
    size: int
    quality: int
    encodings: Encodings
    backdrops: Mapping[int, Backdrop]
    cutouts: Mapping[int, Bytes8]
    """(h, w, 4) RGBA, alpha not premultiplied."""

    triplets: tuple[Combination, ...]


def render_chunk(chunk: Chunk) -> list[Rendered]:
    """Render the triplets in their order."""
    pictures = {
        number: simplejpeg.decode_jpeg(backdrop.jpeg)
        for number, backdrop in chunk.backdrops.items()
    }
    cutouts = {number: Image.fromarray(rgba) for number, rgba in chunk.cutouts.items()}
    rendered = []
    for triplet in chunk.triplets:
        cutout = cutouts[triplet.foreground]
        place = draw_place(chunk.seed, triplet, chunk.size, cutout.size)
        images = _paste(
            pictures[triplet.background],
            chunk.backdrops[triplet.background],
            _sprite(cutout, place[2:], mirrored=triplet.mirrored),
            place[:2],
        )
        rendered.append(Rendered(triplet, *_encode(images, chunk), place))
    return rendered


def draw_place(
    seed: int, triplet: Combination, size: int, cutout_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Left, top, width and height in pixels, wholly inside the frame.

    Args:
        seed: Of the set.
        triplet: Mirrored or not makes no difference.
        size: Side of the frame in pixels.
        cutout_size: Width and height of the cut-out in pixels.
    """
    numbers = (triplet.background, triplet.foreground, triplet.position)
    rng = np.random.default_rng((seed, PLACE, *numbers))
    scale = min(
        float(rng.uniform(*HEIGHTS)) * size / cutout_size[1], WIDEST * size / cutout_size[0]
    )
    width, height = (max(1, round(scale * side)) for side in cutout_size)
    left, top = rng.integers(0, (size - width + 1, size - height + 1))
    return int(left), int(top), width, height


def _sprite(cutout: Image.Image, size: tuple[int, int], *, mirrored: bool) -> Bytes8:
    resized = np.asarray(cutout.resize(size, Image.Resampling.BICUBIC))
    return resized[:, ::-1] if mirrored else resized


def _paste(
    picture: Bytes8, backdrop: Backdrop, sprite: Bytes8, corner: tuple[int, int]
) -> tuple[Bytes8, Bytes8, Bytes8]:
    """Composite (S, S, 3), mask (S, S, 1) and depth (S, S, 1)."""
    left, top = corner
    height, width = sprite.shape[:2]
    window = (slice(top, top + height), slice(left, left + width))
    alpha = sprite[..., 3:]
    composite = picture.copy()
    composite[window] = _over(picture[window], sprite[..., :3], alpha)
    mask = np.zeros((*picture.shape[:2], 1), np.uint8)
    mask[window] = alpha
    depth = backdrop.depth[..., None].copy()
    depth[window] = _over(depth[window], backdrop.ramp[top + height - 1], alpha)
    return composite, mask, depth


def _over(below: Bytes8, above: Bytes8 | np.uint8, alpha: Bytes8) -> Bytes8:
    """`above` over `below`, rounded; the sums fit 16 bits."""
    share = alpha.astype(np.uint16)
    total = above * share + below * (255 - share) + np.uint16(127)
    return (total // 255).astype(np.uint8)


def _encode(images: tuple[Bytes8, Bytes8, Bytes8], chunk: Chunk) -> tuple[bytes, bytes, bytes]:
    composite, mask, depth = images
    return (
        rgb_jpeg(composite, chunk.quality),
        chunk.encodings.mask(mask, chunk.quality),
        chunk.encodings.depth(depth, chunk.quality),
    )
