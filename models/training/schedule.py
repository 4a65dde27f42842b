"""The learning rate as a pure function of progress.

Progress is the share of the run's samples already consumed, from 0 at the first step towards 1
at the last. It runs over the whole run, through all stages, and holds no state: a resumed run
computes the rate of its next step and nothing else.
"""

import math
from dataclasses import dataclass

SCHEDULES = ("one-cycle", "cosine")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """The shape of the learning rate, relative to its peak."""

    name: str = "one-cycle"
    """`one-cycle` (cosine up, cosine down) or `cosine` (linear warm-up, cosine down)."""

    warmup: float = 0.2
    """Share of the run until the peak, 0 to less than 1."""

    start: float = 0.04
    """First rate, as a share of the peak."""

    final: float = 4e-6
    """Last rate, as a share of the peak."""

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            msg = f"schedule {self.name!r} is not known; choose one of {', '.join(SCHEDULES)}"
            raise ValueError(msg)
        if not 0 <= self.warmup < 1:
            msg = f"schedule warmup {self.warmup} is a share of the run: 0 to less than 1"
            raise ValueError(msg)
        for name in ("start", "final"):
            if not 0 <= getattr(self, name) <= 1:
                msg = f"schedule {name} {getattr(self, name)} is a share of the peak: 0 to 1"
                raise ValueError(msg)

    def rate(self, progress: float) -> float:
        """Learning rate as a share of the peak, at `progress` in [0, 1]."""
        shape = one_cycle if self.name == "one-cycle" else cosine
        return shape(progress, warmup=self.warmup, start=self.start, final=self.final)


def one_cycle(progress: float, *, warmup: float, start: float, final: float) -> float:
    """Cosine from `start` to 1, cosine from 1 to `final` (Smith and Topin, arXiv:1708.07120).

    Two phases, as `torch.optim.lr_scheduler.OneCycleLR` draws them; momentum stays as it is.
    """
    if progress < warmup:
        return _anneal(start, 1.0, progress / warmup)
    return _anneal(1.0, final, (progress - warmup) / (1 - warmup))


def cosine(progress: float, *, warmup: float, start: float, final: float) -> float:
    """Line from `start` to 1, cosine to `final` (Loshchilov and Hutter, arXiv:1608.03983)."""
    if progress < warmup:
        return start + (1 - start) * progress / warmup
    return _anneal(1.0, final, (progress - warmup) / (1 - warmup))


def _anneal(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2
