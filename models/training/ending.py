"""How a run ends before its plan does: asked to, or in time; saved, and told how to go on."""

import signal
from dataclasses import dataclass

from models.checkpoint import LAST
from models.error import Interrupted, TimeIsUp, TrainingError
from models.training.plan import RunPlan
from models.training.saving import Saver
from models.training.stop import StopRequest
from models.training.time_limit import TimeLimit


@dataclass(kw_only=True)
class Ending:
    """Asked between two things that are worth something; all ranks ask together."""

    stop: StopRequest
    time_limit: TimeLimit
    limit: str
    """The time limit as it was asked for."""

    saver: Saver
    plan: RunPlan
    has_moved: bool = False
    """Something was achieved that the checkpoint this process began with does not have."""

    def if_asked(self) -> None:
        """Save and end the run, if a signal came or time is up.

        Raises:
            Interrupted: A signal came.
            TimeIsUp: Time is up.
            TrainingError: It is, and nothing was achieved.
        """
        number, is_up = self.saver.ranks.highest(self.stop.received or 0, self.time_limit.is_up())
        if number:
            raise Interrupted(self._saved(f"stopped by {signal.Signals(number).name}"))
        if is_up:
            self._in_time()

    def unless_there_is_room(self) -> None:
        """The same, if time does not suffice to open a stage or a validation."""
        (is_over,) = self.saver.ranks.highest(not self.time_limit.has_room_to_open())
        if is_over:
            self._in_time()

    def _in_time(self) -> None:
        if not self.has_moved:
            msg = (
                f"{self.saver.run_dir} got no further within the time limit of {self.limit}, so "
                "that --resume would never end; give more time"
            )
            raise TrainingError(msg)
        raise TimeIsUp(self._saved(f"the time limit of {self.limit} is near; stopped"))

    def _saved(self, why: str) -> str:
        """Save, and tell."""
        self.saver.save(LAST)
        return (
            f"{why} after step {self.saver.progress.step:,} of {self.plan.num_steps:,} and saved "
            f"{self.saver.run_dir / LAST}; the same command with --resume goes on from there"
        )
