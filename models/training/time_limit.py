"""Ends a run in time for machines that stop a command after so many minutes.

    --time-limit 9m: the process saves and ends by itself before nine minutes are over

Between two steps, and between two batches of a validation, the run asks `is_up`. What lies before
the end is room for as long as anything between two questions took lately, twice; for the longest
save so far, twice; and for the process to end. Which step the run stops at depends on the clock,
and the weights it ends with do not.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)\s*([smh]?)")
_LATELY = 64
"""Questions: what took long once, such as a validation's first batch, is forgotten after these."""

ENDING_S = 2.0
"""What closing the loader, the records and the process takes; a GPU's context most of it."""


class TimeLimit:
    """How long a run may go on.

    Args:
        seconds: From `began` until the process is gone; 0: no limit.
        began: When the process began, on `clock`; None: now.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        seconds: float,
        began: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._asked = clock()
        self._end = (self._asked if began is None else began) + seconds if seconds else float("inf")
        self._intervals: deque[float] = deque(maxlen=_LATELY)
        self._save_s = 0.0
        self._opening_s = 0.0
        self._opened: float | None = None

    @property
    def wants_a_save(self) -> bool:
        """Whether there is a limit and nobody knows yet how much room a save needs."""
        return self._is_set and not self._save_s

    def is_up(self) -> bool:
        """Whether to save and stop now; asked between any two things that are worth something."""
        now = self._clock()
        self._intervals.append(now - self._asked)
        self._asked = now
        return self._is_over(now, 2 * max(self._intervals))

    def has_room_to_open(self) -> bool:
        """Whether a stage or a validation may be opened, by what opening stages took before."""
        return not self._is_over(self._clock(), 2 * self._opening_s)

    def opening(self) -> None:
        """A stage's loader is about to be opened, and its network to be compiled."""
        self._opened = self._clock()

    def opened(self) -> None:
        """A step of the stage was made, if only now: no step will take as long again."""
        if self._opened is not None:
            self._asked = self._clock()
            self._opening_s = max(self._opening_s, self._asked - self._opened)
            self._opened = None

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around a save: times it."""
        began = self._clock()
        yield
        self._save_s = max(self._save_s, self._clock() - began)

    @property
    def _is_set(self) -> bool:
        return self._end < float("inf")

    def _is_over(self, now: float, room_s: float) -> bool:
        return self._is_set and now + room_s + 2 * self._save_s + ENDING_S > self._end


def parse_duration(text: str) -> float:
    """Read "9m", "1.5h", "90s" or "90" as seconds; empty is 0.

    Raises:
        ValueError: The text is no such duration.
    """
    if not text:
        return 0.0
    if (found := _DURATION.fullmatch(text.strip())) and float(found[1]) > 0:
        return float(found[1]) * _UNITS_S[found[2]]
    msg = f"time_limit {text!r} is no time above 0; write it as 9m, 90s or 1.5h"
    raise ValueError(msg)
