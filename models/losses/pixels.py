"""Losses that compare pixel by pixel: logits and a target in [0, 1] in, (N,) losses out.

Shapes: N images of H x W pixels, C channels. All but `bce` compare after the sigmoid.
"""

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor


def bce(logits_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """Binary cross-entropy, mean over pixels (Ronneberger et al. 2015, arXiv:1505.04597).

    On depth too: it is least where the sigmoid is the target, though not 0 between 0 and 1.
    """
    loss = F.binary_cross_entropy_with_logits(logits_NCHW, target_NCHW, reduction="none")
    return loss.flatten(1).mean(1)


def l1(logits_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """Mean absolute error (Zhao et al. 2017, arXiv:1511.08861)."""
    return (logits_NCHW.sigmoid() - target_NCHW).abs().flatten(1).mean(1)


def mse(logits_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """Mean squared error (Zhao et al. 2017, arXiv:1511.08861)."""
    return (logits_NCHW.sigmoid() - target_NCHW).square().flatten(1).mean(1)


def rmse(logits_NCHW: Tensor, target_NCHW: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Root of each image's mean squared error (Eigen et al. 2014, arXiv:1406.2283, its metric).

    Args:
        logits_NCHW: Predicted.
        target_NCHW: In [0, 1].
        eps: Added under the root, whose slope at 0 would be infinite; the least loss is sqrt(eps),
            0.001 unless told.
    """
    return (mse(logits_NCHW, target_NCHW) + eps).sqrt()


def batch_rmse(
    logits_NCHW: Tensor, target_NCHW: Tensor, weight_N: Tensor, *, eps: float = 1e-6
) -> Tensor:
    """`rmse` of all pixels of the batch under one root, as systems 000 and 004 trained.

    An image far off weighs more than by `rmse`, where every image has a root of its own.
    """
    squared = (mse(logits_NCHW, target_NCHW) * weight_N).sum() / weight_N.sum().clamp(min=1e-30)
    return (squared + eps).sqrt().expand(len(weight_N))


def charbonnier(logits_NCHW: Tensor, target_NCHW: Tensor, *, eps: float = 1e-3) -> Tensor:
    """Mean of sqrt(error^2 + eps^2), a smooth absolute error.

    Charbonnier et al. 1994, doi:10.1109/ICIP.1994.413553; as a loss of networks Lai et al. 2017,
    LapSRN, arXiv:1704.03915.

    Args:
        logits_NCHW: Predicted.
        target_NCHW: In [0, 1].
        eps: Error below which the loss turns from linear to quadratic; also the least loss.
    """
    error = logits_NCHW.sigmoid() - target_NCHW
    return (error.square() + eps**2).sqrt().flatten(1).mean(1)
