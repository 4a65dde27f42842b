"""Gaussian blur, a standard deviation per sample: two passes of weighted sums."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

_REACH = 3.0
"""Standard deviations after which the kernel ends: 0.3 % of its weight lies beyond."""


def blur(planes_NCSS: Tensor, sigma_N: Tensor, largest: float) -> Tensor:
    """Blur each picture by its own sigma; what lies outside is its mirror image.

    Args:
        planes_NCSS: float32.
        sigma_N: Pixels, above 0.
        largest: No sigma is larger: decides the kernel's length without asking the device.
    """
    radius = min(math.ceil(_REACH * largest), planes_NCSS.shape[-1] - 1)
    distances = torch.arange(-radius, radius + 1, device=sigma_N.device)
    kernel = torch.exp(-0.5 * (distances / sigma_N.clamp(min=1e-3).unsqueeze(1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True))[..., None, None, None]
    for dim, padding in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        planes_NCSS = _weighted_sum(F.pad(planes_NCSS, padding, mode="reflect"), kernel, dim)
    return planes_NCSS


def _weighted_sum(padded: Tensor, kernel_NK111: Tensor, dim: int) -> Tensor:
    """Sums rather than a convolution, which TF32 and autocast would round."""
    num = kernel_NK111.shape[1]
    length = padded.shape[dim] - num + 1
    total = padded.narrow(dim, 0, length) * kernel_NK111[:, 0]
    for place in range(1, num):
        total.addcmul_(padded.narrow(dim, place, length), kernel_NK111[:, place])
    return total
