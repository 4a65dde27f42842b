"""Procedural backgrounds: rooms, halls, streets, hillsides and shores, each with its depth.

A scene has a horizon, a palette, a light and a ground plane in perspective; things stand on the
plane with a soft shadow. Depth is analytic: near is dark, a ramp by rows that things bend
towards the row where they stand.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.synthetic.brush import Field
from shards.synthetic.corridors import draw_hall, draw_street
from shards.synthetic.outdoors import draw_hillside, draw_shore
from shards.synthetic.rooms import draw_room
from shards.synthetic.stage import Stage, depth_ramp


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A background and what stands in it."""

    rgb: npt.NDArray[np.uint8]
    """(S, S, 3)."""

    depth: npt.NDArray[np.uint8]
    """(S, S), near is dark."""

    ramp: npt.NDArray[np.uint8]
    """(S,) the depth of an object by the row of its foot."""


def draw_scene(rng: np.random.Generator, size: int, kind_number: int) -> Scene:
    """A scene of `size` x `size` pixels; consecutive numbers take turns in kind."""
    kind = _KINDS[kind_number % len(_KINDS)]
    stage = Stage(rng, size, *kind.horizon)
    kind.draw(stage)
    canvas = stage.canvas
    # the lens: light falls off towards the corners, the sensor adds a little grain
    centre_x, centre_y = rng.uniform(0.35, 0.65, 2)
    corner = np.square(canvas.x - centre_x) + np.square(canvas.y - centre_y)
    canvas.shade(1.04 - rng.uniform(0.2, 0.5) * corner + 0.06 * canvas.noise(rng, (2, 2), 2))
    canvas.rgb += rng.normal(0, 0.008, canvas.rgb.shape).astype(np.float32)
    wobble = 0.012 * canvas.noise(rng, (3, 3), 3)
    return Scene(
        rgb=_levels(canvas.rgb),
        depth=_levels(np.clip(canvas.depth + wobble, 0.06, 0.87)),
        ramp=_levels(stage.ramp),
    )


def plain_ramp(rng: np.random.Generator, size: int) -> Field:
    """A depth ramp by rows for a picture of which nothing is known, (S,) in [0, 1]."""
    rows = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    return depth_ramp(rows, rng.uniform(0.3, 0.6), rng.uniform(0.55, 0.85), rng.uniform(0.08, 0.16))


def _levels(values: Field) -> npt.NDArray[np.uint8]:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class _Kind:
    draw: Callable[[Stage], None]
    horizon: tuple[float, float]
    """Lowest and highest share of the frame's height above the ground plane."""


_KINDS = (
    _Kind(draw_room, (0.55, 0.72)),
    _Kind(draw_hall, (0.38, 0.55)),
    _Kind(draw_street, (0.4, 0.58)),
    _Kind(draw_hillside, (0.35, 0.55)),
    _Kind(draw_shore, (0.3, 0.5)),
)
