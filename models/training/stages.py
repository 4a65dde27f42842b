"""The stages of a run as they are asked for: text in, sizes, batch sizes, lengths and sets out."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from models.error import TrainingError
from pipeline.batch import Sets

_SETS = re.compile(r"[1-9]\d*(\+[1-9]\d*)*", re.ASCII)


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

    sets: Sets = ()
    """The sets it trains on, by their places among those given, from 1; () is all."""

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
    """Read "64:4,96:2@1,224:50000s@2+3" and "256" or "256,128,64" (one per stage).

    A stage is SIZE:EPOCHS, or SIZE:SAMPLES with an s behind; @ and places behind it choose sets.

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
        Stage(size=size, epochs=epochs, samples=samples, batch_size=batch_size, sets=sets)
        for (size, epochs, samples, sets), batch_size in zip(parts, sizes, strict=True)
    )


def parse_sets(text: str, stage: str) -> Sets:
    """Read "1" or "2+3".

    Args:
        text: The places of sets.
        stage: What it belongs to, for the message.

    Raises:
        ValueError: The text is no such list, or has a set twice.
    """
    if not _SETS.fullmatch(text):
        msg = (
            f"stage {stage!r} says no sets behind its @; give their places among --data, "
            "counted from 1, such as 64:4@1 or 64:4@2+3"
        )
        raise ValueError(msg)
    sets = [int(place) for place in text.split("+")]
    if twice := [place for place in sets if sets.count(place) > 1]:
        msg = f"stage {stage!r} names set {twice[0]} twice; --repeat gives a set more weight"
        raise ValueError(msg)
    return tuple(sorted(sets))


def _parse_stage(text: str) -> tuple[int, float, int, Sets]:
    size, _, rest = text.strip().partition(":")
    length, at, places = rest.partition("@")
    sets = parse_sets(places, text.strip()) if at else ()
    try:
        if not length.endswith("s"):
            return int(size), float(length), 0, sets
        if (samples := int(length[:-1])) > 0:
            return int(size), 0.0, samples, sets
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


def check_sets(stages: Sequence[Stage], num_sets: int) -> None:
    """Refuse stages on sets that there are not.

    Raises:
        TrainingError: One names such a set.
    """
    for number, stage in enumerate(stages, 1):
        if unknown := [place for place in stage.sets if place > num_sets]:
            there = "is only set 1" if num_sets == 1 else f"are {num_sets} sets"
            msg = (
                f"stage {number} ({stage.size} px) is to train on set {unknown[0]}, and there "
                f"{there}; name it with --data, or choose among those in --stages"
            )
            raise TrainingError(msg)
