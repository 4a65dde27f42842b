"""Depth as reference 003 has it: a matplotlib figure, plasma colours in a white frame.

The figure has the composite's size, and its margins are matplotlib's own (left 0.125, right 0.1,
bottom 0.11, top 0.12 of it); between them lies the map, stretched to the full range and shrunk to
what is left: at 224 px columns 28 to 201 and rows 27 to 199.
"""

import math

import numpy as np
from PIL import Image

from shards.colormap import PLASMA
from shards.synthetic.encoding import Bytes8, rgb_jpeg, stretch

_COLOURS = np.frombuffer(bytes.fromhex(PLASMA), np.uint8).reshape(256, 3)
_LEFT, _TOP, _RIGHT, _BOTTOM = 0.125, 0.12, 0.9, 0.89
_WHITE = 255


def plasma_figure_jpeg(grey: Bytes8, quality: int) -> bytes:
    """(S, S, 1) as a framed figure of the same size, an RGB JPEG."""
    size = grey.shape[0]
    left, top = round(_LEFT * size), round(_TOP * size)
    right, bottom = math.ceil(_RIGHT * size), math.ceil(_BOTTOM * size)
    whole = Image.fromarray(stretch(grey)[..., 0])
    shrunk = whole.resize((right - left, bottom - top), Image.Resampling.HAMMING)
    figure = np.full((size, size, 3), _WHITE, np.uint8)
    figure[top:bottom, left:right] = _COLOURS[np.asarray(shrunk)]
    return rgb_jpeg(figure, quality)
