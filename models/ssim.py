"""Structural similarity in a moving window, as losses and metrics use it.

The images go in as channels of a single one: as a batch of one-channel images the same convolutions
take 19 times as long on a CPU (207 against 11 ms forward and backward, 64 images of 96 px, one
core), a third of a whole training step. The library's public functions would average over channels,
hence `_ssim`.
"""

from typing import Literal

import torch
from pytorch_msssim.ssim import _ssim
from torch import Tensor

SIGMA_PX = 1.5
"""Of Gaussian windows of every size, as in the paper and in the reference systems."""

Kernel = Literal["gaussian", "box"]


def compare(
    one_1CHW: Tensor, other_1CHW: Tensor, window: int, kernel: Kernel = "gaussian"
) -> tuple[Tensor, Tensor]:
    """Similarity (Wang et al. 2004, doi:10.1109/TIP.2003.819861), where the window lies inside.

    Args:
        one_1CHW: In [0, 1].
        other_1CHW: In [0, 1].
        window: Its side in pixels, odd, at most the images' side.
        kernel: How the window weighs its pixels: "gaussian" (sigma 1.5 px) or "box" (all alike).

    Returns:
        (1, C) similarity, and that of contrast and structure alone.
    """
    # the library would warn and leave the blur out
    assert min(one_1CHW.shape[-2:]) >= window, "the caller chooses a window that fits"
    # made on the device: a copy from the host would wait for it at every step
    if kernel == "box":
        weights = one_1CHW.new_full((window,), 1 / window)
    else:
        offsets = torch.arange(window, device=one_1CHW.device) - window // 2
        weights = torch.softmax(-offsets.to(one_1CHW.dtype).square() / (2 * SIGMA_PX**2), 0)
    similarity, contrast = _ssim(
        one_1CHW, other_1CHW, data_range=1.0, win=weights.expand(one_1CHW.shape[1], 1, 1, window)
    )
    return similarity, contrast
