"""Cross-entropy less what no prediction can avoid: the entropy of a target that is not 0 or 1."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor


def bce_excess(logits_NCHW: Tensor, target_N1HW: Tensor) -> Tensor:
    """(N,) mean over pixels and channels of BCE(prediction, target) - H(target), in nats.

    That is the Kullback-Leibler divergence of Bernoulli distributions (Kullback and Leibler 1951,
    doi:10.1214/aoms/1177729694): 0 for a perfect prediction, whatever the target. Of a depth map
    at 0.3 the cross-entropy is at least 0.61, which hides what is left to learn.

    Args:
        logits_NCHW: Every channel is compared with the same target, as in training.
        target_N1HW: In [0, 1].
    """
    logits, target = logits_NCHW.float(), target_N1HW.float()
    floor = torch.special.entr(target) + torch.special.entr(1 - target)
    excess = F.softplus(logits) - logits * target - floor
    return excess.flatten(1).mean(1, dtype=torch.float64)
