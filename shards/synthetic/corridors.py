"""Halls and streets: two walls that run to a vanishing point."""

import numpy as np

from shards.synthetic.brush import Field, box, fractal_noise, look_up, mix
from shards.synthetic.stage import RELIEF, Stage, floor_tile


def draw_hall(stage: Stage) -> None:
    """An indoor passage under a ceiling."""
    _corridor(stage, open_air=False)


def draw_street(stage: Stage) -> None:
    """A road between houses, under a sky."""
    _corridor(stage, open_air=True)


def _corridor(stage: Stage, *, open_air: bool) -> None:
    """Two walls that run to a vanishing point, with windows or pictures, and what ends them."""
    canvas, rng, palette = stage.canvas, stage.rng, stage.palette
    centre = stage.vanishing
    floor_drop = float(rng.uniform(0.3, 0.55))
    reach = float(rng.uniform(3.0, 6.0))
    if open_air:
        stage.sky()
    else:
        rise = np.maximum(stage.horizon - canvas.y, 0.02)
        beams = 0.12 * (np.sin(3.5 / rise) > 0.6) * np.clip(rise * 6, 0, 1)
        ceiling = 0.9 + 0.3 * rise - beams + 0.05 * canvas.noise(rng, (4, 4), 4)
        canvas.paint(np.ones_like(canvas.depth), palette.light, light=ceiling)
    if open_air:
        _road(stage)
    else:
        wood = mix(palette.ground, palette.accent, rng.uniform(0, 0.5))
        stage.ground(wood, floor_tile(rng), 0.25, 0.16)
    aside = np.maximum(np.abs(canvas.x - centre), 1e-3)
    away = 0.5 / aside  # distance along the wall, 1 at the frame's edge
    height = (canvas.y - stage.horizon) / aside  # of the wall's point: 0 at the eye
    for side in (-1, 1):
        _facade(stage, away, height, reach, floor_drop, side * (canvas.x - centre), open_air)
    end = 0.5 / reach
    closing = box(canvas.x, canvas.y,
                  (centre - end, 0.0 if not open_air else stage.horizon - end * 1.2,
                   centre + end, stage.horizon + end * floor_drop / 0.5))  # fmt: skip
    if not open_air:
        closing = np.maximum(closing, stage.horizon - end * 1.8 - canvas.y)
    canvas.paint(canvas.cover(closing), mix(palette.wall, palette.cool, 0.4), light=0.9)
    foot = stage.horizon + end * floor_drop / 0.5
    corners = (centre - end * 0.4, stage.horizon - end * 0.6, centre + end * 0.4, foot)
    door = box(canvas.x, canvas.y, corners, 0.01)
    canvas.paint(canvas.cover(door), palette.dark)


def _road(stage: Stage) -> None:
    """Asphalt with a broken middle line, between pavements."""
    canvas, rng, palette = stage.canvas, stage.rng, stage.palette
    rough = fractal_noise(rng, (128, 128), (12, 12), octaves=4, gain=0.8)
    grey = palette.ground.mean() * np.ones(3, np.float32)
    stage.ground(mix(palette.dark, grey, rng.uniform(0.3, 0.9)), rough, 0.35, 0.15)
    drop = np.maximum(canvas.y - stage.horizon, 1e-3)
    across = (canvas.x - stage.vanishing) / drop  # a line to the vanishing point is constant
    px = canvas.size * drop
    for edge in (-1, 1):
        pavement = np.clip((edge * across - 0.55) * px + 0.5, 0, 1) * (canvas.y > stage.horizon)
        slabs = 0.95 + 0.1 * look_up(rough, across, 0.3 / drop + 0 * across)
        canvas.paint(pavement, mix(palette.light, palette.ground, 0.6), light=slabs)
    dashes = (np.sin(2.2 / drop) > 0) & (drop > 0.04)
    middle = np.clip((0.03 - np.abs(across)) * px + 0.5, 0, 1) * dashes
    canvas.paint(middle, palette.light)


def _facade(
    stage: Stage,
    away: Field,
    height: Field,
    reach: float,
    floor_drop: float,
    side: Field,
    open_air: bool,
) -> None:
    canvas, rng, palette = stage.canvas, stage.rng, stage.palette
    length = float(rng.uniform(0.8, 1.4))
    house = np.minimum((away / length).astype(np.int64), 15)
    tops = rng.uniform(0.9, 2.4, 16) if open_air else np.full(16, 1.8)
    shades = rng.integers(1, 6, 16) if open_air else np.full(16, rng.integers(1, 6))
    walls = np.stack([palette.colours[i] for i in shades])[house]
    inside = np.minimum(floor_drop - height, height + tops[house].astype(np.float32))
    inside = np.minimum(inside, (reach - away) * 0.5)
    cover = np.clip(inside * 0.35 / away * canvas.size + 0.5, 0, 1) * (side > 0)
    bricks = fractal_noise(rng, (128, 128), (8, 8), octaves=4, gain=0.7)
    along = np.broadcast_to(away, height.shape)
    rough = look_up(bricks, along * 0.5, height * 0.5) + look_up(bricks, along * 3, height * 3)
    light = 1.05 - 0.08 * away + 0.08 * rough
    light = light * (0.8 if (stage.light_x > 0.5) == bool(side[0, -1] > 0) else 1.0)
    canvas.paint(cover, walls, light=light)
    # windows (or pictures) on a grid of wall coordinates, soft where they become small
    pitch, storey = length / int(rng.integers(2, 4)), 0.62 if open_air else 1.4
    across = np.abs((along / pitch) % 1 - 0.5) - 0.28
    upward = np.abs((height / storey) % 1 - 0.42) - 0.27
    ledge = 0.04 - np.abs((height / storey + 0.58) % 1 - 0.5)
    ledge = np.clip(0.5 + ledge * canvas.size * 0.12 / away, 0, 1)
    canvas.paint(0.5 * ledge * cover, palette.light, light=light)
    opening = np.clip(0.5 - np.maximum(across, upward) * canvas.size * 0.12 / away, 0, 1)
    glass = mix(palette.dark, palette.cool, rng.uniform(0.1, 0.9))
    row = np.floor(height / storey)  # only whole windows, between the floor and the eaves
    band = ((row + 0.7) * storey < floor_drop - 0.05) & ((row + 0.1) * storey > 0.1 - tops[house])
    tint = 0.9 + 0.5 * look_up(
        bricks, np.floor(along / pitch) * 0.37, np.floor(height / storey) * 0.53
    )
    canvas.paint(opening * cover * band, glass, light=tint)
    nearer = RELIEF * cover * np.clip(1.2 / away, 0, 1)
    target = np.float32(stage.depth_at(stage.horizon + 0.12))
    canvas.depth += (np.minimum(target, canvas.depth) - canvas.depth) * nearer
