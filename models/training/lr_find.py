"""The learning-rate range test: which rate should a run have?

Smith, "Cyclical learning rates for training neural networks", 2017: the network is trained with a
rate that grows from step to step, exponentially; where the loss falls fastest the rate is good,
and where it turns up again it is too high. Two rates come out: that of the steepest descent, and a
tenth of that of the lowest loss. For them each loss is the mean of its neighbours on both sides: an
exponential mean, as is usual, lags behind and finds rates ten times as high. Nothing is kept of the
weights.
"""

import copy
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from PIL import Image, ImageDraw, ImageFont

from models.error import TrainingError
from models.training.learner import Learner
from pipeline.batch import Batch

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 420, 70, 20, 50, 50
_SCALE = 2  # drawn at twice the size: sharp on today's screens
_INK, _FAINT, _GRID, _RAW, _SMOOTH = "#222222", "#8a8a8a", "#e6e6e6", "#c3d3e6", "#2f6db3"
_STEEPEST, _TENTH = "#d1495b", "#3c8d5a"
_FEWEST = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class LrFindConfig:
    """A range test."""

    lowest: float = 1e-6
    """Rate of the first step."""

    highest: float = 1.0
    """Rate of the last step, if the loss does not diverge before."""

    steps: int = 100
    """From the one to the other."""

    smoothing: int = 4
    """Each loss is averaged with so many before it and after it, or as many as there are."""

    diverged: float = 3.0
    """The test ends where the mean of the latest losses is so many times the lowest such mean."""

    def __post_init__(self) -> None:
        if not 0 < self.lowest < self.highest < math.inf:
            msg = f"rates from {self.lowest:g} to {self.highest:g} do not grow from above 0"
            raise ValueError(msg)
        if self.steps < _FEWEST:
            msg = f"{self.steps} steps show nothing; at least {_FEWEST}"
            raise ValueError(msg)
        if self.smoothing < 0:
            msg = f"smoothing {self.smoothing} must be 0 or more"
            raise ValueError(msg)
        if not self.diverged > 1:
            msg = f"diverged {self.diverged} must be above 1"
            raise ValueError(msg)

    def rate(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        return float(self.lowest * (self.highest / self.lowest) ** (step / (self.steps - 1)))


@dataclass(frozen=True, kw_only=True, slots=True)
class RangeTest:
    """What came out: a row for each step made."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """As the network had them before the step."""

    smoothed: tuple[float, ...]
    has_diverged: bool
    """The loss turned up so far that the test ended early."""

    @property
    def steepest(self) -> float:
        """Rate at which the smoothed loss falls fastest, by the logarithm of the rate."""
        return self.rates[_steepest(self.smoothed[: self._lowest + 1])]

    @property
    def tenth_of_lowest(self) -> float:
        """A tenth of the rate at which the smoothed loss is lowest."""
        return self.rates[self._lowest] / 10

    @property
    def _lowest(self) -> int:
        return self.smoothed.index(min(self.smoothed))

    def save(self, path: Path) -> None:
        """Write the suggestions and every step as JSON."""
        found = {"steepest": self.steepest, "tenth_of_lowest": self.tenth_of_lowest, **asdict(self)}
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def range_test(learner: Learner, batches: Iterator[Batch], config: LrFindConfig) -> RangeTest:
    """Make the steps; the learner is afterwards as it was before.

    Args:
        learner: Network, loss and optimiser, as they would train.
        batches: At least `config.steps`, of the training split.
        config: Which rates.

    Raises:
        TrainingError: The loss is no finite number from the start, or it never fell.
    """
    before = copy.deepcopy(learner.state_dict())
    rates: list[float] = []
    losses: list[float] = []
    lowest, has_diverged = math.inf, False
    for step, batch in zip(range(config.steps), batches, strict=False):
        rate = config.rate(step)
        share = rate / learner.config.optimizer.lr
        learner.step(batch, rate=share, progress=0.0, number=step)
        loss = _loss_of_step(learner)
        if loss is None:
            continue
        if not math.isfinite(loss):
            has_diverged = True
            break
        rates.append(rate)
        losses.append(loss)
        latest = fmean(losses[-1 - config.smoothing :])
        lowest = min(lowest, latest)
        if latest > config.diverged * lowest:
            has_diverged = True
            break
    learner.load_state_dict(before, Path("the state before the range test"))
    smoothed = centred_means(losses, config.smoothing)
    if len(rates) < _FEWEST or min(smoothed) == smoothed[0]:
        msg = (
            f"the loss never fell from its first value between the rates {config.lowest:g} and "
            f"{rates[-1] if rates else config.lowest:g}; try a lower --lowest, or look for a "
            "fault in data and losses"
        )
        raise TrainingError(msg)
    return RangeTest(
        rates=tuple(rates), losses=tuple(losses), smoothed=smoothed, has_diverged=has_diverged
    )


def centred_means(values: Sequence[float], reach: int) -> tuple[float, ...]:
    """Each value's mean with `reach` on either side; near an end, as many as both sides have."""
    means = []
    for place in range(len(values)):
        own = min(reach, place, len(values) - 1 - place)
        means.append(fmean(values[place - own : place + own + 1]))
    return tuple(means)


def _loss_of_step(learner: Learner) -> float | None:
    """Waits for the device; not a number where the step was skipped for its loss or gradient.

    None where fp16's scaler has left it out, as it does while it looks for its scale.
    """
    if learner.skipped.take():
        return math.nan
    means = learner.window.take()
    is_left_out = learner.scaler.is_enabled() and not any(means.values())
    return None if is_left_out else means["loss"]


def _steepest(values: tuple[float, ...]) -> int:
    """Where a curve over equal steps falls fastest, by central differences."""
    slopes = [
        (values[min(place + 1, len(values) - 1)] - values[max(place - 1, 0)])
        / (min(place + 1, len(values) - 1) - max(place - 1, 0))
        for place in range(len(values))
    ]
    return slopes.index(min(slopes))


def draw(found: RangeTest, title: str) -> Image.Image:
    """The losses over the rate, with both suggestions."""
    image = Image.new("RGB", (_WIDTH * _SCALE, _HEIGHT * _SCALE), "white")
    canvas = ImageDraw.Draw(image)
    font = ImageFont.load_default(12 * _SCALE)
    low, high = _range(found)
    first, last = math.log10(found.rates[0]), math.log10(found.rates[-1])

    def at(rate: float, loss: float) -> tuple[float, float]:
        across = (math.log10(rate) - first) / (last - first)
        up = (min(max(loss, low), high) - low) / (high - low)
        x = _LEFT + across * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)
        return x * _SCALE, y * _SCALE

    def text(x: float, y: float, words: str, colour: str, anchor: str) -> None:
        canvas.text((x, y), words, fill=colour, font=font, anchor=anchor)

    for power in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1):
        (x, bottom), (_, top) = at(10.0**power, low), at(10.0**power, high)
        canvas.line((x, bottom, x, top), fill=_GRID, width=_SCALE)
        text(x, bottom + 6 * _SCALE, f"1e{power}", _INK, "ma")
    for part in range(5):
        loss = low + part * (high - low) / 4
        (left, y), (right, _) = at(found.rates[0], loss), at(found.rates[-1], loss)
        canvas.line((left, y, right, y), fill=_GRID, width=_SCALE)
        text(left - 6 * _SCALE, y, f"{loss:.3g}", _INK, "rm")
    for values, colour, width in ((found.losses, _RAW, 1), (found.smoothed, _SMOOTH, 2)):
        points = [at(rate, loss) for rate, loss in zip(found.rates, values, strict=True)]
        canvas.line(points, fill=colour, width=width * _SCALE, joint="curve")
    for number, (rate, words, colour) in enumerate(
        (
            (found.steepest, "steepest", _STEEPEST),
            (found.tenth_of_lowest, "lowest / 10", _TENTH),
        )
    ):
        x, bottom = at(min(max(rate, found.rates[0]), found.rates[-1]), low)
        canvas.line((x, bottom, x, _TOP * _SCALE), fill=colour, width=_SCALE)
        place = (_LEFT + 260 * number) * _SCALE
        text(place, 28 * _SCALE, f"| {words}: {rate:.2g}", colour, "la")
    text(_LEFT * _SCALE, 8 * _SCALE, title, _INK, "la")
    text((_WIDTH - _RIGHT) * _SCALE, 8 * _SCALE, "loss, and smoothed", _FAINT, "ra")
    text(_WIDTH * _SCALE / 2, (_HEIGHT - 8) * _SCALE, "learning rate", _FAINT, "md")
    return image


def _range(found: RangeTest) -> tuple[float, float]:
    """Losses that are shown: what rises above the first ones says nothing."""
    low = min(*found.losses, *found.smoothed)
    high = max(found.smoothed[0], *found.losses[:_FEWEST]) + 0.2 * (found.smoothed[0] - low)
    return low, max(high, low + 1e-6)
