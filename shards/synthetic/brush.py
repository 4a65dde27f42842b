"""What scenes and figures are drawn with: palettes, fractal noise, soft-edged shapes, a canvas.

Coordinates are in units of the frame: x to the right and y downwards, (0, 0) to (1, 1). A shape
is a signed distance field (negative inside), so its edge is smooth at every size. Colours are
RGB in [0, 1]; noise has mean 0 and lies mostly in [-1, 1]. Everything random is drawn from
the generator that is passed in.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from PIL import Image

Field = npt.NDArray[np.float32]
"""An array of float32: one value per pixel, or broadcastable to that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Palette:
    """The six colours of a scene or a figure."""

    light: Field
    wall: Field
    ground: Field
    dark: Field
    accent: Field
    cool: Field

    @property
    def colours(self) -> tuple[Field, ...]:
        """All six."""
        return (self.light, self.wall, self.ground, self.dark, self.accent, self.cool)


# light, wall, ground, dark, accent, cool: hearth, forest, city, coast, dusk, gallery, winter,
# meadow. So few, and shared, that a figure often meets its own colours in the scene behind it.
_FAMILY = (
    ("dfccae", "b8946e", "80593b", "38261c", "a3402e", "6e786b"),
    ("ccd6d1", "8fa899", "5c6b38", "242e1c", "9e7338", "668594"),
    ("d4d6db", "999491", "666363", "292b33", "99523d", "61758f"),
    ("e3e0d1", "8fb3c7", "c2ab80", "334047", "cc7347", "47788f"),
    ("e0ad8f", "946b80", "5c4752", "241f2e", "c26b4d", "52527a"),
    ("d9d1c2", "753833", "7a5c3d", "2b1f1c", "bd9447", "576661"),
    ("e6ebf0", "b3c2d1", "c7ccd1", "38404d", "8c4742", "6b859e"),
    ("d1dbe6", "85a8d1", "708542", "2b331f", "cc9e47", "758f80"),
)


def draw_palette(
    rng: np.random.Generator, *, jitter: float = 0.05, contrast: float = 1.0
) -> Palette:
    """One palette of the family, each colour moved a little (`jitter` is a standard deviation)."""
    hexes = _FAMILY[rng.integers(len(_FAMILY))]
    exposure = rng.normal(0, jitter)
    moved = {}
    for role, text in zip(fields(Palette), hexes, strict=True):
        colour = np.frombuffer(bytes.fromhex(text), np.uint8) / 255
        noisy = 0.45 + contrast * (colour - 0.45) + exposure + rng.normal(0, jitter / 2, 3)
        moved[role.name] = np.clip(noisy, 0.03, 0.97).astype(np.float32)
    return Palette(**moved)


def mix(first: Field, second: Field, share: Field | float) -> Field:
    """`first` at share 0, `second` at share 1."""
    return first + (second - first) * np.float32(share)


def fractal_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    cells: tuple[int, int],
    *,
    octaves: int = 4,
    gain: float = 0.55,
) -> Field:
    """Noise of `shape` (rows, columns) that tiles: its coarsest octave has `cells` bumps."""
    total = np.zeros(shape, np.float32)
    amplitude = 1.0
    for _ in range(octaves):
        if cells[0] > shape[0] or cells[1] > shape[1]:
            break
        grid = np.pad(rng.uniform(-1, 1, cells).astype(np.float32), 2, mode="wrap")
        inner = (2, 2, 2 + cells[1], 2 + cells[0])
        image = Image.fromarray(grid).resize(shape[::-1], Image.Resampling.BICUBIC, box=inner)
        total += np.float32(amplitude) * np.asarray(image)
        amplitude *= gain
        cells = (2 * cells[0], 2 * cells[1])
    return total


def look_up(tile: Field, u: Field, v: Field) -> Field:
    """The tile repeated over the plane, read bilinearly at columns `u` and rows `v` (in tiles)."""
    rows, columns = tile.shape
    column, row = u * columns, v * rows
    left, top = np.floor(column), np.floor(row)
    x0, y0 = left.astype(np.int64) % columns, top.astype(np.int64) % rows
    x1, y1 = (x0 + 1) % columns, (y0 + 1) % rows
    upper = mix(tile[y0, x0], tile[y0, x1], column - left)
    lower = mix(tile[y1, x0], tile[y1, x1], column - left)
    return mix(upper, lower, row - top)


def disc(x: Field, y: Field, centre: tuple[float, float], radii: tuple[float, float]) -> Field:
    """Signed distance (nearly) to an ellipse along the axes."""
    scaled = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
    return ((scaled - 1) * min(radii)).astype(np.float32)


def box(
    x: Field,
    y: Field,
    corners: tuple[float, float, float, float],
    rounding: float = 0.0,
) -> Field:
    """Signed distance to a box given as left, top, right, bottom, with rounded corners."""
    left, top, right, bottom = corners
    outer_x = np.abs(x - (left + right) / 2) - (right - left) / 2 + rounding
    outer_y = np.abs(y - (top + bottom) / 2) - (bottom - top) / 2 + rounding
    outside = np.hypot(np.maximum(outer_x, 0), np.maximum(outer_y, 0))
    inside = np.minimum(np.maximum(outer_x, outer_y), 0)
    return (outside + inside - rounding).astype(np.float32)


def limb(
    x: Field,
    y: Field,
    start: tuple[float, float],
    end: tuple[float, float],
    radii: tuple[float, float],
) -> Field:
    """Signed distance (nearly) to a tapered rod with round ends."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    length_squared = along_x**2 + along_y**2 + 1e-9
    share = ((x - start[0]) * along_x + (y - start[1]) * along_y) / length_squared
    share = np.clip(share, 0, 1)
    across = np.hypot(x - start[0] - share * along_x, y - start[1] - share * along_y)
    return (across - radii[0] - share * (radii[1] - radii[0])).astype(np.float32)


class Canvas:
    """A square picture and its depth, painted from back to front.

    `rgb` is (S, S, 3) and `depth` (S, S), both in [0, 1]; `x` is (1, S) and `y` (S, 1).
    """

    def __init__(self, size: int) -> None:
        centres = ((np.arange(size) + 0.5) / size).astype(np.float32)
        self.size = size
        self.x: Field = centres[None, :]
        self.y: Field = centres[:, None]
        self.rgb: Field = np.zeros((size, size, 3), np.float32)
        self.depth: Field = np.zeros((size, size), np.float32)

    def cover(self, distance: Field, softness_px: float = 1.0) -> Field:
        """How much of each pixel lies inside the shape, with an edge of `softness_px` pixels."""
        return np.clip(0.5 - distance * np.float32(self.size / softness_px), 0, 1)

    def paint(
        self,
        cover: Field,
        colour: Field,
        *,
        light: npt.NDArray[np.floating] | float = 1.0,
        depth: float | None = None,
    ) -> None:
        """Blend a colour in, times `light` (shading and texture), and a depth if it has one."""
        lit = colour * np.asarray(light, np.float32)[..., None]
        self.rgb += (lit - self.rgb) * cover[..., None]
        if depth is not None:
            self.depth += (np.float32(depth) - self.depth) * cover

    def shade(self, factor: Field) -> None:
        """Multiply the picture by a factor per pixel."""
        self.rgb *= factor[..., None]

    def noise(self, rng: np.random.Generator, cells: tuple[int, int], octaves: int = 4) -> Field:
        """Fractal noise over the frame."""
        return fractal_noise(rng, (self.size, self.size), cells, octaves=octaves)
