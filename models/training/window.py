"""What the steps since the last record added up to, kept on the device until somebody asks."""

from typing import Any

import torch
from torch import Tensor

from models.losses import Losses

NAMES = ("loss", "mask_loss", "depth_loss", "grad_norm")


class Window:
    """Means of losses and gradient norms over those steps that were not skipped."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(len(NAMES) + 1, device=device)
        self._num_steps = 0

    def add(self, losses: Losses, grad_norm: Tensor, bad: Tensor) -> None:
        """Add a step; launches, never waits.

        Args:
            losses: () each.
            grad_norm: (), of all gradients together.
            bad: () 1 where the step was skipped, else 0.
        """
        values = torch.stack([*losses, grad_norm]).detach()
        self._sums[:-1] += torch.where(bad.bool(), 0.0, values)
        self._sums[-1] += bad
        self._num_steps += 1

    def take(self) -> dict[str, float]:
        """The means, and begin anew; waits for the device. Zeros if no step was added."""
        *sums, num_skipped = self._sums.tolist()
        num_steps = max(1, self._num_steps - num_skipped)
        means = {name: total / num_steps for name, total in zip(NAMES, sums, strict=True)}
        self._sums.zero_()
        self._num_steps = 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that the next record covers the same steps."""
        return {"sums": self._sums.cpu(), "num_steps": self._num_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was called."""
        self._sums.copy_(state["sums"])
        self._num_steps = state["num_steps"]
