"""What a conversion needs of JPEG and PNG: kind, size, and a decode that forgives nothing.

Pillow and DALI decode a JPEG with flipped bits without a word; simplejpeg in strict mode turns
libjpeg's warnings into errors, so only whole images pass.
"""

import io
import struct
import warnings
import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

Pixels = npt.NDArray[np.uint8]

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = struct.Struct(">4s2L5B")
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}


class ImageError(Exception):
    """An image is not fit to train on; the message is the reason."""


class Header(NamedTuple):
    """What an image says of itself, read without decoding."""

    kind: str
    """`jpg` or `png`, by content, whatever the name says."""
    height: int
    width: int
    channels: int
    """1 grey, 3 colour."""


def read_header(data: bytes) -> Header:
    """Kind and size of an encoded image.

    Raises:
        ImageError: It is neither JPEG nor PNG, or its header is damaged.
    """
    if data[:2] == b"\xff\xd8":
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError as error:
            msg = f"JPEG header damaged ({error})"
            raise ImageError(msg) from None
        if colours == "CMYK":
            msg = "CMYK colours; save it as RGB"
            raise ImageError(msg)
        return Header("jpg", height, width, 1 if colours == "Gray" else 3)
    if data[:8] == _PNG and len(data) >= 8 + 4 + _PNG_HEADER.size:
        tag, width, height, _, colour_type, *_ = _PNG_HEADER.unpack_from(data, 12)
        if tag != b"IHDR" or colour_type not in _PNG_CHANNELS:
            msg = "PNG header damaged"
            raise ImageError(msg)
        return Header("png", height, width, _PNG_CHANNELS[colour_type])
    msg = "neither JPEG nor PNG"
    raise ImageError(msg)


def check_size(header: Header, size: tuple[int, int]) -> None:
    """Refuse another size before a decoder allocates for it.

    Raises:
        ImageError: The image is not `size` (height, width).
    """
    if (header.height, header.width) != size:
        msg = f"is {header.width} x {header.height} px, the set is {size[1]} x {size[0]}"
        raise ImageError(msg)


def decode(data: bytes, header: Header, channels: int) -> Pixels:
    """Decode strictly to (H, W, channels) uint8; 3 channels are RGB, 1 is grey.

    Raises:
        ImageError: Any part of the image is damaged.
    """
    try:
        if header.kind == "jpg":
            return simplejpeg.decode_jpeg(data, "RGB" if channels == 3 else "GRAY", strict=True)
        _check_chunks(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
                return pixels.reshape(header.height, header.width, channels)
    except (ValueError, OSError, SyntaxError, struct.error, Warning) as error:
        msg = f"does not decode cleanly ({error})"
        raise ImageError(msg) from None


def _check_chunks(data: bytes) -> None:
    """Pillow takes a PNG without its end; every chunk must be there and match its CRC."""
    at = len(_PNG)
    while at + 12 <= len(data):
        length, tag = struct.unpack_from(">L4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data) or zlib.crc32(data[at + 4 : end]).to_bytes(4) != data[end : end + 4]:
            msg = f"PNG chunk at byte {at} is damaged"
            raise ImageError(msg)
        if tag == b"IEND":
            return
        at = end + 4
    msg = "PNG ends early"
    raise ImageError(msg)
