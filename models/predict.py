"""Predictions on disk: images in, mask and depth PNGs and a panel out.

A `Predictor` is a trained network with what it needs to take raw pixels. `predict_files` runs it
over image files (one pair, or the pairs of two folders), `predict_set` over the batches of a set.
Files are decoded by a function that the caller hands in, so this module needs torch and Pillow
alone. Shapes: N images, 3 RGB channels, S = the network's input side in pixels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from models.panel import panel, restore
from models.prediction import Prediction

PANEL_ROWS = 8
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class Decoded(NamedTuple):
    """One image file, decoded for the network."""

    pixels: Tensor
    """(3, S, S) uint8 RGB, resized as in training."""

    original_size: tuple[int, int]
    """Height and width of the file's image in pixels."""


Decode = Callable[[Path, int], Decoded]
"""Reads an image file at a side of S pixels."""


class Pair(NamedTuple):
    """What one prediction is made from."""

    background: Path | None
    composite: Path


class SetBatch(Protocol):
    """What `predict_set` reads of a loader's batch; see `pipeline.batch.Batch`."""

    @property
    def background(self) -> Tensor | None: ...  # noqa: D102
    @property
    def composite(self) -> Tensor: ...  # noqa: D102
    @property
    def mask(self) -> Tensor: ...  # noqa: D102
    @property
    def depth(self) -> Tensor: ...  # noqa: D102
    @property
    def number(self) -> Tensor: ...  # noqa: D102
    @property
    def weight(self) -> Tensor: ...  # noqa: D102


class PixelPredictor(Protocol):
    """A `Predictor`, or an exported network (`models/exported.py`)."""

    @property
    def size(self) -> int: ...  # noqa: D102

    def from_pixels(self, background: Tensor | None, composite: Tensor) -> "Maps": ...  # noqa: D102


class Maps(NamedTuple):
    """Predictions as stored: (N, 1, S, S) float32 in [0, 1] on the CPU; None without the task."""

    mask: Tensor | None
    depth: Tensor | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictor:
    """A trained network and how its images are prepared."""

    network: nn.Module
    """Lies on `device`; it is put into evaluation mode for each call."""

    size: int
    """Side of its images in pixels."""

    mean: tuple[float, float, float]
    """Subtracted from each RGB channel of values in [0, 1], as in training."""

    std: tuple[float, float, float]
    """Divides each channel after that."""

    device: torch.device
    """Where the network runs."""

    autocast_dtype: torch.dtype | None = None
    """bfloat16 or float16 for mixed precision; None: float32."""

    def from_pixels(self, background: Tensor | None, composite: Tensor) -> Maps:
        """Predict from (N, 3, S, S) uint8 images."""
        return self(
            None if background is None else self._normalise(background),
            self._normalise(composite),
        )

    def __call__(self, background: Tensor | None, composite: Tensor) -> Maps:
        """Predict from normalised (N, 3, S, S) images."""
        self.network.eval()
        with (
            torch.inference_mode(),
            torch.autocast(
                self.device.type,
                dtype=self.autocast_dtype,
                enabled=self.autocast_dtype is not None,
            ),
        ):
            prediction: Prediction = self.network(background, composite)
        maps = (prediction.mask(), prediction.depth())
        return Maps(*(None if part is None else part.cpu() for part in maps))

    def _normalise(self, pixels_N3SS: Tensor) -> Tensor:
        mean, std = (
            torch.tensor(values, device=self.device).view(3, 1, 1)
            for values in (self.mean, self.std)
        )
        images = (pixels_N3SS.to(self.device).float() / 255 - mean) / std
        return images.contiguous(memory_format=torch.channels_last)


def pair_folders(backgrounds: Path | None, composites: Path) -> list[Pair]:
    """Pair every image of a folder with its background, sorted by name.

    Args:
        backgrounds: A folder with a background of the same stem for each composite, or the one
            background of all of them, or None for networks that look at the composite alone.
        composites: A folder of images, or one image.

    Raises:
        ValueError: There is no composite, or one lacks its background; all of these are named.
    """
    images = _images(composites)
    if not images:
        msg = f"{composites} holds no image ({', '.join(IMAGE_SUFFIXES)})"
        raise ValueError(msg)
    if backgrounds is None or not backgrounds.is_dir():
        return [Pair(backgrounds, image) for image in images]
    by_stem = {image.stem: image for image in _images(backgrounds)}
    missing = [image.name for image in images if image.stem not in by_stem]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        msg = (
            f"{len(missing)} composites have no background of the same name in {backgrounds} "
            f"({shown}); add them, or give one background file for all"
        )
        raise ValueError(msg)
    return [Pair(by_stem[image.stem], image) for image in images]


