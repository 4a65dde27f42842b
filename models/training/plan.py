"""Where a run's steps lie: stages and epoch borders, worked out before the first step.

    stages "64:4,96:50000s", batch sizes "256,128", N samples -> steps 1 ... num_steps

All stages draw from one endless stream of samples. A stage takes ceil(epochs x N / batch) steps,
or ceil(samples / batch), and the next one goes on with the very next sample, so stages need not be
whole epochs and no sample is lost or seen twice between them. Stages on some of several sets
("64:4@1,64:2@2+3") draw from that choice's own stream of N samples, and the next stage on the same
sets goes on with the very next of those.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from models.error import TrainingError
from models.training.stages import Stage, check_sets
from pipeline.batch import Sets, sets_text


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
    """Samples of the run consumed before this stage."""

    sets: Sets
    """The sets whose stream it draws from; () is all."""

    epoch_samples: int
    """Samples in one pass over them."""

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
        """Samples that this stage consumes."""
        return self.samples_at(self.last_step) - self.first_sample

    def samples_at(self, step: int) -> int:
        """Samples of the run consumed after `step` steps of it, within this stage."""
        return self.first_sample + (step - self.first_step) * self.batch_size

    @property
    def epochs(self) -> float:
        """Passes this stage makes over its samples: as asked for, and up to a batch more."""
        return self.passes_at(self.last_step)

    def passes_at(self, step: int) -> float:
        """Passes this stage has made over its samples after `step` steps of the run, within it."""
        return (step - self.first_step) * self.batch_size / self.epoch_samples

    @property
    def told(self) -> str:
        """Size and sets for a user, such as 64 px @2+3."""
        return f"{self.size} px @{sets_text(self.sets)}" if self.sets else f"{self.size} px"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """All stages of a run over the training split of one or more sets."""

    stages: tuple[PlannedStage, ...]

    set_lengths: tuple[int, ...]
    """Samples of each set; a repeated one's count as often."""

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
        """Passes the whole run makes, each stage over its own samples."""
        return self.passes_at(self.num_steps)

    def passes_at(self, step: int) -> float:
        """Passes made after `step` steps, each stage over its own samples."""
        taken: dict[Sets, int] = {}
        for stage in self.stages:
            if (made := min(step, stage.last_step) - stage.first_step) > 0:
                taken[stage.sets] = taken.get(stage.sets, 0) + made * stage.batch_size
        return self.passes(taken)

    def passes(self, taken: Mapping[Sets, int]) -> float:
        """Passes that so many samples of each choice of sets are."""
        return sum(num / _num_samples(self.set_lengths, sets) for sets, num in taken.items())

    def pixels_left(self, step: int) -> int:
        """Pixels to train on after `step`: what the time left is proportional to."""
        return sum(
            (stage.last_step - max(step, stage.first_step)) * stage.batch_size * stage.size**2
            for stage in self.stages
            if stage.last_step > step
        )


def plan_run(stages: Sequence[Stage], *set_lengths: int) -> RunPlan:
    """Lay the stages end to end.

    Args:
        stages: The stages.
        set_lengths: Training samples of each set; a repeated one's count as often.

    Raises:
        TrainingError: There is nothing to train on, or a stage names a set that there is not.
    """
    if sum(set_lengths) < 1:
        msg = "the set has no training samples; convert it again with a smaller --val"
        raise TrainingError(msg)
    check_sets(stages, len(set_lengths))
    return RunPlan(stages=tuple(_place(stages, set_lengths)), set_lengths=set_lengths)


def _num_samples(set_lengths: Sequence[int], sets: Sets) -> int:
    return sum(set_lengths[place - 1] for place in sets) if sets else sum(set_lengths)


def _place(stages: Sequence[Stage], set_lengths: Sequence[int]) -> Iterator[PlannedStage]:
    step = sample = 0
    for number, stage in enumerate(stages, 1):
        sets = stage.sets if len(stage.sets) < len(set_lengths) else ()
        num_samples = _num_samples(set_lengths, sets)
        if not num_samples:
            msg = (
                f"stage {number} ({stage.size} px) has no training samples in set "
                f"{sets_text(sets)}; convert it again with a smaller --val"
            )
            raise TrainingError(msg)
        planned = PlannedStage(
            number=number,
            size=stage.size,
            batch_size=stage.batch_size,
            first_step=step,
            first_sample=sample,
            sets=sets,
            epoch_samples=num_samples,
            epoch_ends=tuple(step + end for end in stage.epoch_ends(num_samples)),
        )
        yield planned
        step, sample = planned.last_step, planned.samples_at(planned.last_step)
