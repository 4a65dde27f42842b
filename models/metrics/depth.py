"""Values of one batch of depth maps, an image each."""

import torch
from torch import Tensor

from models.metrics.entropy import bce_excess
from models.metrics.similarity import similarity

DEPTH_FLOOR = 1 / 255
"""Ratios are taken of depths raised to at least one grey level of the stored image."""

DELTA = 1.25

DEPTH_VALUES = (
    "squared", "absolute", "relative", "delta1", "delta2", "delta3", "ssim", "excess",
    "mean_image_squared"
)  # fmt: skip


def depth_values(
    predicted_N1HW: Tensor, logits_NCHW: Tensor, depth_N1HW: Tensor, mean_depth_HW: Tensor
) -> dict[str, Tensor]:
    """Everything of `DEPTH_VALUES` as (N,) float64.

    Ratios as in Eigen et al. 2014, arXiv:1406.2283.

    Args:
        predicted_N1HW: In [0, 1].
        logits_NCHW: What the prediction was made of.
        depth_N1HW: In [0, 1].
        mean_depth_HW: In [0, 1]; the same prediction for every image, which costs nothing.
    """
    depth = depth_N1HW.float()
    error = predicted_N1HW - depth
    absolute = error.abs()
    floored = depth.clamp(min=DEPTH_FLOOR)
    ratio = predicted_N1HW.clamp(min=DEPTH_FLOOR) / floored
    ratio = torch.maximum(ratio, 1 / ratio)
    pixels = {
        "squared": error.square(),
        "absolute": absolute,
        "relative": absolute / floored,
        "delta1": ratio < DELTA,
        "delta2": ratio < DELTA**2,
        "delta3": ratio < DELTA**3,
        "mean_image_squared": (mean_depth_HW - depth).square(),
    }
    return {
        "ssim": similarity(predicted_N1HW, depth),
        "excess": bce_excess(logits_NCHW, depth),
        **{name: _image_mean(values) for name, values in pixels.items()},
    }


def _image_mean(pixels_N1HW: Tensor) -> Tensor:
    return pixels_N1HW.flatten(1).mean(1, dtype=torch.float64)
