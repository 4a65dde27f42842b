"""Rooms: a wall with windows and pictures, furniture on a floor."""

import numpy as np

from shards.synthetic.brush import Field, box, disc, limb, mix
from shards.synthetic.stage import Stage, floor_tile


def draw_room(stage: Stage) -> None:
    """A wall and what hangs on it, a floor and what stands on it."""
    canvas, rng, palette = stage.canvas, stage.rng, stage.palette
    floor = stage.horizon
    wall = mix(palette.wall, palette.light, rng.uniform(0, 0.8))
    stripes = np.sin(canvas.x * rng.uniform(60, 160)) * rng.choice([0, 0.035])
    glow = np.hypot(canvas.x - stage.light_x, canvas.y - 0.2)
    paper = 1.12 - 0.35 * glow + stripes + 0.05 * canvas.noise(rng, (5, 5), 5)
    canvas.paint(np.ones_like(canvas.depth), wall, light=paper)
    cover = mix(palette.ground, palette.dark, rng.uniform(0, 0.5))
    stage.ground(mix(cover, palette.accent, rng.uniform(0, 0.3)), floor_tile(rng), 0.3, 0.16)
    skirting = box(canvas.x, canvas.y, (-1, floor - 0.03, 2, floor))
    canvas.paint(canvas.cover(skirting), mix(palette.light, wall, 0.4))
    for left in rng.permutation([0.05, 0.37, 0.69])[: rng.integers(1, 4)]:
        corner = (float(left + rng.uniform(0, 0.06)), float(rng.uniform(0.06, 0.14)))
        (_window if rng.random() < 0.45 else _painting)(stage, corner, floor)
    if rng.random() < 0.6:
        middle, foot = rng.uniform(0.3, 0.7), floor + (1 - floor) * rng.uniform(0.35, 0.6)
        rug = disc(canvas.x, canvas.y, (middle, foot), (rng.uniform(0.2, 0.4), (1 - floor) * 0.25))
        canvas.paint(canvas.cover(rug), palette.accent, light=0.9 + 0.2 * _rings(rug))
    for foot in np.sort(rng.uniform(floor + 0.03, floor + 0.2, rng.integers(1, 4))):
        piece = (_sofa, _cabinet, _table)[rng.integers(3)]
        piece(stage, float(rng.uniform(0.0, 0.75)), float(foot))


def _rings(distance: Field) -> Field:
    return np.sin(distance * 140).astype(np.float32)


def _window(stage: Stage, corner: tuple[float, float], floor: float) -> None:
    canvas, rng, palette = stage.canvas, stage.rng, stage.palette
    left, top = corner
    right, bottom = left + float(rng.uniform(0.18, 0.26)), floor * float(rng.uniform(0.55, 0.75))
    canvas.paint(canvas.cover(box(canvas.x, canvas.y, (left, top, right, bottom))), palette.light)
    half = ((left + right) / 2, (top + bottom) / 2)
    inset = 0.015
    view = 1.05 + 0.15 * canvas.noise(rng, (4, 6), 4)
    for x0, x1 in ((left, half[0]), (half[0], right)):
        for y0, y1 in ((top, half[1]), (half[1], bottom)):
            pane = box(canvas.x, canvas.y, (x0 + inset, y0 + inset, x1 - inset, y1 - inset))
            hills = np.clip((canvas.y - half[1]) * 14, 0, 1)[..., None]
            outside = mix(mix(palette.wall, palette.light, 0.5), palette.cool, hills)
            canvas.paint(canvas.cover(pane), outside, light=view)
    for edge in (left - 0.02, right + 0.02):
        folds = 0.9 + 0.15 * np.sin(canvas.x * 260) + 0 * canvas.y
        curtain = box(canvas.x, canvas.y, (edge - 0.025, top - 0.03, edge + 0.025, floor - 0.05))
        canvas.paint(canvas.cover(curtain, 1.5), palette.accent, light=folds)


