"""Structural similarity per image (Wang et al. 2004, doi:10.1109/TIP.2003.819861)."""

import torch
from pytorch_msssim.ssim import _ssim
from torch import Tensor

WINDOWS_PX = (11, 7, 5, 3, 1)
"""The first that fits the image is taken: 11 as published, 7 for images below 11 px."""

SIGMA_PX = 1.5


def similarity(one_N1HW: Tensor, other_N1HW: Tensor) -> Tensor:
    """(N,) mean SSIM of images in [0, 1]: Gaussian window, data range 1, borders left out.

    Computed in float32, in which variances of smooth images are good to 1e-5 of the result.
    The images go in as channels of a single one, which is many times as fast on a CPU as a batch
    of one-channel images; the library's public function would average over channels.
    """
    num_images, _, height, width = one_N1HW.shape
    window_px = next(window for window in WINDOWS_PX if window <= min(height, width))
    # made on the device: a copy from the host would wait for it
    offsets = torch.arange(window_px, device=one_N1HW.device, dtype=torch.float32) - window_px // 2
    window = torch.softmax(-offsets.square() / (2 * SIGMA_PX**2), 0)
    per_channel, _ = _ssim(
        one_N1HW.float().reshape(1, num_images, height, width),
        other_N1HW.float().reshape(1, num_images, height, width),
        data_range=1.0,
        win=window.expand(num_images, 1, 1, window_px),
    )
    return per_channel[0].double()
