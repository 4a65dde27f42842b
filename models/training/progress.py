"""Where a run is: all of a checkpoint's state that is not tensors."""

from dataclasses import dataclass, field
from math import inf
from typing import Any

from models.training.plan import RunPlan
from models.training.stages import parse_sets
from pipeline.batch import Sets, sets_text


@dataclass(kw_only=True, slots=True)
class Progress:
    """Where a run is."""

    step: int = 0
    """Steps made."""

    samples: int = 0
    """Samples consumed."""

    by_sets: dict[str, int] = field(default_factory=dict)
    """How many of them came from the streams of some of the sets, by their places such as "2+3";
    the others came from that of all. So each stream goes on with its very next sample."""

    validated_step: int = 0
    """Steps made at the last validation."""

    skipped_steps: int = 0
    """Steps of the plan that were never made, because stages ended early."""

    skipped_samples: int = 0
    """Samples that those steps would have consumed; the streams go on without a gap."""

    num_worse: int = 0
    """Validations of this stage since the best one."""

    num_records: int = 0
    """Records written to `metrics.jsonl`."""

    bad_steps: int = 0
    """Steps skipped since their loss or gradient was not a finite number, as far as recorded."""

    elapsed_s: float = 0.0
    """Time spent in this run so far, validation and checkpoints included, pauses not."""

    best: tuple[int, float] = (0, -inf)
    """Stage and score of the best validation."""

    scores: dict[str, float] = field(default_factory=dict)
    """Metrics of the last validation."""

    loader: dict[str, Any] = field(default_factory=dict)
    """What the loader remembers: the samples found bad."""

    def taken(self, sets: Sets) -> int:
        """Samples consumed of the stream of some sets; () is that of all."""
        if sets:
            return self.by_sets.get(sets_text(sets), 0)
        return self.samples - sum(self.by_sets.values())

    def take(self, sets: Sets, num: int) -> None:
        """Consume samples of the stream of some sets."""
        self.samples += num
        if sets:
            self.by_sets[sets_text(sets)] = self.taken(sets) + num

    def passes(self, plan: RunPlan) -> float:
        """Passes made over the samples, those of each choice of sets over its own."""
        parts = {parse_sets(text, text): num for text, num in self.by_sets.items()}
        return plan.passes({(): self.taken(()), **parts})

    @property
    def planned_step(self) -> int:
        """Place in the plan: steps made and skipped."""
        return self.step + self.skipped_steps

    @property
    def planned_samples(self) -> int:
        """Place in the plan, which decides the learning rate: samples consumed and skipped."""
        return self.samples + self.skipped_samples

    @property
    def validated_planned_step(self) -> int:
        """Place in the plan of the last validation."""
        return self.validated_step + self.skipped_steps