def _painting(stage: Stage, corner: tuple[float, float], floor: float) -> None:
    canvas, rng, palette = stage.canvas, stage.rng, stage.palette
    left, top = corner
    right, bottom = left + float(rng.uniform(0.12, 0.25)), floor * float(rng.uniform(0.4, 0.65))
    frame = box(canvas.x, canvas.y, (left, top, right, bottom))
    canvas.shade(1 - 0.3 * canvas.cover(frame - 0.01, 6))
    canvas.paint(canvas.cover(frame), mix(palette.dark, palette.accent, rng.uniform(0, 1)))
    first, second, third = (palette.colours[i] for i in rng.permutation(6)[:3])
    blots = np.clip(2.5 * canvas.noise(rng, (5, 5), 4), 0, 1)[..., None]
    ground = np.clip((canvas.y - (top + bottom) / 2) * 20, 0, 1)[..., None]
    subject = mix(mix(first, second, ground), third, blots)
    canvas.paint(canvas.cover(frame + 0.014), subject, light=0.95)


def _sofa(stage: Stage, left: float, foot: float) -> None:
    canvas, palette = stage.canvas, stage.palette
    width, height = stage.rng.uniform(0.28, 0.42), stage.rng.uniform(0.16, 0.24)
    colour = palette.colours[stage.rng.integers(1, 6)]
    right = left + width
    stage.shadow((left + right) / 2, foot, width * 0.55)
    back = box(canvas.x, canvas.y, (left, foot - height, right, foot - 0.02), 0.03)
    seat = box(canvas.x, canvas.y, (left, foot - height * 0.5, right, foot), 0.03)
    stage.thing(back, colour * 0.85, foot)
    stage.thing(seat, colour, foot)
    for start in (left - 0.03, right - 0.03):
        arm = box(canvas.x, canvas.y, (start, foot - height * 0.7, start + 0.06, foot), 0.025)
        stage.thing(arm, colour * 0.95, foot)


def _cabinet(stage: Stage, left: float, foot: float) -> None:
    canvas, rng, palette = stage.canvas, stage.rng, stage.palette
    width, height = rng.uniform(0.14, 0.26), rng.uniform(0.2, 0.45)
    right, top = left + width, foot - height
    wood = mix(palette.ground, palette.dark, rng.uniform(0, 0.6))
    stage.shadow((left + right) / 2, foot, width * 0.6)
    stage.thing(box(canvas.x, canvas.y, (left, top, right, foot), 0.006), wood, foot, texture=0.15)
    levels = int(rng.integers(2, 5))
    for level in range(levels):
        y0 = top + 0.012 + level * (height - 0.012) / levels
        drawer = (left + 0.012, y0, right - 0.012, y0 + (height - 0.012) / levels - 0.012)
        stage.thing(box(canvas.x, canvas.y, drawer, 0.004), wood * 1.18, foot, texture=0.15)
        knob = disc(canvas.x, canvas.y, ((left + right) / 2, (drawer[1] + drawer[3]) / 2),
                    (0.008, 0.008))  # fmt: skip
        stage.thing(knob, palette.accent, foot)


def _table(stage: Stage, left: float, foot: float) -> None:
    canvas, rng, palette = stage.canvas, stage.rng, stage.palette
    width, height = rng.uniform(0.2, 0.34), rng.uniform(0.14, 0.2)
    right, top = left + width, foot - height
    wood = mix(palette.dark, palette.ground, rng.uniform(0, 0.8))
    stage.shadow((left + right) / 2, foot, width * 0.55)
    for leg in (left + 0.02, right - 0.02, left + 0.06, right - 0.06):
        rod = limb(canvas.x, canvas.y, (leg, top), (leg, foot), (0.009, 0.006))
        stage.thing(rod, wood * 0.8, foot)
    stage.thing(box(canvas.x, canvas.y, (left, top - 0.02, right, top + 0.01), 0.006), wood, foot)
    stand = (left + width * rng.uniform(0.25, 0.75), top - 0.02)
    shade_at = (stand[0], stand[1] - 0.13)
    stage.thing(limb(canvas.x, canvas.y, stand, shade_at, (0.012, 0.006)), palette.dark, foot)
    stage.thing(disc(canvas.x, canvas.y, shade_at, (0.055, 0.04)), palette.light, foot)
