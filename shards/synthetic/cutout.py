"""The frame a figure is drawn in: rounded, textured parts with soft edges, and their outline.

y runs from 0 at the top to 1 at the foot, x from -0.7 to 0.7; both are bent by noise, so that
outlines are organic.
"""

import numpy as np
import numpy.typing as npt

from shards.synthetic.brush import Field, Palette, draw_palette, fractal_noise, mix

HALF_WIDTH = 0.7
"""Of a figure's frame, in units of its height."""

MARGIN = 0.04
"""Empty border around a figure's frame, in units of its height."""


class Figure:
    """Parts painted over one another, and their common outline."""

    def __init__(self, rng: np.random.Generator, height_px: int) -> None:
        rows, columns = round(height_px * (1 + 2 * MARGIN)), round(height_px * 2 * HALF_WIDTH)
        shape = (rows, columns)
        y = (np.arange(rows, dtype=np.float32)[:, None] + 0.5) / height_px - MARGIN
        x = (np.arange(columns, dtype=np.float32)[None, :] + 0.5) / height_px - HALF_WIDTH
        self.rng = rng
        self.palette: Palette = draw_palette(rng, jitter=0.09, contrast=1.35)
        self.px_per_unit = height_px
        bend = rng.uniform(0.008, 0.022)
        self.x: Field = x + bend * fractal_noise(rng, shape, (4, 4), octaves=3)
        self.y: Field = y + bend * fractal_noise(rng, shape, (4, 4), octaves=3)
        self.rgb: Field = np.zeros((*shape, 3), np.float32)
        self.alpha: Field = np.zeros(shape, np.float32)
        self.grain = fractal_noise(rng, shape, (12, 12), octaves=4, gain=0.8)
        self.pattern = self._pattern(shape)
        self.light = (float(rng.choice([-1, 1]) * rng.uniform(0.4, 0.9)), -0.6)

    def _pattern(self, shape: tuple[int, int]) -> Field:
        """Spots, stripes or nothing: how much of a part's second colour shows, in [0, 1]."""
        rng = self.rng
        kind = rng.integers(4)
        if kind == 0:
            spots = fractal_noise(rng, shape, (14, 18), octaves=2)
            return np.clip(spots * 5 - 1, 0, 1)
        if kind == 1:
            slant = self.x * rng.normal(0, 1) + self.y
            return np.clip(np.sin(slant * rng.uniform(35, 70)) * 4, 0, 1)
        if kind == 2:
            patches = fractal_noise(rng, shape, (4, 5), octaves=4)
            return np.clip(patches * 8, 0, 1)
        return np.zeros(shape, np.float32)

    def colour(self) -> Field:
        """One of the palette's six."""
        return self.palette.colours[self.rng.integers(6)]

    def part(
        self,
        distance: Field,
        colour: Field,
        *,
        second: Field | None = None,
        rough: float = 0.0,
        roundness: float = 0.06,
    ) -> None:
        """Paint a shape over the rest.

        Args:
            distance: Signed distance, in units of the figure's height.
            colour: Of the part.
            second: Colour of the figure's pattern on it.
            rough: Amplitude of a fringe (fur, leaves) on the outline.
            roundness: Depth over which the shading turns at the edge.
        """
        fringed = distance + rough * self.grain
        cover = np.clip(0.5 - fringed * self.px_per_unit / 1.5, 0, 1)
        slope_y, slope_x = np.gradient(distance, 1 / self.px_per_unit)
        turned = np.clip(1 + distance / roundness, 0, 1) ** 2
        towards = slope_x * self.light[0] + slope_y * self.light[1]
        light = 1 - 0.12 * turned + 0.33 * turned * towards + 0.09 * self.grain
        pigment = colour if second is None else mix(colour, second, self.pattern[..., None])
        self.rgb += (pigment * light[..., None] - self.rgb) * cover[..., None]
        self.alpha += (1 - self.alpha) * cover

    def cutout(self) -> npt.NDArray[np.uint8]:
        """The figure as RGBA, cropped to what shows."""
        rgb = self.rgb / np.maximum(self.alpha, 1e-3)[..., None]  # not premultiplied
        rgba = np.concatenate([rgb, self.alpha[..., None]], axis=2)
        levels = np.rint(np.clip(rgba, 0, 1) * 255).astype(np.uint8)
        return crop_to_alpha(levels)


def crop_to_alpha(rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The part of an (h, w, 4) picture that is not wholly transparent; all of it must not be."""
    rows = np.flatnonzero(rgba[..., 3].any(axis=1))
    columns = np.flatnonzero(rgba[..., 3].any(axis=0))
    return np.ascontiguousarray(rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
