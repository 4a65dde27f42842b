"""Procedural foregrounds: people, beasts, birds, vases, chairs and plants as RGBA cut-outs.

A figure is a list of parts, painted from back to front in colours of the scenes' palettes.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from shards.synthetic.brush import Field, box, disc, limb, mix
from shards.synthetic.cutout import Figure


def draw_figure(
    rng: np.random.Generator, height_px: int, kind_number: int
) -> npt.NDArray[np.uint8]:
    """A cut-out (h, w, 4) cropped to its outline; consecutive numbers take turns in kind."""
    figure = Figure(rng, height_px)
    _KINDS[kind_number % len(_KINDS)](figure)
    return figure.cutout()


def _sign(rng: np.random.Generator) -> int:
    """-1 or 1: which way a figure looks."""
    return int(rng.choice([-1, 1]))


def _person(figure: Figure) -> None:
    rng, x, y = figure.rng, figure.x, figure.y
    skin = mix(figure.palette.accent, figure.palette.light, rng.uniform(0.2, 0.8))
    coat, trousers, hair = figure.colour(), figure.colour(), figure.palette.dark
    shoulder, hip, build = 0.2, 0.52, rng.uniform(0.95, 1.4)
    for side in (-1, 1):
        knee = (side * rng.uniform(0.04, 0.11), 0.75)
        foot = (knee[0] + rng.uniform(-0.05, 0.06), 0.97)
        thigh = limb(x, y, (side * 0.04, hip), knee, (0.062 * build, 0.042))
        shin = limb(x, y, knee, foot, (0.042, 0.028))
        figure.part(np.minimum(thigh, shin), trousers)
        figure.part(limb(x, y, foot, (foot[0] + 0.05, 0.978), (0.026, 0.02)), hair)
    torso = limb(x, y, (0, shoulder + 0.06), (0, hip), (0.1 * build, 0.085 * build))
    chest = limb(
        x, y, (-0.08 * build, shoulder + 0.03), (0.08 * build, shoulder + 0.03), (0.045,) * 2
    )
    figure.part(np.minimum(torso, chest), coat, second=figure.colour())
    figure.part(limb(x, y, (0, shoulder), (0.004, 0.13), (0.032, 0.03)), skin)
    for side in (-1, 1):
        start = (side * 0.115 * build, shoulder + 0.03)
        bent = rng.uniform(0.02, 0.16)
        elbow = (start[0] + side * bent, 0.36 + rng.uniform(-0.04, 0.02))
        hand = (elbow[0] - side * rng.uniform(-0.08, 0.14), 0.36 + rng.uniform(-0.08, 0.16))
        upper, lower = (
            limb(x, y, start, elbow, (0.042, 0.034)),
            limb(x, y, elbow, hand, (0.034, 0.024)),
        )
        figure.part(np.minimum(upper, lower), coat, second=None)
        figure.part(disc(x, y, hand, (0.028, 0.03)), skin)
    figure.part(disc(x, y, (0, 0.085), (0.06, 0.078)), skin)
    cap = np.maximum(disc(x, y, (0, 0.075), (0.068, 0.075)), y - rng.uniform(0.05, 0.08))
    figure.part(cap, hair, rough=0.008)
    if rng.random() < 0.4:  # a skirt or a long coat
        skirt = limb(x, y, (0, 0.42), (0, 0.68), (0.09, 0.15))
        figure.part(np.maximum(skirt, y - 0.72), coat, second=figure.colour())


def _beast(figure: Figure) -> None:
    rng, x, y = figure.rng, figure.x * _sign(figure.rng), figure.y
    fur, second, dark = figure.colour(), figure.colour(), figure.palette.dark
    fringe = rng.uniform(0.003, 0.012)
    legs, neck = rng.uniform(0.3, 0.45), rng.uniform(0.0, 0.22)
    belly = 0.98 - legs
    for start, shade in ((-0.3, 0.75), (0.22, 0.75), (-0.34, 1.0), (0.27, 1.0)):
        foot = start + rng.uniform(-0.06, 0.06)
        knee = ((start + foot) / 2 + 0.02, 0.98 - legs / 2)
        upper = limb(x, y, (start, belly - 0.08), knee, (0.075, 0.042))
        leg = np.minimum(upper, limb(x, y, knee, (foot, 0.96), (0.042, 0.03)))
        figure.part(leg, fur * shade, second=second * shade, rough=fringe)
    tail = (-0.55 - rng.uniform(0, 0.08), belly - 0.12 + rng.uniform(-0.25, 0.2))
    figure.part(limb(x, y, (-0.38, belly - 0.15), tail, (0.03, 0.016)), fur, rough=fringe)
    body = limb(x, y, (-0.3, belly - 0.12), (0.24, belly - 0.13), (0.15, 0.16))
    figure.part(body, fur, second=second, rough=fringe, roundness=0.14)
    head = (0.42 + neck * 0.3, max(belly - 0.26 - neck, 0.14))
    figure.part(
        limb(x, y, (0.26, belly - 0.16), head, (0.11, 0.07)), fur, second=second, rough=fringe
    )
    muzzle = (min(head[0] + 0.14, 0.62), head[1] + 0.05)
    figure.part(limb(x, y, head, muzzle, (0.085, 0.045)), fur, rough=fringe)
    figure.part(disc(x, y, (muzzle[0] + 0.03, muzzle[1]), (0.02, 0.018)), dark)
    figure.part(disc(x, y, (head[0] + 0.04, head[1] - 0.015), (0.013, 0.013)), dark)
    ear = (head[0] - 0.06, head[1] - rng.uniform(0.08, 0.13))
    figure.part(limb(x, y, (head[0] - 0.02, head[1] - 0.04), ear, (0.035, 0.012)), fur * 0.8)


def _bird(figure: Figure) -> None:
    rng, x, y = figure.rng, figure.x * _sign(figure.rng), figure.y
    coat, second, horn = figure.colour(), figure.colour(), figure.palette.accent
    legs, neck = rng.uniform(0.15, 0.35), rng.uniform(0.05, 0.25)
    belly = 0.97 - legs
    for start in (-0.05, 0.06):
        foot = (start + rng.uniform(-0.06, 0.06), 0.97)
        figure.part(limb(x, y, (start, belly - 0.08), foot, (0.03, 0.012)), horn)
        figure.part(limb(x, y, foot, (foot[0] + 0.08, 0.985), (0.013, 0.008)), horn)
    tail = (-0.46, belly - rng.uniform(0.05, 0.3))
    figure.part(limb(x, y, (-0.18, belly - 0.16), tail, (0.07, 0.03)), coat * 0.8, rough=0.012)
    body = limb(x, y, (-0.14, belly - 0.15), (0.12, belly - 0.2), (0.14, 0.15))
    figure.part(body, coat, second=second, rough=0.006, roundness=0.13)
    head = (0.26 + neck * 0.2, max(belly - 0.36 - neck, 0.1))
    figure.part(limb(x, y, (0.14, belly - 0.24), head, (0.1, 0.05)), coat, rough=0.006)
    figure.part(disc(x, y, head, (0.085, 0.08)), coat * 0.95, rough=0.006)
    beak = limb(x, y, (head[0] + 0.06, head[1]), (head[0] + 0.17, head[1] + 0.025), (0.03, 0.006))
    figure.part(beak, horn)
    figure.part(disc(x, y, (head[0] + 0.025, head[1] - 0.02), (0.013, 0.013)), figure.palette.dark)
    wing = limb(x, y, (0.06, belly - 0.2), (-0.28, belly - 0.1), (0.1, 0.03))
    figure.part(wing, second * 0.9, second=coat, rough=0.01)


def _vase(figure: Figure) -> None:
    rng, x, y = figure.rng, figure.x, figure.y
    glaze, second = figure.colour(), figure.colour()
    knots = np.array([0.0, 0.06, 0.2, 0.45, 0.75, 0.95, 1.0])
    radii = np.array([0.14, 0.12, rng.uniform(0.06, 0.12), rng.uniform(0.16, 0.34),
                      rng.uniform(0.14, 0.3), 0.12, 0.15])  # fmt: skip
    rows = np.linspace(-0.1, 1.1, 241)
    smooth = np.convolve(np.pad(np.interp(rows, knots, radii), 12, mode="edge"), np.ones(25) / 25)
    profile = np.interp(y, rows, smooth[24:-24]).astype(np.float32)
    for side in (-1, 1):
        if rng.random() < 0.75:
            handle = disc(x, y, (side * 0.2, 0.28), (0.13, 0.15))
            figure.part(np.abs(handle) - np.float32(0.026), glaze * 0.85)
    body: Field = np.maximum((np.abs(x) - profile) * 0.8, np.abs(y - 0.5) - 0.49)
    figure.part(body, glaze, second=second, roundness=0.2)
    for band in rng.uniform(0.3, 0.9, rng.integers(0, 3)):
        figure.part(np.maximum(body, np.abs(y - band) - 0.025), second, roundness=0.2)
    figure.part(disc(x, y, (0, 0.02), (0.13, 0.018)), figure.palette.dark)


def _chair(figure: Figure) -> None:
    rng, x, y = figure.rng, figure.x * _sign(figure.rng), figure.y
    wood, cloth = figure.colour(), figure.colour()
    seat, wide = rng.uniform(0.52, 0.6), rng.uniform(0.2, 0.27)
    legs = (
        (0.0, 0.0, 0.9),
        (2 * wide + 0.08, 0.02, 0.9),
        (-0.02, -0.03, 0.97),
        (2 * wide, 0.02, 0.97),
    )
    for start, lean, bottom in legs:
        foot = (start - wide + lean, bottom)
        figure.part(limb(x, y, (start - wide, seat), foot, (0.034, 0.026)), wood * 0.85)
    for post in (-wide - 0.01, wide):
        figure.part(limb(x, y, (post, 0.04), (post, seat), (0.03, 0.034)), wood)
    if rng.random() < 0.5:
        for bar in np.linspace(0.1, seat - 0.14, rng.integers(2, 5)):
            rail = limb(x, y, (-wide, float(bar)), (wide, float(bar)), (0.03, 0.03))
            figure.part(rail, wood)
    else:
        figure.part(
            box(x, y, (-wide, 0.05, wide, seat - 0.12), 0.03), cloth, second=figure.colour()
        )
    figure.part(box(x, y, (-wide - 0.05, seat - 0.03, wide + 0.12, seat + 0.05), 0.03), cloth)


def _plant(figure: Figure) -> None:
    rng, x, y = figure.rng, figure.x, figure.y
    pot, leaf = figure.colour(), mix(figure.palette.ground, figure.colour(), 0.4)
    rim = rng.uniform(0.66, 0.74)
    for _ in range(rng.integers(8, 15)):
        angle, reach = rng.normal(0, 0.75), rng.uniform(0.3, 0.62)
        tip = (float(np.clip(reach * np.sin(angle), -0.6, 0.6)),
               float(np.clip(rim - reach * np.cos(angle) * 1.05, 0.04, 0.9)))  # fmt: skip
        heart = (tip[0] * 0.6, rim + (tip[1] - rim) * 0.65)
        figure.part(limb(x, y, (0, rim), heart, (0.012, 0.01)), leaf * 0.6)
        stalk = (tip[0] * 0.4, (rim + heart[1]) / 2)
        outer, inner = (limb(x, y, heart, end, (0.06, 0.009)) for end in (tip, stalk))
        figure.part(np.minimum(outer, inner), leaf * rng.uniform(0.75, 1.25), rough=0.004)
    taper = 0.17 - 0.16 * (y - rim)
    figure.part(np.maximum(np.abs(x) - taper, np.abs(y - (rim + 0.98) / 2) - (0.98 - rim) / 2), pot,
                second=figure.colour(), roundness=0.12)  # fmt: skip
    figure.part(box(x, y, (-0.19, rim - 0.02, 0.19, rim + 0.05), 0.015), pot * 1.1, roundness=0.12)


_KINDS: tuple[Callable[[Figure], None], ...] = (_person, _beast, _bird, _vase, _chair, _plant)
