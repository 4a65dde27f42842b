"""Targets as the losses need them: in [0, 1], and of the size and channels of the logits."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from models.error import TrainingError

ROUNDING = 1e-4
"""How far outside [0, 1] an interpolated target may lie."""


def refuse_bad_targets(targets: Mapping[str, Tensor], weight_N: Tensor) -> bool:
    """Check that targets lie in [0, 1]; waits for the device.

    Four of the five reference systems trained on wrongly scaled ones, and no loss showed it.

    Args:
        targets: (N, 1, H, W) by the name of the task.
        weight_N: A sample of weight 0 may hold anything.

    Returns:
        Whether there was a sample that counts.

    Raises:
        TrainingError: A target is not a number or lies outside; names all such tasks, what was
            found and the likely cause.
    """
    counts = weight_N > 0
    if not counts.any():
        return False
    faults = []
    for task, target in targets.items():
        low, high = torch.stack(target[counts].aminmax()).tolist()  # nan is passed on
        if cause := _likely_cause(low, high):
            faults.append(f"{task} targets lie in {low:.4g} to {high:.4g}, {cause}")
    if faults:
        msg = f"targets must lie in [0, 1], but {'; '.join(faults)}; mend what makes the batches"
        raise TrainingError(msg)
    return True


def _likely_cause(low: float, high: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return "so some are no finite numbers: probably divided by 0 or decoded wrongly"
    if low < -ROUNDING:
        return "below 0: probably standardised by mean and deviation, which is for images alone"
    if high > 255:
        return "above 1: probably 16-bit levels that were not divided by 65535"
    if high > 1 + ROUNDING:
        return "above 1: probably 8-bit levels that were not divided by 255"
    return ""


def like_logits(target_N1HW: Tensor, logits_NCHW: Tensor) -> Tensor:
    """The target at the logits' size (by area averaging), in all their channels and their type."""
    target = target_N1HW.to(logits_NCHW.dtype)
    if target.shape[-2:] != logits_NCHW.shape[-2:]:
        target = F.interpolate(target, logits_NCHW.shape[2:], mode="area")
    return target.expand_as(logits_NCHW)
