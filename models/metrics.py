"""Metrics of both tasks, each beside a baseline that costs nothing.

Batches are added up on the device in one float64 vector and read once, in `compute`, so nothing
waits for the device between two batches. Shapes: N images, 3 colour channels, H x W pixels.
"""

import torch
from torch import Tensor

from models.prediction import Prediction

DIFFERENCE_LEVELS = 40.0
"""The free mask: pixels whose colour moved by more than this Euclidean distance, levels of 255."""

DEPTH_FLOOR = 1 / 255
"""delta1 is a ratio, so both depths are raised to at least one grey level of the stored image."""

_MASK = ("mask_weight", "iou", "dice", "overlap", "union")
_DEPTH = ("depth_weight", "squared", "absolute", "delta1", "mean_image_squared")
_DIFFERENCE = ("difference_weight", "difference_iou")
_SLOT = {name: slot for slot, name in enumerate(_MASK + _DEPTH + _DIFFERENCE)}


class Metrics:
    """Accumulates over batches; one for each pass over the validation samples.

    Args:
        pixel_std: Standard deviation per RGB channel by which the images were normalised, of
            values in [0, 1]: it turns a normalised difference back into grey levels.
        mean_depth: (H, W) mean depth image of the training split in [0, 1] at the batches' size.
        device: Where the batches lie.
    """

    def __init__(
        self,
        pixel_std: tuple[float, float, float],
        mean_depth: Tensor,
        device: torch.device | str = "cpu",
    ) -> None:
        self.sums = torch.zeros(len(_SLOT), dtype=torch.float64, device=device)
        """Everything counted so far; ranks add theirs up by one all-reduce of this vector."""
        self._levels_311 = 255 * torch.tensor(pixel_std, device=device).view(3, 1, 1)
        self._mean_depth_HW = mean_depth.to(device)

    def update(
        self,
        prediction: Prediction,
        *,
        background: Tensor | None,
        composite: Tensor,
        mask: Tensor,
        depth: Tensor,
        weight: Tensor,
    ) -> None:
        """Add one batch, without waiting for the device.

        Args:
            prediction: Logits (N, 1, H, W); a task that is None is not counted.
            background: (N, 3, H, W) normalised, or None: no mask baseline.
            composite: (N, 3, H, W) normalised like the background.
            mask: (N, 1, H, W), at least 0.5 where the object is.
            depth: (N, 1, H, W) in [0, 1].
            weight: (N,) how much each sample counts; 0 for padding.
        """
        truth = mask >= 0.5
        if prediction.mask_logits is not None:
            # logit > 0 is probability > 0.5
            overlap, union, iou = _overlap(prediction.mask_logits > 0, truth)
            self._add(_MASK, weight, iou, 2 * iou / (1 + iou), overlap, union)
        if (predicted := prediction.depth()) is not None:
            self._add_depth(predicted, depth.float(), weight)
        if background is not None:
            moved = (composite.float() - background.float()) * self._levels_311
            free_mask = torch.linalg.vector_norm(moved, dim=1, keepdim=True) > DIFFERENCE_LEVELS
            self._add(_DIFFERENCE, weight, _overlap(free_mask, truth)[2])

    def _add_depth(self, predicted: Tensor, depth: Tensor, weight: Tensor) -> None:
        error = predicted - depth
        predicted, floored = predicted.clamp(min=DEPTH_FLOOR), depth.clamp(min=DEPTH_FLOOR)
        close = torch.maximum(predicted / floored, floored / predicted) < 1.25
        per_image = (error.square(), error.abs(), close, (self._mean_depth_HW - depth).square())
        self._add(_DEPTH, weight, *(_image_mean(pixels) for pixels in per_image))

    def _add(self, slots: tuple[str, ...], weight: Tensor, *values: Tensor) -> None:
        """Add the weights and the weighted (N,) values to neighbouring slots."""
        rows = torch.stack((torch.ones_like(weight, dtype=torch.float64), *values))
        start = _SLOT[slots[0]]
        # where, not a product alone: a padded sample may hold anything, also nan
        weighted = torch.where(weight > 0, rows * weight, 0)
        self.sums[start : start + len(slots)] += weighted.sum(1)

    def compute(self) -> dict[str, float]:
        """Read the metrics: one transfer from the device.

        Returns:
            mask_iou, mask_dice: Means over images of the mask thresholded at 0.5; two empty masks
                agree (1).
            mask_iou_global: Overlap over union, each summed over all images.
            depth_rmse: Root of the mean square over all pixels of all images.
            depth_mae: Mean absolute error over all pixels.
            depth_delta1: Share of pixels whose ratio to the truth is below 1.25, either way
                (Eigen et al. 2014, arXiv:1406.2283).
            baseline_mask_iou: mask_iou of |composite - background| > 40 of 255, the Euclidean
                distance of the two colours.
            baseline_depth_rmse: depth_rmse of the mean depth image.

            Keys of a task that was never counted are left out.
        """
        total = dict(zip(_SLOT, self.sums.tolist(), strict=True))
        found: dict[str, float] = {}
        if (weight := total["mask_weight"]) > 0:
            union = total["union"]
            found["mask_iou"] = total["iou"] / weight
            found["mask_iou_global"] = total["overlap"] / union if union > 0 else 1.0
            found["mask_dice"] = total["dice"] / weight
        if (weight := total["depth_weight"]) > 0:
            found["depth_rmse"] = (total["squared"] / weight) ** 0.5
            found["depth_mae"] = total["absolute"] / weight
            found["depth_delta1"] = total["delta1"] / weight
        if (weight := total["difference_weight"]) > 0:
            found["baseline_mask_iou"] = total["difference_iou"] / weight
        if (weight := total["depth_weight"]) > 0:
            found["baseline_depth_rmse"] = (total["mean_image_squared"] / weight) ** 0.5
        return found


def _overlap(predicted: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) pixels in both boolean (N, 1, H, W) masks, pixels in either, and their ratio."""
    overlap = (predicted & truth).flatten(1).sum(1).double()
    union = (predicted | truth).flatten(1).sum(1).double()
    return overlap, union, torch.where(union > 0, overlap / union.clamp(min=1), 1.0)


def _image_mean(pixels_N1HW: Tensor) -> Tensor:
    return pixels_N1HW.flatten(1).mean(1, dtype=torch.float64)
