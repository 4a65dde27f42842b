"""Images that are not fit to train on as they are, and can be made so without loss.

A mask with three equal channels becomes grey; a colour-mapped depth picture becomes the grey map
it was drawn from. What was repaired is stored once more as a grey PNG; all else keeps its bytes.
"""

from dataclasses import dataclass

from shards.colormap import Frame, Pixels, cut_out, invert
from shards.imagery import Header, ImageError, check_size, decode
from shards.statistics import encode_png

MAX_FIGURE_PX = 2048
_GREY_SPREAD = 24
"""Colour noise of a grey image that was saved as a colour JPEG: its channels differ by no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthStorage:
    """How depth maps are stored in the sources."""

    encoding: str
    """grey, plasma or magma."""
    frame: Frame | None
    """Where the map lies in a figure; None: it fills the picture."""

    @property
    def is_picture(self) -> bool:
        """Whether every depth map has to be turned back into grey."""
        return self.encoding != "grey"


def fit_as_is(part: str, header: Header, depth: DepthStorage) -> bool:
    """Whether an image's own bytes can be kept."""
    if part == "depth" and depth.is_picture:
        return False
    return part not in {"mask", "depth"} or header.channels == 1


def repaired(
    part: str, data: bytes, header: Header, depth: DepthStorage, size: tuple[int, int]
) -> Pixels:
    """The (H, W, 1) grey pixels that a mask or depth map should have been.

    Args:
        part: mask or depth.
        data: The encoded image.
        header: Its header.
        depth: How depth maps are stored.
        size: Height and width of the composites.

    Raises:
        ImageError: The image is damaged, or is no such picture.
    """
    if part == "depth" and depth.is_picture:
        return _map_of(data, header, depth, size)[..., None]
    check_size(header, size)
    colours = decode(data, header, 3).astype("int16")
    spread = (colours.max(axis=2) - colours.min(axis=2)).mean()
    if spread > _GREY_SPREAD:
        msg = f"is a colour picture where a grey {part} belongs"
        if part == "depth":
            msg += "; say how it is coded in a layout file (docs/layouts.md)"
        raise ImageError(msg)
    return decode(data, header, 1)


def _map_of(data: bytes, header: Header, depth: DepthStorage, size: tuple[int, int]) -> Pixels:
    if max(header.height, header.width) > MAX_FIGURE_PX:
        msg = f"is {header.width} x {header.height} px, more than any figure of a data set"
        raise ImageError(msg)
    grey = invert(decode(data, header, 1)[..., 0], depth.encoding)
    if depth.frame is not None:
        if depth.frame.right > header.width or depth.frame.bottom > header.height:
            msg = f"is {header.width} x {header.height} px, smaller than the others' frame"
            raise ImageError(msg)
        return cut_out(grey, depth.frame, size)
    check_size(header, size)
    return grey


def encode_repaired(pixels_HW1: Pixels) -> bytes:
    """The repaired image's new bytes."""
    return encode_png(pixels_HW1[..., 0])
