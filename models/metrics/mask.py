"""Values of one batch of masks, an image each."""

import torch
from torch import Tensor

from models.metrics.boundary import boundary_f
from models.metrics.entropy import bce_excess

MASK_VALUES = (
    "iou", "dice", "overlap", "union", "iou_soft", "dice_soft", "boundary_f", "accuracy", "excess"
)  # fmt: skip


def mask_values(logits_N1HW: Tensor, mask_N1HW: Tensor) -> dict[str, Tensor]:
    """Everything of `MASK_VALUES` as (N,) float64.

    Dice follows from IoU image by image (Dice 1945, doi:10.2307/1932409; Jaccard 1912).

    Args:
        logits_N1HW: Above 0 where the object is thought to be, which is probability above 0.5.
        mask_N1HW: In [0, 1], at least 0.5 where the object is.
    """
    predicted, truth = logits_N1HW > 0, mask_N1HW >= 0.5
    overlap, union, iou = overlap_union_iou(predicted, truth)
    iou_soft = soft_iou(logits_N1HW.float().sigmoid(), truth)
    return {
        "iou": iou,
        "dice": 2 * iou / (1 + iou),
        "overlap": overlap,
        "union": union,
        "iou_soft": iou_soft,
        "dice_soft": 2 * iou_soft / (1 + iou_soft),
        "boundary_f": boundary_f(predicted, truth),
        "accuracy": 1 - (union - overlap) / truth[0].numel(),
        "excess": bce_excess(logits_N1HW, mask_N1HW),
    }


def overlap_union_iou(predicted_N1HW: Tensor, truth_N1HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) pixels in both boolean masks, pixels in either, and their ratio: 1 if both are empty."""
    overlap = (predicted_N1HW & truth_N1HW).flatten(1).sum(1).double()
    union = (predicted_N1HW | truth_N1HW).flatten(1).sum(1).double()
    return overlap, union, torch.where(union > 0, overlap / union.clamp(min=1), 1.0)


def soft_iou(probability_N1HW: Tensor, truth_N1HW: Tensor) -> Tensor:
    """(N,) sum of products over the rest of both sums (Rahman and Wang 2016, ISVC).

    Where nothing is true, what is predicted counts down from 1 and reaches 0 at one whole pixel:
    so a mask that is empty but for the tails of the sigmoid is right, as it is when thresholded.
    """
    probability, truth = probability_N1HW.flatten(1), truth_N1HW.flatten(1)
    overlap = (probability * truth).sum(1, dtype=torch.float64)
    union = probability.sum(1, dtype=torch.float64) + truth.sum(1) - overlap
    # a union below one pixel has no true pixel in it
    return torch.where(union < 1, 1 - union, overlap / union.clamp(min=1))
