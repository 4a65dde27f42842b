"""Where a run's steps lie: stages and epoch borders, worked out before the first step.

    stages "64:4,96:50000s", batch sizes "256,128", N samples -> steps 1 ... num_steps

All stages draw from one endless stream of samples. A stage takes ceil(epochs x N / batch) steps,
or ceil(samples / batch), and the next one goes on with the very next sample, so stages need not be
whole epochs and no sample is lost or seen twice between them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from models.error import TrainingError


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A stretch of training at one size and one batch size."""

    size: int
    """Side of the square images in pixels."""

    batch_size: int
    """Samples per step."""

    epochs: float = 0.0
    """Passes over the training split; a fraction is allowed."""

    samples: int = 0
    """Length in samples instead of epochs, for sets of any size the same."""

    def __post_init__(self) -> None:
        if self.size < 1:
            msg = f"stage size {self.size} px must be at least 1"
            raise ValueError(msg)
        if not self.samples and not 0 < self.epochs < math.inf:
            msg = f"a stage of {self.epochs:g} epochs is none; give a number above 0"
            raise ValueError(msg)
        if self.batch_size < 1:
            msg = f"batch size {self.batch_size} must be at least 1"
            raise ValueError(msg)

    def epochs_of(self, num_samples: int) -> float:
        """Passes over a training split of `num_samples`."""
        return float(self._length(num_samples) / num_samples)

    def epoch_ends(self, num_samples: int) -> list[int]:
        """Steps of the stage after which a pass over `num_samples`, or the stage, is complete."""
        length = self._length(num_samples)
        borders = [*range(num_samples, math.floor(length) + 1, num_samples), length]
        return sorted({math.ceil(samples / self.batch_size) for samples in borders})

    def _length(self, num_samples: int) -> Fraction:
        if self.samples:
            return Fraction(self.samples)
        # by way of the decimal text: 1.1 epochs of 10 samples are 11, not a little more
        return Fraction(repr(self.epochs)) * num_samples


def parse_stages(stages: str, batch_sizes: str) -> tuple[Stage, ...]:
    """Read "64:4,96:2,224:50000s" and "256" or "256,128,64" (one per stage).

    A stage is SIZE:EPOCHS, or SIZE:SAMPLES with an s behind.

    Raises:
        ValueError: The text is no such list; the message quotes the part that is wrong.
    """
    parts = [_parse_stage(part) for part in stages.split(",")]
    sizes = [_parse_batch_size(part) for part in batch_sizes.split(",")]
    if len(sizes) == 1:
        sizes *= len(parts)
    if len(sizes) != len(parts):
        msg = (
            f"batch sizes {batch_sizes!r} are {len(sizes)} for {len(parts)} stages {stages!r}; "
            "give one for all, or one per stage"
        )
        raise ValueError(msg)
    return tuple(
        Stage(size=size, epochs=epochs, samples=samples, batch_size=batch_size)
        for (size, epochs, samples), batch_size in zip(parts, sizes, strict=True)
    )


def _parse_stage(text: str) -> tuple[int, float, int]:
    size, _, length = text.strip().partition(":")
    try:
        if not length.endswith("s"):
            return int(size), float(length), 0
        if (samples := int(length[:-1])) > 0:
            return int(size), 0.0, samples
    except ValueError:
        pass
    msg = f"stage {text.strip()!r} is not SIZE:EPOCHS or SIZE:SAMPLESs, such as 64:4 or 224:50000s"
    raise ValueError(msg)


def _parse_batch_size(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        msg = f"batch size {text.strip()!r} is not a whole number"
        raise ValueError(msg) from None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedStage:
    """A stage at its place in the run."""

    number: int
    """1 for the first stage."""

    size: int
    """Side of the square images in pixels."""

    batch_size: int
    """Samples per step."""

    first_step: int
    """Steps of the run before this stage."""

    first_sample: int
    """Samples of the stream consumed before this stage."""

    epoch_ends: tuple[int, ...]
    """Steps of the run after which an epoch of this stage is complete: there it is validated."""

    @property
    def last_step(self) -> int:
        """Steps of the run when this stage is complete."""
        return self.epoch_ends[-1]

    def epochs_left(self, validated_step: int) -> tuple[int, ...]:
        """The epoch ends after the last one that was validated."""
        return tuple(end for end in self.epoch_ends if end > validated_step)

    @property
    def num_samples(self) -> int:
        """Samples of the stream that this stage consumes."""
        return self.samples_at(self.last_step) - self.first_sample

    def samples_at(self, step: int) -> int:
        """Samples of the stream consumed after `step` steps of the run, within this stage."""
        return self.first_sample + (step - self.first_step) * self.batch_size


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """All stages of a run over a training split of `num_samples`."""

    stages: tuple[PlannedStage, ...]
    num_samples: int

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return self.stages[-1].last_step

    @property
    def total_samples(self) -> int:
        """Samples the whole run consumes."""
        return self.stages[-1].samples_at(self.num_steps)

    @property
    def epochs(self) -> float:
        """Passes over the training split the whole run makes."""
        return self.total_samples / self.num_samples

    def pixels_left(self, step: int) -> int:
        """Pixels to train on after `step`: what the time left is proportional to."""
        return sum(
            (stage.last_step - max(step, stage.first_step)) * stage.batch_size * stage.size**2
            for stage in self.stages
            if stage.last_step > step
        )


def plan_run(stages: tuple[Stage, ...], num_samples: int) -> RunPlan:
    """Lay the stages end to end on the stream.

    Raises:
        TrainingError: There is nothing to train on.
    """
    if num_samples < 1:
        msg = "the set has no training samples; convert it again with a smaller --val"
        raise TrainingError(msg)
    return RunPlan(stages=tuple(_place(stages, num_samples)), num_samples=num_samples)


def _place(stages: tuple[Stage, ...], num_samples: int) -> Iterator[PlannedStage]:
    step = sample = 0
    for number, stage in enumerate(stages, 1):
        planned = PlannedStage(
            number=number,
            size=stage.size,
            batch_size=stage.batch_size,
            first_step=step,
            first_sample=sample,
            epoch_ends=tuple(step + end for end in stage.epoch_ends(num_samples)),
        )
        yield planned
        step, sample = planned.last_step, planned.samples_at(planned.last_step)
