"""A learning rate that falls when validation no longer improves.

The same rule as `torch.optim.lr_scheduler.ReduceLROnPlateau`, whose state would not survive our
checkpoints: it holds the rate itself, here it is a share that multiplies the schedule's. Values of
two stages are not compared: at another size a loss measures another task.
"""

import math
from typing import Any

from models.training.schedule import ScheduleConfig


class Plateau:
    """Counts validations without an improvement; a function of the values it was shown alone."""

    def __init__(self, config: ScheduleConfig) -> None:
        self.config = config
        self.share = 1.0
        """What the schedule's rate is multiplied by."""
        self._stage = 0
        self._best: float | None = None
        self._num_bad = 0
        self._cooling = 0

    def begin_stage(self, number: int) -> None:
        """Forget the values of an earlier stage; the stage of a resumed run is no new one."""
        if number == self._stage:
            return
        self._stage, self._best, self._num_bad, self._cooling = number, None, 0, 0
        if self.config.at_stage == "restart":
            self.share = 1.0

    def update(self, value: float) -> None:
        """Look at the loss or score of a validation."""
        if self._is_better(value):
            self._best, self._num_bad = value, 0
        else:
            self._num_bad += 1
        if self._cooling:
            self._cooling -= 1
            self._num_bad = 0
        if self._num_bad > self.config.patience:
            self.share = max(self.share * self.config.factor, self.config.final)
            self._cooling, self._num_bad = self.config.cooldown, 0

    def _is_better(self, value: float) -> bool:
        if self._best is None:
            return not math.isnan(value)
        if self.config.watch == "loss":
            return value < self._best * (1 - self.config.threshold)
        return value > self._best + self.config.threshold

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "share": self.share,
            "stage": self._stage,
            "best": self._best,
            "num_bad": self._num_bad,
            "cooling": self._cooling,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was called."""
        self.share = state["share"]
        self._stage = state["stage"]
        self._best = state["best"]
        self._num_bad = state["num_bad"]
        self._cooling = state["cooling"]