def predict_files(
    predictor: PixelPredictor,
    pairs: Sequence[Pair],
    out: Path,
    *,
    decode: Decode,
    original_size: bool = True,
    batch_size: int = 32,
) -> int:
    """Write STEM.mask.png and STEM.depth.png for each composite, and panel.png.

    Args:
        predictor: What predicts.
        pairs: Composites with their backgrounds.
        out: A folder; made if it is missing.
        decode: Reads an image file.
        original_size: Write at the composite's own size, otherwise at the network's.
        batch_size: Pairs that are decoded and predicted at once.

    Returns:
        How many predictions were written.

    Raises:
        ValueError: Two composites have the same stem, so one would overwrite the other, or only
            some have a background.
    """
    _check_pairs(pairs)
    out.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(pairs), batch_size):
        chunk = pairs[start : start + batch_size]
        composites = [decode(pair.composite, predictor.size) for pair in chunk]
        background = _backgrounds(chunk, predictor.size, decode)
        composite = torch.stack([image.pixels for image in composites])
        maps = predictor.from_pixels(background, composite)
        for row, (pair, image) in enumerate(zip(chunk, composites, strict=True)):
            size = image.original_size if original_size else None
            _write(out, pair.composite.stem, maps, row, size)
        if start == 0:
            shown = None if background is None else background / 255
            panel(shown, composite / 255, None, None, *maps, max_rows=PANEL_ROWS).save(
                out / "panel.png"
            )
    return len(pairs)


def predict_set(
    predictor: PixelPredictor,
    batches: Iterable[SetBatch],
    out: Path,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    stem: Callable[[int], str] = "{:06d}".format,
) -> int:
    """Write STEM.mask.png and STEM.depth.png for each sample of weight above 0, and panel.png.

    The set may be another than the one trained on: its batches become pixels again, which the
    predictor prepares as in training.

    Args:
        predictor: What predicts.
        batches: Normalised batches at the predictor's size.
        out: A folder; made if it is missing.
        mean: What was subtracted from each RGB channel of the batches.
        std: What each channel was divided by after that.
        stem: Names a sample by its number in the split.

    Returns:
        How many predictions were written.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = 0
    for batch in batches:
        background, composite = (
            None if images is None else restore_pixels(images, mean, std)
            for images in (batch.background, batch.composite)
        )
        assert composite is not None
        maps = predictor.from_pixels(background, composite)
        if written == 0:
            panel(
                batch.background,
                batch.composite,
                batch.mask,
                batch.depth,
                *maps,
                mean=mean,
                std=std,
                max_rows=PANEL_ROWS,
            ).save(out / "panel.png")
        for row in _counted(batch.weight):
            _write(out, stem(int(batch.number[row])), maps, row, None)
            written += 1
    return written


def restore_pixels(images_N3SS: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised images as the (N, 3, S, S) uint8 they were made from, exactly."""
    levels = restore(images_N3SS, mean, std) * 255
    return levels.round().clamp(0, 255).to(torch.uint8)


def _counted(weight: Tensor) -> Iterator[int]:
    return (row for row, value in enumerate(weight.tolist()) if value > 0)


def _images(path: Path) -> list[Path]:
    files = path.iterdir() if path.is_dir() else [path]
    return sorted(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES)


def _check_pairs(pairs: Sequence[Pair]) -> None:
    seen: dict[str, Path] = {}
    for _, path in pairs:
        if path.stem in seen:
            msg = f"{seen[path.stem]} and {path} would both be written as {path.stem}; rename one"
            raise ValueError(msg)
        seen[path.stem] = path
    without = [pair.composite for pair in pairs if pair.background is None]
    if 0 < len(without) < len(pairs):
        msg = (
            f"{len(without)} of {len(pairs)} pairs has no background: {without[0]}; "
            "give every composite one, or none"
        )
        raise ValueError(msg)


def _backgrounds(chunk: Sequence[Pair], size: int, decode: Decode) -> Tensor | None:
    """(N, 3, S, S) uint8, each file decoded once; None if no pair has one."""
    paths = [pair.background for pair in chunk if pair.background is not None]
    if not paths:
        return None
    pixels = {path: decode(path, size).pixels for path in dict.fromkeys(paths)}
    return torch.stack([pixels[path] for path in paths])


def _write(out: Path, stem: str, maps: Maps, row: int, size: tuple[int, int] | None) -> None:
    if maps.mask is not None:
        probability = _grey(maps.mask[row, 0], size)
        probability.point(lambda level: 255 * (level >= 128)).save(out / f"{stem}.mask.png")
    if maps.depth is not None:
        _grey(maps.depth[row, 0], size).save(out / f"{stem}.depth.png")


def _grey(values_SS: Tensor, size: tuple[int, int] | None) -> Image.Image:
    """An 8-bit image, bilinearly resized to (height, width) if asked."""
    image = Image.fromarray(values_SS.mul(255).round().to(torch.uint8).numpy())
    return image if size is None else image.resize(size[::-1], Image.Resampling.BILINEAR)
