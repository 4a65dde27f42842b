"""A canvas with a horizon, a light and a ground plane: what every scene is painted on."""

import numpy as np

from shards.synthetic.brush import (
    Canvas,
    Field,
    Palette,
    disc,
    draw_palette,
    fractal_noise,
    look_up,
    mix,
)

RELIEF = 0.5
"""How far the depth of a thing moves from the ramp behind it to the row where it stands."""


def depth_ramp(rows: Field, horizon: float, far: float, near: float) -> Field:
    """Falls slowly to the horizon, then as the distance along a plane does, down to `near`."""
    above = far - 0.12 * far * np.minimum(rows / horizon, 1)
    below = np.clip((rows - horizon) / (1 - horizon), 0, 1)
    bend = 0.55
    falling = bend * (1 - below) / (below + bend)
    return (near + (above - near) * falling).astype(np.float32)


class Stage:
    """A canvas with a horizon, and the few moves that every scene is made of."""

    def __init__(self, rng: np.random.Generator, size: int, lowest: float, highest: float) -> None:
        self.rng = rng
        self.canvas = Canvas(size)
        self.palette: Palette = draw_palette(rng)
        self.horizon = float(rng.uniform(lowest, highest))
        far, near = rng.uniform(0.6, 0.85), rng.uniform(0.07, 0.16)
        self.ramp = depth_ramp(self.canvas.y[:, 0], self.horizon, far, near)
        self.canvas.depth += self.ramp[:, None]
        self.light_x = float(rng.uniform(-0.3, 1.3))
        self.vanishing = float(rng.uniform(0.35, 0.65))
        self.grain = fractal_noise(rng, (128, 128), (24, 24), octaves=3, gain=0.8)

    def depth_at(self, foot: float) -> float:
        """The ramp at a row in [0, 1]."""
        row = min(max(int(foot * self.canvas.size), 0), self.canvas.size - 1)
        return float(self.ramp[row])

    def sky(self) -> None:
        """A gradient to the horizon, and clouds."""
        canvas, rng = self.canvas, self.rng
        height = np.clip(canvas.y / self.horizon, 0, 1)[..., None]
        top = mix(self.palette.wall, self.palette.cool, rng.uniform(0.2, 0.8))
        bottom = mix(top, self.palette.light, 0.75)
        canvas.rgb[:] = mix(top, bottom, height)
        clouds = canvas.noise(rng, (5, 2), 5) + rng.uniform(-0.5, 0.2)
        canvas.paint(0.8 * np.clip(clouds * 1.5, 0, 1), self.palette.light, light=1.03)

    def ground(self, colour: Field, pattern: Field, scale: float, strength: float) -> None:
        """The plane below the horizon, textured by a tile in perspective."""
        canvas = self.canvas
        drop = np.maximum(canvas.y - self.horizon, 1e-3)
        u = (canvas.x - self.vanishing) * scale / (drop + 0.04)
        v = np.broadcast_to(scale * 0.6 / (drop + 0.04), u.shape)
        fade = np.clip(drop * 6, 0, 1)  # what is finer than a pixel far away is left out
        fine = 0.5 * look_up(self.grain, 3 * u, 3 * v) * np.clip(drop * 3 - 0.2, 0, 1)
        light = 1 + strength * (fade * look_up(pattern, u, v) + fine) - 0.25 * (drop - 0.15)
        inside = np.broadcast_to(canvas.cover(self.horizon - canvas.y), light.shape)
        canvas.paint(inside, colour, light=light)

    def shadow(self, middle: float, foot: float, width: float) -> None:
        """A soft dark ellipse on the ground, away from the light."""
        canvas = self.canvas
        lean = 0.4 * width * np.sign(0.5 - self.light_x)
        distance = disc(canvas.x, canvas.y, (middle + lean, foot), (width, max(width * 0.18, 0.01)))
        canvas.shade(1 - 0.45 * canvas.cover(distance, canvas.size * width * 0.12))

    def thing(self, distance: Field, colour: Field, foot: float, *, texture: float = 0.1) -> None:
        """A solid shape standing at a row: lit from the side, textured, nearer than its back."""
        canvas = self.canvas
        cover = canvas.cover(distance)
        rough = canvas.noise(self.rng, (6, 6), 3)
        side = 1.1 - 0.35 * np.abs(canvas.x - self.light_x)
        canvas.paint(cover, colour, light=side + texture * rough)
        canvas.depth += (np.float32(self.depth_at(foot)) - canvas.depth) * (RELIEF * cover)


def floor_tile(rng: np.random.Generator) -> Field:
    """Boards, tiles or carpet, as a tile for `look_up`."""
    rows, columns = np.mgrid[0:128, 0:128].astype(np.float32)
    grain = fractal_noise(rng, (128, 128), (2, 16), octaves=4)
    kind = rng.integers(3)
    if kind == 0:  # boards run away from us
        shades = np.repeat(rng.uniform(-0.7, 0.7, 8), 16).astype(np.float32)
        return 0.5 * grain + shades[None, :] - 1.2 * (columns % 16 < 1)
    if kind == 1:  # tiles in two shades
        checks = np.where((rows // 32 + columns // 32) % 2 == 0, 1.0, -1.0)
        return (0.3 * grain + checks - (rows % 32 < 2) - (columns % 32 < 2)).astype(np.float32)
    return fractal_noise(rng, (128, 128), (16, 16), octaves=3, gain=0.8)
