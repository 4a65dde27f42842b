"""Validation: a network and a loader in, metrics beside their free baselines out.

One function for the trainer and for `maskdepth evaluate`, so that both report the same figures.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models.metrics import Metrics, PublishedFigures
from models.prediction import Prediction
from models.training.distributed import ALONE, Ranks
from models.training.precision import Precision
from pipeline.batch import Batch, BatchLoader

if TYPE_CHECKING:
    from pipeline.loader import Loader


@dataclass(frozen=True, kw_only=True, slots=True)
class SetFacts:
    """What training must know about the set behind the loader."""

    fingerprint: str
    """Names the set; a checkpoint goes on with no other."""

    pixel_mean: tuple[float, float, float]
    """What was subtracted from each RGB channel of a batch's images."""

    pixel_std: tuple[float, float, float]
    """What each RGB channel was divided by."""

    mean_depth: Callable[[int], Tensor]
    """Size in pixels -> (size, size) mean depth image of the training split in [0, 1]."""

    sets: tuple[str, ...] = ()
    """What the set consists of, if it is several or repeated: told where another one is met."""

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of it: enough to know the set and to normalise other images."""
        return {
            "fingerprint": self.fingerprint,
            "pixel_mean": self.pixel_mean,
            "pixel_std": self.pixel_std,
            "sets": self.sets,
        }


def facts_of(loader: "Loader") -> SetFacts:
    """What training must know about a loader's set."""
    return SetFacts(
        fingerprint=loader.manifest.fingerprint,
        sets=loader.sets.record,
        pixel_mean=loader.normalisation.mean,
        pixel_std=loader.normalisation.std,
        mean_depth=lambda size: torch.from_numpy(loader.manifest.mean_depth(size)),
    )


def evaluate(
    network: nn.Module,
    loader: BatchLoader,
    *,
    size: int,
    batch_size: int,
    facts: SetFacts,
    precision: Precision,
    observe: Callable[[Batch, Prediction], None] | None = None,
    published: bool = False,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Score a network on every validation sample once.

    Args:
        network: Is set to evaluation and put back as it was.
        loader: Its `validate` is read to the end.
        size: Side of the square images in pixels.
        batch_size: Samples per forward pass.
        facts: What the baselines need.
        precision: How the network computes.
        observe: Called with every batch and its float32 logits; may raise to stop.
        published: Add the reference systems' own figures, defects included.
        ranks: Who else reads shares of the same batches; all get the metrics of the whole.

    Returns:
        `Metrics.compute()`, then `PublishedFigures.compute()` if asked for.
    """
    metrics = Metrics(facts.pixel_std, facts.mean_depth(size), precision.device)
    figures = PublishedFigures(precision.device) if published else None
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), loader.validate(size=size, batch_size=batch_size) as batches:
            for batch in batches:
                prediction = precision.predict(network, batch.background, batch.composite)
                metrics.update(
                    prediction,
                    background=batch.background,
                    composite=batch.composite,
                    mask=batch.mask,
                    depth=batch.depth,
                    weight=batch.weight,
                )
                if figures is not None:
                    figures.update(
                        prediction, mask=batch.mask, depth=batch.depth, weight=batch.weight
                    )
                if observe is not None:
                    observe(batch, prediction)
    finally:
        network.train(was_training)
    for counted in (metrics, figures):
        if counted is not None:
            counted.sums.copy_(ranks.total(counted.sums))
    return metrics.compute() | (figures.compute() if figures is not None else {})


def score(metrics: Mapping[str, float]) -> float:
    """One number to choose weights by: mask IoU less depth RMSE, as far as the network has both."""
    return metrics.get("mask_iou", 0.0) - metrics.get("depth_rmse", 0.0)
