"""How pixels become files: the kinds of image the reference systems store.

Every function is of a module's level and takes pixels and a JPEG quality, so that a layout can name
the ones it wants and any process can run them.
"""

import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

Bytes8 = npt.NDArray[np.uint8]

_FAST = 2  # a level for the many: 0.55 ms for 224 px, and a third more bytes than 1.45 ms give

Encode = Callable[[Bytes8, int], bytes]
"""(H, W, 1) grey and a JPEG quality to a file's bytes."""


class Encodings(NamedTuple):
    """What a layout stores masks and depth maps as."""

    mask: Encode
    depth: Encode


def rgb_jpeg(rgb: Bytes8, quality: int) -> bytes:
    """(H, W, 3) as a JPEG with halved colour resolution."""
    return simplejpeg.encode_jpeg(rgb, quality, "RGB", "420")


def grey_jpeg(grey: Bytes8, quality: int) -> bytes:
    """A JPEG of one channel."""
    return simplejpeg.encode_jpeg(grey, quality, "GRAY", "Gray")


def grey_as_rgb_jpeg(grey: Bytes8, quality: int) -> bytes:
    """A JPEG of three equal channels."""
    return rgb_jpeg(np.repeat(grey, 3, axis=2), quality)


def stretched_jpeg(grey: Bytes8, quality: int) -> bytes:
    """A JPEG of one channel, its values from 0 to 255 whatever they were."""
    return grey_jpeg(stretch(grey), quality)


def grey_png(grey: Bytes8, _quality: int) -> bytes:
    """A PNG of one channel."""
    return png(grey[..., 0], _FAST)


def stretch(grey: Bytes8) -> Bytes8:
    """From the darkest and brightest value to 0 and 255; a flat image becomes black."""
    lowest = int(grey.min())
    span = max(int(grey.max()) - lowest, 1)
    levels = (np.arange(span + 1) * 255 + span // 2) // span
    return levels.astype(np.uint8)[grey - np.uint8(lowest)]


def png(pixels: Bytes8, level: int = 6) -> bytes:
    """(H, W), (H, W, 3) or (H, W, 4) as it is, deflated at a level from 1 to 9."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()
