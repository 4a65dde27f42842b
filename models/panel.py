"""Pictures of samples in a grid: tensors in, one PIL image out.

A row per sample; the columns background, composite, mask, predicted mask, depth and predicted
depth, as far as they are known. Shapes: N samples, H x W pixels.
"""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

GAP_PX = 4
TITLE_PX = 14


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

    Returns:
        An RGB image of (columns x (W + 4) + 4) x (14 + rows x (H + 4) + 4) pixels.
    """
    colour = (_restore(images, mean, std) for images in (background, composite))
    columns = dict(zip(("background", "composite"), colour, strict=True))
    columns |= {
        "mask": mask,
        "predicted mask": predicted_mask,
        "depth": depth,
        "predicted depth": predicted_depth,
    }
    known = {
        title: _bytes_NHW3(images[:max_rows])
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


def _restore(
    images_N3HW: Tensor | None, mean: Sequence[float], std: Sequence[float]
) -> Tensor | None:
    if images_N3HW is None:
        return None
    mean_311, std_311 = (
        torch.tensor(values, device=images_N3HW.device).view(3, 1, 1) for values in (mean, std)
    )
    return images_N3HW.float() * std_311 + mean_311


def _bytes_NHW3(images_NCHW: Tensor) -> Tensor:  # noqa: N802 - the shape is part of the name
    levels = images_NCHW.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
    return levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()


def _fitting(draw: ImageDraw.ImageDraw, title: str, width_px: int) -> str:
    """The title, with "predicted" shortened where the column is narrow."""
    return title if draw.textlength(title) <= width_px else title.replace("predicted", "pred.")
