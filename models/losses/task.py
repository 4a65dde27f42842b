"""The losses of both tasks: a `Prediction` and its targets in, three scalars out."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from models.losses.expression import Term, parse_loss
from models.losses.targets import like_logits, refuse_bad_targets
from models.prediction import Prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """What is minimised: mask_weight * mask loss + depth_weight * depth loss."""

    mask: str = "bce + dice"
    """Sum of optionally weighted terms for the mask, as `parse_loss` reads it."""

    depth: str = "l1 + ssim"
    """Sum of optionally weighted terms for the depth, as `parse_loss` reads it."""

    mask_weight: float = 1.0
    """Factor of the mask's loss in the total, not negative."""

    depth_weight: float = 1.0
    """Factor of the depth's loss in the total, not negative."""

    def __post_init__(self) -> None:
        """Check the expressions and the weights."""
        parse_loss(self.mask)
        parse_loss(self.depth)
        for name, weight in (
            ("mask_weight", self.mask_weight),
            ("depth_weight", self.depth_weight),
        ):
            if not (math.isfinite(weight) and weight >= 0):
                msg = f"{name} is {weight}; a task's weight is a number from 0 up"
                raise ValueError(msg)
        if self.mask_weight == self.depth_weight == 0:
            msg = "mask_weight and depth_weight are both 0; nothing would be learned"
            raise ValueError(msg)

    def check_size(
        self, size: int, smallest_scale: int = 1, tasks: Collection[str] = ("mask", "depth")
    ) -> None:
        """Check that every term can be computed.

        Args:
            size: Side of the images in pixels.
            smallest_scale: The smallest of the network's scales has 1/smallest_scale of that side.
            tasks: What the network predicts: the terms of another task are never computed.

        Raises:
            ValueError: A term's window is larger than the image; names the largest that fits.
        """
        for task in tasks:
            for _, term in parse_loss(getattr(self, task)):
                term.check_size(size, smallest_scale)


class Losses(NamedTuple):
    """Scalars, means over the samples' weights; a task the network lacks is 0."""

    total: Tensor
    mask: Tensor
    depth: Tensor


class TaskLoss:
    """Turns a prediction and its targets into `Losses`."""

    def __init__(self, config: LossConfig) -> None:
        self.config = config
        self._mask_terms = parse_loss(config.mask)
        self._depth_terms = parse_loss(config.depth)
        self._has_seen_targets = False

    def __call__(
        self,
        prediction: Prediction,
        mask: Tensor,
        depth: Tensor,
        weight: Tensor,
        *,
        mask_weight: float | Tensor | None = None,
        depth_weight: float | Tensor | None = None,
    ) -> Losses:
        """Compute the losses in float32, also under autocast.

        The first call looks at the targets' range, for which it waits for the device; later ones
        only launch.

        Args:
            prediction: Logits (N, C, H, W), of any floating type; with C channels, each is compared
                with the target. Its scales are compared with the targets brought to their size
                by area averaging; a task's loss is the mean over full size and scales.
            mask: (N, 1, H, W) targets in [0, 1].
            depth: (N, 1, H, W) targets in [0, 1].
            weight: (N,) weights of the samples, not negative. At 0 a sample changes nothing,
                whatever its targets hold.
            mask_weight: Takes the place of the configuration's; a number or a scalar tensor.
            depth_weight: Likewise.

        Raises:
            ValueError: The images are too small for a term.
            TrainingError: A target of the first batch lies outside [0, 1].
        """
        scales = (prediction, *prediction.scales)
        of_mask = [scale.mask_logits for scale in scales if scale.mask_logits is not None]
        of_depth = [scale.depth_logits for scale in scales if scale.depth_logits is not None]
        if not self._has_seen_targets:
            learned = {"mask": mask} if of_mask else {}
            learned |= {"depth": depth} if of_depth else {}
            self._has_seen_targets = refuse_bad_targets(learned, weight)
        if mask_weight is None:
            mask_weight = self.config.mask_weight
        if depth_weight is None:
            depth_weight = self.config.depth_weight
        with torch.autocast(mask.device.type, enabled=False):
            mask_loss = _task_loss(self._mask_terms, of_mask, mask, weight)
            depth_loss = _task_loss(self._depth_terms, of_depth, depth, weight)
            total = mask_weight * mask_loss + depth_weight * depth_loss
        return Losses(total, mask_loss, depth_loss)


def _task_loss(
    terms: Sequence[tuple[float, Term]], scales: Sequence[Tensor], target: Tensor, weight: Tensor
) -> Tensor:
    if not scales:
        return target.new_zeros((), dtype=torch.float32)
    return torch.stack([_scale_loss(terms, logits, target, weight) for logits in scales]).mean()


def _scale_loss(
    terms: Sequence[tuple[float, Term]], logits: Tensor, target: Tensor, weight: Tensor
) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    weight = weight.to(logits.dtype)
    # blanked, not weighted alone: 0 times nan is nan
    target = torch.where((weight > 0).view(-1, 1, 1, 1), like_logits(target, logits), 0)
    loss = sum(factor * term(logits, target, weight) for factor, term in terms)
    assert isinstance(loss, Tensor)
    # a batch of nothing but weight 0 costs 0, not 0 / 0
    return (loss * weight).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
