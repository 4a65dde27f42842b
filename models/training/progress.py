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

    num_records: int = 0
    """Records written to `metrics.jsonl`."""

    elapsed_s: float = 0.0
    """Time spent in this run so far, validation and checkpoints included, pauses not."""

    best: tuple[int, float] = (0, -inf)
    """Stage and score of the best validation."""

    scores: dict[str, float] = field(default_factory=dict)
    """Metrics of the last validation."""

    loader: dict[str, Any] = field(default_factory=dict)
    """What the loader remembers: the samples found bad."""
