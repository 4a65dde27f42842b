"""Hillsides with trees, and shores with rocks."""

import numpy as np

from shards.synthetic.brush import disc, fractal_noise, limb, mix
from shards.synthetic.stage import Stage


def draw_hillside(stage: Stage) -> None:
    """Ridges behind a meadow with trees."""
    canvas, rng, palette = stage.canvas, stage.rng, stage.palette
    stage.sky()
    layers = int(rng.integers(2, 5))
    for layer in range(layers):
        nearness = (layer + 1) / layers
        base = stage.horizon + 0.06 - (1 - nearness) * rng.uniform(0.15, 0.3)
        rough = fractal_noise(rng, (4, canvas.size), (1, 2), octaves=6)[:1]
        edge = base + rough * (0.09 - 0.05 * nearness)
        haze = mix(palette.cool, palette.wall, 0.6 * (1 - nearness))
        colour = mix(haze, palette.ground, 0.75 * nearness)
        light = 0.85 + 0.28 * canvas.noise(rng, (6, 9), 5) - 0.3 * (canvas.y - edge)
        canvas.paint(canvas.cover(edge - canvas.y, 1.5), colour, light=light)
    grass = fractal_noise(rng, (128, 128), (10, 10), octaves=4, gain=0.75)
    stage.horizon += 0.04
    stage.ground(palette.ground, grass, 0.35, 0.22)
    stage.horizon -= 0.04
    for foot in np.sort(rng.uniform(stage.horizon + 0.05, 0.93, rng.integers(1, 6))):
        _tree(stage, float(rng.uniform(0, 1)), float(foot))


def _tree(stage: Stage, middle: float, foot: float) -> None:
    canvas, rng, palette = stage.canvas, stage.rng, stage.palette
    height = 0.15 + 0.75 * (foot - stage.horizon)
    stage.shadow(middle, foot, height * 0.3)
    warp = canvas.noise(rng, (12, 12), 3) * 0.07 * height
    trunk = limb(canvas.x, canvas.y, (middle, foot), (middle, foot - height * 0.7),
                 (height * 0.05, height * 0.02))  # fmt: skip
    stage.thing(trunk + warp * 0.1, palette.dark, foot, texture=0.2)
    leaves = mix(palette.ground, palette.dark, rng.uniform(0.2, 0.6))
    for share in (0.5, 0.72, 0.9):
        width = height * (1.05 - share) * 0.6
        shift = rng.normal(0, 0.04 * height)
        crown = disc(canvas.x, canvas.y, (middle + shift, foot - share * height), (width, width))
        stage.thing(crown + warp, leaves * rng.uniform(0.9, 1.25), foot, texture=0.3)


def draw_shore(stage: Stage) -> None:
    """Sea to the horizon, a beach, rocks."""
    canvas, rng, palette = stage.canvas, stage.rng, stage.palette
    stage.sky()
    waves = fractal_noise(rng, (128, 128), (24, 6), octaves=4, gain=0.7)
    stage.ground(palette.cool, waves, 0.5, 0.3)
    foam = fractal_noise(rng, (4, canvas.size), (1, 3), octaves=5)[:1]
    beach = stage.horizon + rng.uniform(0.12, 0.3) + 0.03 * foam
    sand = 1 + 0.13 * canvas.noise(rng, (30, 12), 4) - 0.25 * (canvas.y - beach)
    canvas.paint(canvas.cover(beach - 0.015 - canvas.y, 4), palette.light)
    canvas.paint(canvas.cover(beach - canvas.y, 3), palette.ground, light=sand)
    for foot in np.sort(rng.uniform(stage.horizon + 0.04, 0.95, rng.integers(2, 7))):
        width = 0.02 + 0.22 * (foot - stage.horizon) * rng.uniform(0.5, 1.2)
        middle = float(rng.uniform(0, 1))
        stage.shadow(middle, float(foot), width * 1.1)
        rock = disc(canvas.x, canvas.y, (middle, float(foot) - width * 0.35), (width, width * 0.55))
        warp = canvas.noise(rng, (9, 9), 3) * width * 0.14
        colour = mix(palette.dark, palette.ground, rng.uniform(0.1, 0.7))
        stage.thing(rock + warp, colour, float(foot), texture=0.3)
