"""Single images: JPEG or PNG content in, a uint8 array out, strictly.

Strictly means that what libjpeg only warns of is an error: a JPEG whose scan was damaged decodes
"fine" in DALI and Pillow, to noise.
"""

import io
from typing import Literal

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

Colour = Literal["RGB", "GRAY"]
Pixels = npt.NDArray[np.uint8]

COLOURS: tuple[Colour, Colour, Colour] = ("RGB", "GRAY", "GRAY")
"""What composite, mask and depth are decoded to."""

MAX_PIXELS = 1 << 26
"""Larger images are refused before they are decoded."""

_PNG = b"\x89PNG"
_PNG_DEPTH_AT = 24


class DecodeError(Exception):
    """Content that is no whole image; the message says why."""


def decode(
    content: bytes | memoryview, colour: Colour, *, at_least: int = 0, into: Pixels | None = None
) -> Pixels:
    """Decode one image.

    Args:
        content: JPEG or PNG, told apart by their first bytes.
        colour: What to give; colour content asked for as GRAY becomes its luma.
        at_least: Sides in pixels under which a JPEG must not be scaled down; 0 decodes in full.
        into: Memory to decode into if the image has exactly its height and width; what it holds
            is lost in any case. simplejpeg 1.9 leaks 4 kB when a JPEG is larger than that: not for
            images of any size.

    Returns:
        (H, W, 3) or (H, W, 1); lies in `into` if that has the same height and width.

    Raises:
        DecodeError: The content is damaged, no image, or too large.
    """
    if content[:4] == _PNG:
        return _decode_png(content, colour, into)
    if into is not None:
        # one call for the usual case: damage and a larger image than expected fail alike, below
        try:
            return _decode_jpeg(content, colour, at_least, into)
        except ValueError:
            pass
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(content)
        _check_size(width, height)
        return _decode_jpeg(content, colour, at_least, None)
    except ValueError as error:
        raise _undecodable(error) from None


def _decode_jpeg(
    content: bytes | memoryview, colour: Colour, at_least: int, into: Pixels | None
) -> Pixels:
    return simplejpeg.decode_jpeg(
        content, colour, min_height=at_least, min_width=at_least, min_factor=1, buffer=into
    )


def _decode_png(content: bytes | memoryview, colour: Colour, into: Pixels | None) -> Pixels:
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            _check_size(image.width, image.height)
            if content[_PNG_DEPTH_AT] > 8:
                msg = "it has 16 bits a channel; save it with 8"  # Pillow would clip grey to white
                raise DecodeError(msg)
            pixels = np.array(image.convert("RGB" if colour == "RGB" else "L"))
    except (OSError, SyntaxError, ValueError) as error:
        raise _undecodable(error) from None
    if into is not None and into.shape[:2] == pixels.shape[:2]:
        into[...] = pixels.reshape(into.shape)
    return pixels.reshape(*pixels.shape[:2], -1)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        msg = f"it has {width} x {height} pixels, over the limit of {MAX_PIXELS}"
        raise DecodeError(msg)


def _undecodable(error: Exception) -> DecodeError:
    return DecodeError(f"it cannot be decoded ({error})")
