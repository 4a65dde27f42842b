"""From batches to the table of metrics."""

import torch
from torch import Tensor

from models.metrics.depth import DEPTH_VALUES, depth_values
from models.metrics.mask import MASK_VALUES, mask_values, overlap_union_iou
from models.metrics.sums import WEIGHT, Sums
from models.prediction import Prediction

DIFFERENCE_LEVELS = 40.0
"""The free mask: pixels whose colour moved by more than this Euclidean distance, levels of 255."""


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
        groups = {"mask": MASK_VALUES, "depth": DEPTH_VALUES, "difference": ("iou",)}
        self._sums = Sums(groups, device)
        self.sums = self._sums.vector
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
            prediction: Mask logits (N, 1, H, W) and depth logits (N, C, H, W), whose channels are
                averaged after the sigmoid; a task that is None is not counted.
            background: (N, 3, H, W) normalised, or None: no mask baseline.
            composite: (N, 3, H, W) normalised like the background.
            mask: (N, 1, H, W) in [0, 1], at least 0.5 where the object is.
            depth: (N, 1, H, W) in [0, 1].
            weight: (N,) how much each sample counts; 0 for padding, which may hold anything.
        """
        if prediction.mask_logits is not None:
            self._sums.add("mask", weight, mask_values(prediction.mask_logits, mask))
        predicted, logits = prediction.depth(), prediction.depth_logits
        if predicted is not None and logits is not None:
            values = depth_values(predicted, logits, depth, self._mean_depth_HW)
            self._sums.add("depth", weight, values)
        if background is not None:
            moved = (composite.float() - background.float()) * self._levels_311
            free_mask = torch.linalg.vector_norm(moved, dim=1, keepdim=True) > DIFFERENCE_LEVELS
            self._sums.add(
                "difference", weight, {"iou": overlap_union_iou(free_mask, mask >= 0.5)[2]}
            )

    def compute(self) -> dict[str, float]:
        """Read the metrics: one transfer from the device.

        Returns:
            mask_iou, mask_dice: Means over images of the mask thresholded at 0.5; two empty masks
                agree (1).
            mask_iou_global, mask_dice_global: Of the pixels of all images together.
            mask_iou_soft, mask_dice_soft: Means over images of the probabilities, unthresholded.
            mask_boundary_f: Mean over images of the outline's F measure (`boundary.py`).
            mask_accuracy: Share of pixels on the right side of 0.5, over all images.
            mask_bce_excess, depth_bce_excess: Cross-entropy above the targets' own entropy, nats
                per pixel (`entropy.py`).
            depth_rmse: Root of the mean square over all pixels of all images.
            depth_mae: Mean absolute error over all pixels.
            depth_absrel: Mean over all pixels of the absolute error as a share of the truth.
            depth_delta1, depth_delta2, depth_delta3: Share of pixels whose ratio to the truth is
                below 1.25, its square and its cube, either way.
            depth_ssim: Mean over images of the structural similarity (`similarity.py`).
            baseline_mask_iou: mask_iou of |composite - background| > 40 of 255, the Euclidean
                distance of the two colours.
            baseline_depth_rmse: depth_rmse of the mean depth image.

            Keys of a task that was never counted are left out.
        """
        found: dict[str, float] = {}
        totals = self._sums.read()
        mask, depth, difference = (totals[group] for group in ("mask", "depth", "difference"))
        if (weight := mask[WEIGHT]) > 0:
            overlap, union = mask["overlap"], mask["union"]
            found["mask_iou"] = mask["iou"] / weight
            found["mask_iou_global"] = overlap / union if union > 0 else 1.0
            found["mask_dice"] = mask["dice"] / weight
            found["mask_dice_global"] = 2 * overlap / (overlap + union) if union > 0 else 1.0
            found["mask_iou_soft"] = mask["iou_soft"] / weight
            found["mask_dice_soft"] = mask["dice_soft"] / weight
            found["mask_boundary_f"] = mask["boundary_f"] / weight
            found["mask_accuracy"] = mask["accuracy"] / weight
            found["mask_bce_excess"] = mask["excess"] / weight
        if (weight := depth[WEIGHT]) > 0:
            found["depth_rmse"] = (depth["squared"] / weight) ** 0.5
            found["depth_mae"] = depth["absolute"] / weight
            found["depth_absrel"] = depth["relative"] / weight
            found["depth_delta1"] = depth["delta1"] / weight
            found["depth_delta2"] = depth["delta2"] / weight
            found["depth_delta3"] = depth["delta3"] / weight
            found["depth_ssim"] = depth["ssim"] / weight
            found["depth_bce_excess"] = depth["excess"] / weight
        if (weight := difference[WEIGHT]) > 0:
            found["baseline_mask_iou"] = difference["iou"] / weight
        if (weight := depth[WEIGHT]) > 0:
            found["baseline_depth_rmse"] = (depth["mean_image_squared"] / weight) ** 0.5
        return found
