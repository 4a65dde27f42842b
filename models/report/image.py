"""Pictures inside a page."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

GAP_PX = 3
_QUALITY = 92


def data_uri(picture: Image.Image, *, exact: bool = False) -> str:
    """A picture as text: WebP, which takes a quarter of the PNG.

    Args:
        picture: Any.
        exact: Without loss, where single coloured pixels matter.
    """
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=exact, quality=_QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def in_a_row(tiles: Iterable[npt.NDArray[np.uint8]]) -> Image.Image:
    """Tiles of (S, S, 3) side by side, on transparent ground."""
    images = [Image.fromarray(tile) for tile in tiles]
    side = images[0].width
    canvas = Image.new("RGBA", (len(images) * (side + GAP_PX) - GAP_PX, side))
    for column, image in enumerate(images):
        canvas.paste(image, (column * (side + GAP_PX), 0))
    return canvas


def read_picture(path: Path) -> Image.Image | None:
    """A picture of the run; None if it cannot be read, as while it is being written."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError):  # what Pillow raises of a file cut short
        return None
