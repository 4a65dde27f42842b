"""Pictures of samples in a grid: tensors in, one PIL image out.

A row per sample; the columns background, composite, mask, predicted mask, its error, depth,
predicted depth and its error, as far as they are known. An error is |predicted - true|, black where
there is none; depth's is drawn 4 times as bright, since most of it is small. Shapes: N samples, H x
W pixels.
"""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

GAP_PX = 4
TITLE_PX = 14
DEPTH_GAIN = 4


def panel(
    background: Tensor | None,
    composite: Tensor,
    mask: Tensor | None,
    depth: Tensor | None,
    predicted_mask: Tensor | None,
    predicted_depth: Tensor | None,
    *,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    max_rows: int = 8,
    max_px: int | None = None,
    with_errors: bool = False,
) -> Image.Image:
    """Draw the first samples of a batch.

    Args:
        background: (N, 3, H, W) RGB, normalised by `mean` and `std`, or None.
        composite: (N, 3, H, W), the same way.
        mask: (N, 1, H, W) in [0, 1], or None where the truth is unknown.
        depth: (N, 1, H, W) in [0, 1], or None.
        predicted_mask: (N, 1, H, W) probabilities (not logits), or None.
        predicted_depth: (N, 1, H, W) in [0, 1] (not logits), or None.
        mean: What was subtracted from each channel; the defaults leave [0, 1] images as they are.
        std: What each channel was divided by.
        max_rows: At most this many samples are drawn.
        max_px: Images with a longer side are drawn smaller, by the mean of their pixels.
        with_errors: Add a column beside each prediction whose truth is known.

    Returns:
        An RGB image of (columns x (W + 4) + 4) x (14 + rows x (H + 4) + 4) pixels.
    """
    colour = (
        None if images is None else restore(images, mean, std) for images in (background, composite)
    )
    columns = dict(zip(("background", "composite"), colour, strict=True))
    columns |= {
        "mask": mask,
        "predicted mask": predicted_mask,
        "mask error": _error(predicted_mask, mask) if with_errors else None,
        "depth": depth,
        "predicted depth": predicted_depth,
        f"depth error x{DEPTH_GAIN}": (
            _error(predicted_depth, depth, DEPTH_GAIN) if with_errors else None
        ),
    }
    known = {
        title: _bytes_NHW3(_within(images[:max_rows], max_px))
        for title, images in columns.items()
        if images is not None
    }
    num_rows, height, width, _ = known["composite"].shape
    canvas = Image.new(
        "RGB",
        (GAP_PX + len(known) * (width + GAP_PX), TITLE_PX + num_rows * (height + GAP_PX) + GAP_PX),
        "white",
    )
    draw = ImageDraw.Draw(canvas)
    for column, (title, images_NHW3) in enumerate(known.items()):
        left = GAP_PX + column * (width + GAP_PX)
        draw.text((left, 1), _fitting(draw, title, width), fill="black")
        for row, image_HW3 in enumerate(images_NHW3):
            top = TITLE_PX + GAP_PX + row * (height + GAP_PX)
            canvas.paste(Image.fromarray(image_HW3.numpy()), (left, top))
    return canvas


def restore(images_N3HW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised images as the float32 values in [0, 1] that they were made from."""
    mean_311, std_311 = (
        torch.tensor(values, device=images_N3HW.device).view(3, 1, 1) for values in (mean, std)
    )
    return images_N3HW.float() * std_311 + mean_311


def _error(predicted: Tensor | None, true: Tensor | None, gain: int = 1) -> Tensor | None:
    if predicted is None or true is None:
        return None
    return gain * (predicted.float() - true.float()).abs()


def _within(images_NCHW: Tensor, max_px: int | None) -> Tensor:
    side = max(images_NCHW.shape[-2:])
    if max_px is None or side <= max_px:
        return images_NCHW
    height, width = (max(1, length * max_px // side) for length in images_NCHW.shape[-2:])
    return functional.interpolate(images_NCHW.float(), size=(height, width), mode="area")


def _bytes_NHW3(images_NCHW: Tensor) -> Tensor:  # noqa: N802 - the shape is part of the name
    levels = images_NCHW.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    return levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()


def _fitting(draw: ImageDraw.ImageDraw, title: str, width_px: int) -> str:
    """The title, shortened where the column is narrow."""
    if draw.textlength(title) <= width_px:
        return title
    short = title.replace("predicted", "pred.").replace("mask error", "error")
    while draw.textlength(short) > width_px:
        short = short[:-1]
    return short
