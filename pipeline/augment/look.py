"""What a picture looks like: blur, HSV, colours, noise; drawn once for composite and background.

N samples, S = the side.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pipeline.augment.blur import blur
from pipeline.augment.colour import ColourMaps, Singles, draw_colours, mix
from pipeline.augment.config import AugmentConfig
from pipeline.augment.draws import Drawer, Stream
from pipeline.augment.hsv import shift_hsv
from pipeline.augment.noise import halves, normal
from pipeline.normalise import Normalisation

Send = Callable[[npt.NDArray[np.generic]], Tensor]
"""Brings a small array to the device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What happens to N pictures; 0 is nothing."""

    blur: Singles
    """(N,) standard deviation in pixels."""

    hsv: Singles
    """(N, 3) added to hue, saturation and value."""

    colours: ColourMaps
    """The normalisation included."""

    noise: Singles
    """(N,) standard deviation as a share of the full range."""

    noise_keys: npt.NDArray[np.int32]
    """(N, 2)"""


def draw_look(
    config: AugmentConfig, drawer: Drawer, normalisation: Normalisation, *, family: int = 0
) -> Look:
    """Draw for N pictures; `family` as in `draw_colours`."""

    def drawn(reaches: list[float], chance: float, first: int, *, both_ways: bool) -> Singles:
        chosen = drawer.chosen(chance if any(reaches) else 0, first + family)
        amounts = [
            drawer.between(-reach if both_ways else 0, reach, first + 1 + number + family)
            for number, reach in enumerate(reaches)
        ]
        return (np.stack(amounts, axis=1) * chosen[:, None]).astype(np.float32)

    hsv = [config.hsv_hue, config.hsv_saturation, config.hsv_value]
    return Look(
        blur=drawn([config.blur], config.blur_chance, Stream.BLUR_CHANCE, both_ways=False)[:, 0],
        hsv=drawn(hsv, config.hsv_chance, Stream.HSV_CHANCE, both_ways=True),
        colours=draw_colours(config, drawer, normalisation, family=family),
        noise=drawn([config.noise], config.noise_chance, Stream.NOISE_CHANCE, both_ways=False)[
            :, 0
        ],
        noise_keys=halves(drawer.words(Stream.NOISE_KEY + family)),
    )


def apply_look(
    planes_N3SS: Tensor,
    look: Look,
    grey_N1: Tensor | None,
    config: AugmentConfig,
    normalisation: Normalisation,
    send: Send,
) -> Tensor:
    """Values 0 to 255 to normalised ones, changed.

    Args:
        planes_N3SS: float32; not kept.
        look: What happens to them.
        grey_N1: What contrast leaves where it is; None: nothing depends on it.
        config: What is done at all.
        normalisation: Of the batch.
        send: Brings arrays to the device.
    """
    if config.blurs:
        rows = np.flatnonzero(look.blur)
        planes_N3SS = for_rows(
            planes_N3SS, rows, send, lambda some: blur(some, send(look.blur[rows]), config.blur)
        )
    if config.changes_hsv:
        shifted = np.flatnonzero(look.hsv.any(1))
        planes_N3SS = for_rows(
            planes_N3SS, shifted, send, lambda some: shift_hsv(some, send(look.hsv[shifted]))
        )
    bias = send(look.colours.bias)
    if grey_N1 is not None:
        bias = bias + send(look.colours.pivot) * grey_N1
    if config.mixes_colours:
        images = mix(planes_N3SS, send(look.colours.matrix), bias)
    else:
        images = normalisation.planes(planes_N3SS)
    if config.adds_noise:
        images = _add_noise(images, look, normalisation, send)
    return normalisation.clamp_(images) if config.recolours else images


def for_rows(
    planes: Tensor, rows: npt.NDArray[np.intp], send: Send, change: Callable[[Tensor], Tensor]
) -> Tensor:
    """Change some samples, known on the processor, and leave the others: they cost nothing."""
    if len(rows) == len(planes):
        return change(planes)
    if len(rows):
        places = send(rows)
        planes.index_copy_(0, places, change(planes.index_select(0, places)))
    return planes


def _add_noise(images: Tensor, look: Look, normalisation: Normalisation, send: Send) -> Tensor:
    rows = np.flatnonzero(look.noise)
    sigmas = look.noise[rows, None] / np.array(normalisation.std, np.float32)

    def noisy(some: Tensor) -> Tensor:
        noise = normal(send(look.noise_keys[rows]), tuple(some.shape[1:]))
        return noise.mul_(send(sigmas)[..., None, None]).add_(some)

    return for_rows(images, rows, send, noisy)
