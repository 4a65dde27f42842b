"""What to convert and how: the configuration of a conversion."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shards.layouts.depth import POLARITIES, SCALINGS
from shards.plan import RULES
from shards.shard import CHECKS


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig:
    """What to convert and how. Everything but `processes` and paths decides the bytes."""

    sources: tuple[Path, ...]
    """Zips, or folders holding zips or loose images."""

    out: Path
    """The set's folder; made if missing."""

    layout: str = "auto"
    """How names become triplets: `auto` finds it from the names; a name, or a file NAME.toml."""

    positions_per_foreground: int | None = None
    """numbered-flip: so many numbers in a row show one object; None: objects are unknown."""

    depth: str = "map"
    """map; or disparity: class-folders' magma pictures beside the composites."""

    depth_polarity: str = "auto"
    """near-dark, near-bright, or auto: seen from objects, else as the layout says."""

    depth_scaling: str = "auto"
    """absolute, stretched (each image to its own range), or auto: seen from the levels in use."""

    backgrounds: str = "given"
    """given: as the sources hold them; estimate: missing ones are the median of composites."""

    pairing_check: bool = True
    """Look at some triplets of each archive and stop where images do not belong together."""

    sets: tuple[int, ...] = ()
    """Numbers of the archives (or topmost folders) to use, from 1; empty: all."""

    per_background: int | None = None
    """At most so many triplets of each background."""

    limit: int | None = None
    """At most so many triplets in all."""

    split: str = "foreground"
    """What validation holds out: foreground, background, both, or random samples."""

    val: float = 0.1
    """Share of foregrounds, backgrounds or samples held out."""

    seed: int = 0
    """Decides the order and the split."""

    samples_per_shard: int = 4_000

    check: str = "strict"
    """strict reads every image to its last code, headers its header, none only its first bytes."""

    max_rejected: int = 0
    """So many triplets may be left out; beyond it the list is written and nothing finished."""

    processes: int | None = None
    """Processes that write shards; None: one per core."""

    def __post_init__(self) -> None:
        for name, known in (
            ("split", RULES),
            ("check", CHECKS),
            ("depth", ("map", "disparity")),
            ("depth_polarity", ("auto", *POLARITIES)),
            ("depth_scaling", ("auto", *SCALINGS)),
            ("backgrounds", ("given", "estimate")),
        ):
            if getattr(self, name) not in known:
                msg = f"unknown {name} {getattr(self, name)!r}; use one of: {', '.join(known)}"
                raise ValueError(msg)
        if not 0 <= self.val < 1:
            msg = f"val is {self.val}; use a share of at least 0 and under 1"
            raise ValueError(msg)
        if not 0 <= self.seed < 2**64:
            msg = f"seed is {self.seed}; use a whole number from 0 to 2**64 - 1"
            raise ValueError(msg)
        for name in ("samples_per_shard", "processes", "limit", "per_background",
                     "positions_per_foreground"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                msg = f"{name} is {value}; use at least 1"
                raise ValueError(msg)

    @property
    def num_processes(self) -> int:
        """Processes that write shards."""
        return self.processes or os.cpu_count() or 1

    @property
    def options(self) -> dict[str, Any]:
        """What of this decides the bytes, for the manifest."""
        free = {"sources", "out", "layout", "max_rejected", "processes", "pairing_check"}
        values = {name: value for name, value in asdict(self).items() if name not in free}
        return {**values, "sets": list(self.sets)}
