"""The learning rate, and the tasks' weights, as pure functions of progress.

Progress is the share of the samples already consumed, from 0 at the first step towards 1 at the
last: of the whole run, through all stages, or of each stage anew (`at_stage`). These functions
hold no state: a resumed run computes the rate of its next step and nothing else. What depends on
how training goes, a plateau, is beside this in `plateau.py`.
"""

import math
import re
from dataclasses import dataclass

SCHEDULES = ("one-cycle", "cosine", "constant", "step", "plateau")
AT_STAGE = ("continue", "restart")
WATCHED = ("loss", "score")

_NUMBER = r"(\d+\.?\d*(?:e-?\d+)?|\.\d+)"
_RAMP = re.compile(rf"\s*{_NUMBER}\s*->\s*{_NUMBER}\s*")
_TINY = 1e-9
"""Shares are quotients: an epoch's border may be missed by a rounding, but not by this much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """The shape of the learning rate, relative to its peak."""

    name: str = "one-cycle"
    """`one-cycle` (cosine up, cosine down); after a linear warm-up `cosine` (down), `constant`,
    `step` (down by `factor` at given places) or `plateau` (down by `factor` when validation no
    longer improves)."""

    warmup: float = 0.2
    """Share of the run until the peak, 0 to less than 1."""

    start: float = 0.04
    """First rate, as a share of the peak."""

    final: float = 4e-6
    """Last rate, as a share of the peak: of one-cycle and cosine; a plateau's never falls below."""

    at: str = "0.5,0.75"
    """Where `step` goes down: shares of the run, or epochs as in 4e,8e."""

    factor: float = 0.1
    """What `step` and `plateau` multiply the rate by, above 0 and less than 1."""

    watch: str = "loss"
    """What `plateau` looks at: validation's `loss` (less is better) or its `score` (more is)."""

    patience: int = 2
    """Validations without an improvement that `plateau` lets pass; one more lowers the rate."""

    threshold: float = 1e-4
    """The least improvement that counts: a share of the best loss, or an amount of score."""

    cooldown: int = 0
    """Validations after a lowering in which `plateau` counts nothing."""

    at_stage: str = "continue"
    """`continue`: one shape over the whole run; `restart`: each stage has its own from the
    beginning, and a plateau's rate is back at the peak."""

    mask_weight: str = ""
    """Factor of the mask's loss, from the run's begin to its end in a line: 1 -> 0.5. Empty: the
    loss's own, all the time."""

    depth_weight: str = ""
    """The same for the depth's loss."""

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            msg = f"schedule {self.name!r} is not known; choose one of {', '.join(SCHEDULES)}"
            raise ValueError(msg)
        for name, known in (("at_stage", AT_STAGE), ("watch", WATCHED)):
            if getattr(self, name) not in known:
                msg = f"schedule {name} {getattr(self, name)!r} must be {' or '.join(known)}"
                raise ValueError(msg)
        if not 0 <= self.warmup < 1:
            msg = f"schedule warmup {self.warmup} is a share of the run: 0 to less than 1"
            raise ValueError(msg)
        for name in ("start", "final"):
            if not 0 <= getattr(self, name) <= 1:
                msg = f"schedule {name} {getattr(self, name)} is a share of the peak: 0 to 1"
                raise ValueError(msg)
        if not 0 < self.factor < 1:
            msg = f"schedule factor {self.factor} must be above 0 and less than 1"
            raise ValueError(msg)
        for name in ("patience", "threshold", "cooldown"):
            if not getattr(self, name) >= 0:
                msg = f"schedule {name} {getattr(self, name)} must be 0 or more"
                raise ValueError(msg)
        parse_places(self.at)
        for name in ("mask_weight", "depth_weight"):
            if text := getattr(self, name):
                parse_ramp(text, name)

    def rate(self, progress: float, *, passes: float = 0.0) -> float:
        """Learning rate as a share of the peak; what a plateau takes off comes on top.

        Args:
            progress: In [0, 1].
            passes: Passes over the samples made until there.
        """
        match self.name:
            case "one-cycle":
                shape = one_cycle
            case "cosine":
                shape = cosine
            case "step":
                return self._warmed(progress) * self.factor ** self._num_drops(progress, passes)
            case _:
                return self._warmed(progress)
        return shape(progress, warmup=self.warmup, start=self.start, final=self.final)

    def task_weights(self, progress: float) -> dict[str, float]:
        """`mask_weight` and `depth_weight` at `progress` of the run, those of them that change."""
        ramps = {"mask_weight": self.mask_weight, "depth_weight": self.depth_weight}
        found = {}
        for name, text in ramps.items():
            if text:
                begin, end = parse_ramp(text, name)
                found[name] = begin + (end - begin) * progress
        return found

    def _warmed(self, progress: float) -> float:
        return warm_up(progress, warmup=self.warmup, start=self.start)

    def _num_drops(self, progress: float, passes: float) -> int:
        return sum(
            (passes if in_epochs else progress) >= place - _TINY
            for place, in_epochs in parse_places(self.at)
        )


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
        return warm_up(progress, warmup=warmup, start=start)
    return _anneal(1.0, final, (progress - warmup) / (1 - warmup))


def warm_up(progress: float, *, warmup: float, start: float) -> float:
    """Line from `start` to 1, and 1 from there on (Goyal et al. 2017, arXiv:1706.02677)."""
    return start + (1 - start) * progress / warmup if progress < warmup else 1.0


def parse_places(text: str) -> tuple[tuple[float, bool], ...]:
    """Read "0.5,0.75" or "4e,8e" as ((4.0, True), (8.0, True)); True is for epochs.

    Raises:
        ValueError: A part is neither a share of the run nor a number of epochs.
    """
    places = []
    for part in text.split(","):
        number = part.strip().removesuffix("e")
        in_epochs = part.strip().endswith("e")
        try:
            place = float(number)
        except ValueError:
            place = math.nan
        if not 0 < place < (math.inf if in_epochs else 1):
            msg = (
                f"schedule at {part.strip()!r} is neither a share of the run above 0 and less "
                "than 1, such as 0.5, nor a number of epochs, such as 4e"
            )
            raise ValueError(msg)
        places.append((place, in_epochs))
    return tuple(places)


def parse_ramp(text: str, name: str) -> tuple[float, float]:
    """Read "1 -> 0.5" as (1.0, 0.5).

    Raises:
        ValueError: The text is no such line.
    """
    if found := _RAMP.fullmatch(text):
        return float(found[1]), float(found[2])
    msg = f"{name} {text!r} is no change over the run; write BEGIN -> END, such as 1 -> 0.5"
    raise ValueError(msg)


def _anneal(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2
