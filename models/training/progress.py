"""Where a run is: all of a checkpoint's state that is not tensors."""

from dataclasses import dataclass, field
from math import inf
from typing import Any


@dataclass(kw_only=True, slots=True)
class Progress:
    """Where a run is."""

    step: int = 0
    """Steps made."""

    samples: int = 0
    """Samples of the stream consumed."""

    validated_step: int = 0
    """Steps made at the last validation."""

    skipped_steps: int = 0
    """Steps of the plan that were never made, because stages ended early."""

    skipped_samples: int = 0
    """Samples that those steps would have consumed; the stream goes on without a gap."""

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
