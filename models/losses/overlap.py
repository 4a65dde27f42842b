"""Losses on how far two masks overlap: logits and a target in [0, 1] in, (N,) losses out.

Grey pixels count by their value, and denominators sum values, not squares. One pixel is added to
numerator and denominator, so that an empty mask predicted empty costs nothing and still has a
gradient. Shapes: N images of H x W pixels, C channels.
"""

from torch import Tensor


def dice(logits_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """Soft Dice loss of each image (Milletari et al. 2016, V-Net, arXiv:1606.04797)."""
    overlap, total = _sums(logits_NCHW, target_NCHW)
    return 1 - (2 * overlap + 1) / (total + 1)


def batch_dice(logits_NCHW: Tensor, target_NCHW: Tensor, weight_N: Tensor) -> Tensor:
    """Soft Dice loss of the whole batch as one image (Kodym et al. 2018, arXiv:1812.02427).

    Objects weigh by their pixels, where in `dice` every image weighs the same. Each image's pixels
    count by the image's weight.
    """
    overlap, total = ((part * weight_N).sum() for part in _sums(logits_NCHW, target_NCHW))
    return (1 - (2 * overlap + 1) / (total + 1)).expand(len(weight_N))


def iou(logits_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """Soft IoU (Jaccard) loss of each image (Rahman and Wang 2016, 10.1007/978-3-319-50835-1_22).

    Never less than `dice`: it charges a partial overlap more.
    """
    overlap, total = _sums(logits_NCHW, target_NCHW)
    return 1 - (overlap + 1) / (total - overlap + 1)


def _sums(logits_NCHW: Tensor, target_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) overlaps in pixels, and (N,) pixels of prediction and target together."""
    probability, target = logits_NCHW.sigmoid().flatten(1), target_NCHW.flatten(1)
    return (probability * target).sum(1), probability.sum(1) + target.sum(1)
