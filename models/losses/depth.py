"""Losses made for depth: logits and a target in [0, 1] in, (N,) losses out.

Shapes: N images of H x W pixels, C channels. All compare after the sigmoid.
"""

from torch import Tensor


def gradient(logits_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """Mean absolute error of the slopes down and across, for sharp edges.

    Alhashim and Wonka 2018, DenseDepth, arXiv:1812.11941, the network that made the reference
    sets' depth. Slopes are differences of neighbouring pixels. It cannot see a constant error.
    """
    error = logits_NCHW.sigmoid() - target_NCHW
    down, across = (error.diff(dim=dim).abs().flatten(1).mean(1) for dim in (-2, -1))
    return down + across


def silog(
    logits_NCHW: Tensor, target_NCHW: Tensor, *, invariance: float = 0.5, eps: float = 1 / 255
) -> Tensor:
    """Scale-invariant error of the logarithm (Eigen et al. 2014, arXiv:1406.2283).

    With d = log(prediction + eps) - log(target + eps): mean(d^2) - invariance * mean(d)^2.

    Args:
        logits_NCHW: Predicted.
        target_NCHW: In [0, 1].
        invariance: The paper's lambda: how much of an error of the whole image's scale is
            forgiven, 0 (nothing) to 1 (all).
        eps: Depth that keeps the logarithm finite at 0; one level of the stored image unless told.
    """
    ratio = ((logits_NCHW.sigmoid() + eps).log() - (target_NCHW + eps).log()).flatten(1)
    # as a sum of parts that are never negative, which rounding cannot push below 0
    spread = (ratio - ratio.mean(1, keepdim=True)).square().mean(1)
    return invariance * spread + (1 - invariance) * ratio.square().mean(1)
