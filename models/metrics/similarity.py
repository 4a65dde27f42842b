"""Structural similarity per image (Wang et al. 2004, doi:10.1109/TIP.2003.819861)."""

from torch import Tensor

from models.ssim import compare

WINDOWS_PX = (11, 7, 5, 3, 1)
"""The first that fits the image is taken: 11 as published, 7 for images below 11 px."""


def similarity(one_N1HW: Tensor, other_N1HW: Tensor) -> Tensor:
    """(N,) mean SSIM of images in [0, 1]: Gaussian window, data range 1, borders left out.

    Computed in float32, in which variances of smooth images are good to 1e-5 of the result.
    """
    window_px = next(size for size in WINDOWS_PX if size <= min(one_N1HW.shape[-2:]))
    one, other = (images.float().transpose(0, 1) for images in (one_N1HW, other_N1HW))
    return compare(one, other, window_px)[0][0].double()
