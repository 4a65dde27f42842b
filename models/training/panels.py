"""The same few validation samples drawn at every validation: pictures that can be compared."""

import torch
from PIL import Image
from torch import Tensor

from models.panel import panel
from models.prediction import Prediction
from models.training.evaluate import SetFacts
from pipeline.batch import Batch

FEW_ROWS, MANY_PX = 8, 96
"""More rows are drawn at this size at most: a picture of 32 at 224 px would be 7,000 px high."""


class PanelRows:
    """Collects the first samples of a validation with their predictions.

    Validation comes in stored order, which is a fixed random one, so the first samples are
    always the same and a fair choice.
    """

    def __init__(self, num_rows: int) -> None:
        self._num_missing = num_rows
        self._parts: list[dict[str, Tensor]] = []

    def add(self, batch: Batch, prediction: Prediction) -> None:
        """Take from a batch what is still missing; padding is passed over."""
        if self._num_missing == 0 or batch.is_void:
            return
        rows = torch.nonzero(batch.weight)[: self._num_missing, 0]
        images = {
            "background": batch.background,
            "composite": batch.composite,
            "mask": batch.mask,
            "depth": batch.depth,
            "predicted_mask": prediction.mask(),
            "predicted_depth": prediction.depth(),
        }
        self._parts.append({name: part[rows] for name, part in images.items() if part is not None})
        self._num_missing -= len(rows)

    def draw(self, facts: SetFacts) -> Image.Image | None:
        """The picture, or None where no sample was collected."""
        if not self._parts:
            return None
        rows = {name: torch.cat([part[name] for part in self._parts]) for name in self._parts[0]}
        return panel(
            rows.get("background"),
            rows["composite"],
            rows["mask"],
            rows["depth"],
            rows.get("predicted_mask"),
            rows.get("predicted_depth"),
            mean=facts.pixel_mean,
            std=facts.pixel_std,
            max_rows=len(rows["composite"]),
            max_px=MANY_PX if len(rows["composite"]) > FEW_ROWS else None,
            with_errors=True,
        )
