"""The figures that two reference systems printed, defects included, to compare with theirs.

Whoever reads "Coef 0.0031" (000) or "IoU 0.525, RMSE 9.03" (004) cannot tell how good that is. Here
the same arithmetic runs on our predictions, and beside it on a perfect one. What it computes:

000, "Coef" (Sushmitha-Katti): soft Dice of each image, (2 sum pt + 1e-4) / (sum p + sum t + 1e-4),
    mean over images, then over mask and depth. Its targets were divided by 255 twice, and its
    networks had learned to answer so; ours are divided by 255 once more before they are compared.
    A perfect prediction scores sum t^2 / (255 sum t): with the moments of its own data 0.00377 for
    the mask, 0.00261 for depth, 0.00319 for both. It printed 0.0029 to 0.0031. Predicting too much
    raises the figure: depth trained by RMSE printed 0.00394.
004, "IoU" (rvk007): soft IoU of each image, (sum pt + 1e-6) / (sum p + sum t - sum pt + 1e-6), of
    masks and of depth maps, which add to one accumulator: the figure printed for either task is
    the mean of both. A perfect prediction scores 0.91 for masks that were stored as JPEG, 0.21 for
    depth, 0.56 together. Its best run printed 0.525.
004, "RMSE": the root of the mean square error of a batch, over the pixels whose target is above
    0.0001 (of a mask: the object alone); numerator and denominator of the mean over batches are
    exchanged, and mask and depth add to one accumulator. So the figure is 1 / RMSE of the mixture,
    and grows with quality: 9.03 is 0.111. A perfect prediction divides by zero.

Both printed figures of batches of 128, and the RMSE depends on that a little. Their masks had grey
edges, ours are 0 or 1, which is worth 0.00392 for a perfect mask of 000 and 1 for one of 004; and
000's 1e-4 adds up to 0.0001 at 64 px. So the figures of a perfect prediction of the same samples
are computed too.
"""

import torch
from torch import Tensor

from models.metrics.sums import WEIGHT, Sums
from models.prediction import Prediction

TARGET_SCALE_000 = 255.0
EPS_000 = 1e-4
EPS_004 = 1e-6
LEAST_TARGET_004 = 1e-4

_VALUES = ("dice_000", "dice_000_perfect", "iou_004", "iou_004_perfect", "rmse_004")


class PublishedFigures:
    """Accumulates over batches beside `Metrics`, which it leaves as they are.

    Args:
        device: Where the batches lie.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._sums = Sums({"mask": _VALUES, "depth": _VALUES}, device)
        self.sums = self._sums.vector
        """Everything counted so far; ranks add theirs up by one all-reduce of this vector."""

    def update(
        self, prediction: Prediction, *, mask: Tensor, depth: Tensor, weight: Tensor
    ) -> None:
        """Add one batch, without waiting for the device; arguments as for `Metrics.update`."""
        tasks = (("mask", prediction.mask(), mask), ("depth", prediction.depth(), depth))
        for task, predicted, target in tasks:
            if predicted is not None:
                values = {
                    "dice_000": dice_000(predicted / TARGET_SCALE_000, target),
                    "dice_000_perfect": dice_000(target / TARGET_SCALE_000, target),
                    "iou_004": iou_004(predicted, target),
                    "iou_004_perfect": iou_004(target, target),
                    # one value for the batch, which counts for each of its samples
                    "rmse_004": rmse_004(predicted, target, weight).expand(len(weight)),
                }
                self._sums.add(task, weight, values)

    def compute(self) -> dict[str, float]:
        """Read the figures: one transfer from the device.

        Returns:
            published_000_dice, ..._mask, ..._depth: 000's "Coef" of both tasks and of each.
            published_004_iou: 004's "IoU", of both tasks together.
            published_004_rmse: 004's "RMSE", of both tasks together; left out where it divides
                by zero.
            published_000_dice_perfect, published_004_iou_perfect: The same of a perfect
                prediction of these samples.

            A network of one task gets the figures of that task.
        """
        tasks = {task: sums for task, sums in self._sums.read().items() if sums[WEIGHT] > 0}
        if not tasks:
            return {}

        # both tasks have the same weights, so the mean of their means is the mean of the mixture
        def mean(name: str) -> float:
            return sum(sums[name] / sums[WEIGHT] for sums in tasks.values()) / len(tasks)

        found = {"published_000_dice": mean("dice_000")}
        for task, sums in tasks.items():
            found[f"published_000_dice_{task}"] = sums["dice_000"] / sums[WEIGHT]
        found["published_000_dice_perfect"] = mean("dice_000_perfect")
        found["published_004_iou"] = mean("iou_004")
        found["published_004_iou_perfect"] = mean("iou_004_perfect")
        if (rmse := mean("rmse_004")) > 0:
            found["published_004_rmse"] = 1 / rmse
        return found


def dice_000(answered_N1HW: Tensor, target_N1HW: Tensor) -> Tensor:
    """(N,) what 000's code computes: targets in [0, 1] are divided by 255, the answers are not.

    An answer that is right by 000's data is therefore in [0, 1/255].
    """
    answered = answered_N1HW.flatten(1).double()
    target = target_N1HW.flatten(1).double() / TARGET_SCALE_000
    overlap = (answered * target).sum(1)
    return (2 * overlap + EPS_000) / (answered.sum(1) + target.sum(1) + EPS_000)


def iou_004(predicted_N1HW: Tensor, target_N1HW: Tensor) -> Tensor:
    """(N,) soft IoU as 004's code computes it for either task, both in [0, 1]."""
    predicted, target = predicted_N1HW.flatten(1).double(), target_N1HW.flatten(1).double()
    overlap = (predicted * target).sum(1)
    return (overlap + EPS_004) / (predicted.sum(1) + target.sum(1) - overlap + EPS_004)


def rmse_004(predicted_N1HW: Tensor, target_N1HW: Tensor, weight: Tensor) -> Tensor:
    """(1,) root mean square error of a batch where the target is above 0.0001; 0 if nowhere."""
    weight_N111 = weight.double().view(-1, 1, 1, 1)
    counted = (target_N1HW > LEAST_TARGET_004) * weight_N111
    # where, not a product alone: a padded sample may hold anything, also nan
    squared = torch.where(counted > 0, (predicted_N1HW - target_N1HW).double().square(), 0)
    mean = (squared * counted).sum() / counted.sum().clamp(min=1e-12)
    return mean.sqrt().view(1)
