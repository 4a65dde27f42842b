"""The backgrounds and foregrounds of a synthetic set: drawn, or read from the user's folders.

Both come out ready to paste: a background as a square JPEG with its depth, a foreground as an
RGBA cut-out cropped to what shows.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from shards.error import ShardError
from shards.synthetic.compositing import FIGURE, HEIGHTS, SCENE, WIDEST, Backdrop
from shards.synthetic.cutout import crop_to_alpha
from shards.synthetic.encoding import Bytes8, rgb_jpeg
from shards.synthetic.figures import draw_figure
from shards.synthetic.scenes import draw_scene, plain_ramp

RELIEF = 0.1
"""How strongly the brightness of a user's picture shows in its depth."""

BETTER = 10
"""Backgrounds are stored at so much more JPEG quality than what is pasted on them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureTask:
    """One background or foreground to be made."""

    seed: int
    number: int
    """Counts from 0."""

    size: int
    """Side of the frame in pixels."""

    quality: int
    path: Path | None
    """The user's picture; None: drawn."""


def list_pictures(folder: Path, wanted: int | None) -> list[Path]:
    """The first `wanted` pictures of a folder (all if None), by name.

    Raises:
        ShardError: It is no folder, or holds no picture or fewer than wanted.
    """
    if not folder.is_dir():
        msg = f"{folder} is no folder; give a folder of pictures"
        raise ShardError(msg)
    formats = Image.registered_extensions()
    suffixes = {suffix for suffix, name in formats.items() if name in Image.OPEN}
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        msg = f"{folder} holds no pictures; give a folder with pictures directly in it"
        raise ShardError(msg)
    if wanted is not None and len(found) < wanted:
        msg = (
            f"{folder} holds {len(found)} pictures, {wanted} are wanted; add more or ask for fewer"
        )
        raise ShardError(msg)
    return found[:wanted]


def make_background(task: PictureTask) -> Backdrop | ShardError:
    """Draw or read a background; a picture's fault is returned, to be told with all others."""
    rng = np.random.default_rng((task.seed, SCENE, task.number))
    quality = max(task.quality, min(95, task.quality + BETTER))
    if task.path is None:
        scene = draw_scene(rng, task.size, task.number)
        return Backdrop(jpeg=rgb_jpeg(scene.rgb, quality), depth=scene.depth, ramp=scene.ramp)
    try:
        picture = _read(task.path, draft=2 * task.size).convert("RGB")
    except ShardError as error:
        return error
    fitted = ImageOps.fit(picture, (task.size, task.size), Image.Resampling.LANCZOS)
    soft = fitted.convert("L").filter(ImageFilter.GaussianBlur(task.size / 60))
    brightness = np.asarray(soft, dtype=np.float32)
    ramp = 255 * plain_ramp(rng, task.size)
    depth = ramp[:, None] + RELIEF * (brightness - brightness.mean(axis=1, keepdims=True))
    return Backdrop(
        jpeg=rgb_jpeg(np.asarray(fitted), quality),
        depth=np.rint(np.clip(depth, 15, 220)).astype(np.uint8),
        ramp=np.rint(ramp).astype(np.uint8),
    )


def make_foreground(task: PictureTask) -> Bytes8 | ShardError:
    """Draw or read a cut-out, (h, w, 4); a picture's fault is returned."""
    height = round(1.1 * HEIGHTS[1] * task.size)
    if task.path is None:
        return draw_figure(
            np.random.default_rng((task.seed, FIGURE, task.number)), height, task.number
        )
    try:
        return _read_cutout(task.path, (round(WIDEST * task.size), height))
    except ShardError as error:
        return error


def _read_cutout(path: Path, largest: tuple[int, int]) -> Bytes8:
    picture = _read(path)
    if not picture.has_transparency_data:
        msg = f"{path.name} has no alpha channel"
        raise ShardError(msg)
    cropped = _shown(path, picture.convert("RGBA"))
    if cropped[..., 3].min() == 255:
        msg = f"{path.name} is opaque everywhere, so its mask would be a rectangle"
        raise ShardError(msg)
    image = Image.fromarray(cropped)
    image.thumbnail(largest, Image.Resampling.LANCZOS)
    return _shown(path, image)


def _shown(path: Path, image: Image.Image) -> Bytes8:
    rgba = np.asarray(image)
    if not rgba[..., 3].any():
        msg = f"{path.name} is wholly transparent"
        raise ShardError(msg)
    return crop_to_alpha(rgba)


def _read(path: Path, draft: int | None = None) -> Image.Image:
    """Decode a picture upright.

    Raises:
        ShardError: Pillow cannot; the message is the fault alone.
    """
    try:
        with Image.open(path) as image:
            if draft is not None:
                image.draft("RGB", (draft, draft))
            return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        msg = f"{path.name} cannot be read ({error})"
        raise ShardError(msg) from None
