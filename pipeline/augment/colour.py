"""Colours: brightness, contrast, saturation, hue and shift as one affine map per sample.

Each of the five is linear in a pixel's channels, so they and the normalisation are one 3 x 3 matrix
and a bias, and cost what one of them does. They follow one another in that order, without clipping
in between. Hue is turned in YIQ, about the grey axis at constant luma. That turns the same way as
HSV's hue (`hsv.py`), which is not linear, but it does not approximate it: HSV moves the luma, and
on composites the two lie further apart than HSV's is from no change (docs/decisions/0008).
N samples, S = the side.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.augment.config import AugmentConfig
from pipeline.augment.draws import Drawer, Floats, Stream
from pipeline.normalise import Normalisation

GREY = np.array([0.299, 0.587, 0.114])
"""Luma of red, green and blue (ITU-R BT.601), as Pillow and OpenCV have it."""

_YIQ = np.array([GREY, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB = np.linalg.inv(_YIQ)

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class ColourMaps:
    """Maps from values 0 to 255 to normalised ones: matrix @ value + bias + pivot * grey."""

    matrix: Singles
    """(N, 3, 3)"""

    bias: Singles
    """(N, 3)"""

    pivot: Singles
    """(N, 3): of the picture's mean grey, in [0, 1]; what contrast leaves where it is."""


def draw_colours(
    config: AugmentConfig, drawer: Drawer, normalisation: Normalisation, *, family: int = 0
) -> ColourMaps:
    """What becomes of the colours of N samples.

    Args:
        config: How much they may change.
        drawer: Of the batch.
        normalisation: Comes last.
        family: Added to the streams; 0, or `BACKGROUND` where it is drawn apart.
    """

    def drawn(reach: float, chance: float, stream: Stream) -> Floats:
        chosen = drawer.chosen(chance if reach else 0, stream - 1 + family)
        return drawer.around(0, reach, stream + family) * chosen

    brightness = 1 + drawn(config.brightness, config.brightness_chance, Stream.BRIGHTNESS)
    contrast = 1 + drawn(config.contrast, config.contrast_chance, Stream.CONTRAST)
    saturation = 1 + drawn(config.saturation, config.saturation_chance, Stream.SATURATION)
    hue = drawn(config.hue, config.hue_chance, Stream.HUE)
    shift = drawn(config.shift, config.shift_chance, Stream.SHIFT)

    std = np.array(normalisation.std)
    mixed = hue_matrices(hue) @ saturation_matrices(saturation)
    matrix = (brightness * contrast)[:, None, None] * mixed / (255 * std[:, None])
    # saturation and hue leave greys alone, so the pivot of the contrast passes through them
    return ColourMaps(
        matrix=matrix.astype(np.float32),
        bias=((shift[:, None] - np.array(normalisation.mean)) / std).astype(np.float32),
        pivot=(((1 - contrast) * brightness)[:, None] / std).astype(np.float32),
    )


def saturation_matrices(factors: Floats) -> Floats:
    """(N, 3, 3): distances from grey multiplied by (N,) factors."""
    weights = factors[:, None, None]
    return weights * np.eye(3) + (1 - weights) * np.broadcast_to(GREY, (3, 3))


def hue_matrices(turns: Floats) -> Floats:
    """(N, 3, 3): the chroma plane of YIQ turned by (N,) shares of a circle, red towards green."""
    angles = 2 * np.pi * turns
    turned = np.zeros((len(turns), 3, 3))
    turned[:, 0, 0] = 1
    turned[:, 1, 1] = turned[:, 2, 2] = np.cos(angles)
    turned[:, 1, 2], turned[:, 2, 1] = np.sin(angles), -np.sin(angles)
    return _RGB @ turned @ _YIQ


def mean_grey(pixels_NSS3: Tensor) -> Tensor:
    """(N, 1) float32 mean luma of uint8 RGB, in [0, 1]: exact sums, the same in any batch."""
    size = pixels_NSS3.shape[1]
    sums = pixels_NSS3.sum(2, dtype=torch.float32).sum(1, dtype=torch.float64)
    red, green, blue = (sums * weight for sums, weight in zip(sums.unbind(1), GREY, strict=True))
    return ((red + green + blue) / (255 * size * size)).float().unsqueeze(1)


def mix(planes_N3SS: Tensor, matrix_N33: Tensor, bias_N3: Tensor) -> Tensor:
    """Every pixel's colour times its sample's matrix, plus its bias."""
    columns = matrix_N33[..., None, None].unbind(2)
    # no matrix product: TF32 and autocast would round the images
    mixed = planes_N3SS[:, 0:1] * columns[0]
    mixed.addcmul_(planes_N3SS[:, 1:2], columns[1])
    mixed.addcmul_(planes_N3SS[:, 2:3], columns[2])
    return mixed.add_(bias_N3[..., None, None])
