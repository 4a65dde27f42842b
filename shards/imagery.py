"""What a conversion needs of JPEG and PNG: kind, size, and a decode that forgives nothing.

Pillow and DALI decode a JPEG with flipped bits without a word; simplejpeg in strict mode turns
libjpeg's warnings into errors, so only whole images pass. Images are hostile until decoded: what
a header or a number of scans could make a decoder do is bounded before the decoder is asked.
"""

import io
import struct
import zlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 1 << 24
"""A larger image is refused by its header: 4096 x 4096 decoded take 50 MB."""

MAX_SCANS = 100
"""Of a progressive JPEG; encoders write about ten, and each costs a pass over the whole image."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = struct.Struct(">4s2L5B")
_PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
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
        return _checked(Header("jpg", height, width, 1 if colours == "Gray" else 3))
    if data[:8] == _PNG and len(data) >= 8 + 4 + _PNG_HEADER.size:
        tag, width, height, depth, colour_type, *_ = _PNG_HEADER.unpack_from(data, 12)
        if tag != b"IHDR" or colour_type not in _PNG_CHANNELS:
            msg = "PNG header damaged"
            raise ImageError(msg)
        if depth > 8:
            msg = f"{depth} bits a channel; save it with 8"  # Pillow would clip, DALI would scale
            raise ImageError(msg)
        return _checked(Header("png", height, width, _PNG_CHANNELS[colour_type]))
    msg = "neither JPEG nor PNG"
    raise ImageError(msg)


def _checked(header: Header) -> Header:
    if not 0 < header.height * header.width <= MAX_PIXELS:
        msg = f"is {header.width} x {header.height} px, and {MAX_PIXELS} pixels are the most"
        raise ImageError(msg)
    return header


def check_size(header: Header, size: tuple[int, int]) -> None:
    """Refuse another size before a decoder allocates for it.

    Raises:
        ImageError: The image is not `size` (height, width).
    """
    if (header.height, header.width) != size:
        msg = f"is {header.width} x {header.height} px, the set is {size[1]} x {size[0]}"
        raise ImageError(msg)


def decode_sized(data: bytes, size: tuple[int, int], channels: int) -> Pixels:
    """Decode strictly an image that must be `size` (height, width); see `decode`.

    Raises:
        ImageError: It has another size, or any part of it is damaged.
    """
    header = read_header(data)
    check_size(header, size)
    return decode(data, header, channels)


def decode(data: bytes, header: Header, channels: int) -> Pixels:
    """Decode strictly to (H, W, channels) uint8; 3 channels are RGB, 1 is grey.

    Raises:
        ImageError: Any part of the image is damaged.
    """
    try:
        if header.kind == "jpg":
            _check_scans(data)
            return simplejpeg.decode_jpeg(data, "RGB" if channels == 3 else "GRAY", strict=True)
        with Image.open(io.BytesIO(_pixels_only(data)), formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
            return pixels.reshape(header.height, header.width, channels)
    except (ValueError, OSError, SyntaxError, struct.error) as error:
        msg = f"does not decode cleanly ({error})"
        raise ImageError(msg) from None


def check(data: bytes, header: Header, channels: int) -> None:
    """Refuse what `decode` would refuse, without making pixels of a JPEG.

    Raises:
        ImageError: Any part of the image is damaged.
    """
    if header.kind != "jpg":
        decode(data, header, channels)
        return
    _check_scans(data)
    check_codes(data, channels)


def check_codes(data: bytes | memoryview, channels: int) -> None:
    """Read every code of a JPEG that has no more than `MAX_SCANS` scans.

    Damage shows while codes are read, which takes 0.6 of the time of decoding; an eighth of the
    size is what libjpeg makes of them with the least work.

    Raises:
        ImageError: Any part of the image is damaged.
    """
    colours = "RGB" if channels == 3 else "GRAY"
    try:
        simplejpeg.decode_jpeg(data, colours, strict=True, min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        msg = f"does not decode cleanly ({error})"
        raise ImageError(msg) from None


def _check_scans(data: bytes) -> None:
    """A scan of ten bytes costs a pass over all pixels: 64 MB of them are hours."""
    if data.count(b"\xda") <= MAX_SCANS:  # half the time of searching for two bytes
        return
    scans = data.count(b"\xff\xda")
    if scans > MAX_SCANS:
        msg = f"JPEG of {scans} scans, more than the {MAX_SCANS} of any encoder"
        raise ImageError(msg)


def _pixels_only(data: bytes) -> bytes:
    """A PNG less everything that is not its pixels (text, profiles, animation, transparency).

    Pillow unpacks text and profiles, allocates anew at a second header, and takes a PNG without
    its end. Here every chunk must be there and match its CRC.
    """
    at, kept = len(_PNG), [_PNG]
    while at + 12 <= len(data):
        length, tag = struct.unpack_from(">L4s", data, at)
        end = at + 12 + length
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]).to_bytes(4) != data[end - 4 : end]:
            msg = f"PNG chunk at byte {at} is damaged"
            raise ImageError(msg)
        if (tag == b"IHDR") != (at == len(_PNG)):
            msg = f"PNG has a second header at byte {at}"
            raise ImageError(msg)
        if tag in _PNG_PIXELS:
            kept.append(data[at:end])
        if tag == b"IEND":
            return b"".join(kept)
        at = end
    msg = "PNG ends early"
    raise ImageError(msg)
