"""The loss on validation samples, beside their metrics: what a plateau looks at."""

import torch
from torch import Tensor

from models.losses import TaskLoss
from models.prediction import Prediction
from models.training.distributed import ALONE, Ranks
from pipeline.batch import Batch

NAMES = ("loss", "mask_loss", "depth_loss")


class ValidationLoss:
    """Adds up over a validation, on the device; one for each.

    The tasks' weights are the loss's own, also where the schedule changes them while training:
    validations of one run stay comparable.
    """

    def __init__(self, loss: TaskLoss) -> None:
        self._loss = loss
        self._sums: Tensor | None = None

    @torch.no_grad()
    def add(self, batch: Batch, prediction: Prediction) -> None:
        """Add a batch; launches, never waits."""
        losses = self._loss(prediction, batch.mask, batch.depth, batch.weight)
        weight = batch.weight.sum()
        row = torch.stack([*(weight * loss for loss in losses), weight]).double()
        self._sums = row if self._sums is None else self._sums + row

    def means(self, ranks: Ranks = ALONE) -> dict[str, float]:
        """Means over the weights of all ranks' samples; waits for the device. Empty without any."""
        if self._sums is None:
            return {}
        *sums, weight = ranks.total(self._sums).tolist()
        return {name: total / max(weight, 1e-9) for name, total in zip(NAMES, sums, strict=True)}
