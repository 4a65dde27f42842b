"""Losses by structural similarity in a moving window: logits and target in, (N,) losses out.

They compare after the sigmoid, with a data range of 1, where the window lies wholly inside the
image (`models/ssim.py`). Shapes: N images of H x W pixels, C channels.
"""

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from models.ssim import Kernel, compare

SCALE_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""MS-SSIM's exponents, finest scale first: Wang et al. 2003, by experiments with people."""

LEAST_SIMILARITY = 1e-4
"""MS-SSIM multiplies powers below 1 of its scales' similarities: at 0 one would take the others'
gradient away, and near 0 its own would be huge."""


def ssim(
    logits_NCHW: Tensor, target_NCHW: Tensor, *, window: int = 11, kernel: Kernel = "gaussian"
) -> Tensor:
    """1 - SSIM (Wang et al. 2004, doi:10.1109/TIP.2003.819861), 0 to 2.

    Args:
        logits_NCHW: Predicted.
        target_NCHW: In [0, 1].
        window: Its side in pixels, odd, at most the images' side.
        kernel: How the window weighs its pixels: "gaussian" (sigma 1.5 px) or "box" (all alike).
    """
    prediction, target = _as_channels(logits_NCHW.sigmoid()), _as_channels(target_NCHW)
    similarity, _ = compare(prediction, target, window, kernel)
    return 1 - _image_mean(similarity, logits_NCHW)


def dssim(
    logits_NCHW: Tensor, target_NCHW: Tensor, *, window: int = 11, kernel: Kernel = "gaussian"
) -> Tensor:
    """(1 - SSIM) / 2, 0 to 1 (Godard et al. 2017, arXiv:1609.03677): half of `ssim`."""
    return ssim(logits_NCHW, target_NCHW, window=window, kernel=kernel) / 2


def ms_ssim(
    logits_NCHW: Tensor, target_NCHW: Tensor, *, window: int = 11, kernel: Kernel = "gaussian"
) -> Tensor:
    """1 - MS-SSIM of 5 scales (Wang et al. 2003, doi:10.1109/ACSSC.2003.1292216), 0 to 1.

    Similarities below 0.0001 count as that and have no gradient.

    Args:
        logits_NCHW: Predicted.
        target_NCHW: In [0, 1].
        window: Its side in pixels, odd; the images' side is more than 16 (window - 1).
        kernel: How the window weighs its pixels: "gaussian" (sigma 1.5 px) or "box" (all alike).
    """
    prediction, target = _as_channels(logits_NCHW.sigmoid()), _as_channels(target_NCHW)
    product = prediction.new_ones(())
    *finer, coarsest = SCALE_EXPONENTS
    for exponent in finer:
        _, contrast = compare(prediction, target, window, kernel)
        product = product * contrast.clamp(min=LEAST_SIMILARITY) ** exponent
        prediction, target = _halved(prediction), _halved(target)
    similarity, _ = compare(prediction, target, window, kernel)
    product = product * similarity.clamp(min=LEAST_SIMILARITY) ** coarsest
    return 1 - _image_mean(product, logits_NCHW)


def _halved(images: Tensor) -> Tensor:
    """At half the size; odd sides get zeros around them, as in the library."""
    return F.avg_pool2d(images, 2, padding=[side % 2 for side in images.shape[-2:]])


def _as_channels(images_NCHW: Tensor) -> Tensor:
    return images_NCHW.flatten(0, 1)[None]


def _image_mean(values: Tensor, like_NCHW: Tensor) -> Tensor:
    return values.view(like_NCHW.shape[:2]).mean(1)
