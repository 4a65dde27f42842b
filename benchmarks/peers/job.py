"""What a peer is asked for, and what it gives: the same for all of them.

B samples a batch; H = W = the job's size in pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

Arrays: TypeAlias = tuple[Any, Any, Any]
"""uint8 arrays or tensors of one batch: (B, H, W, 3) composite RGB, (B, H, W) mask and depth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One table's question, to one peer."""

    set_path: Path
    """Our shard set; the peer reads its training split."""

    folder: Path
    """Where the peer may write files of its own; each peer has one, for all of its jobs."""

    stored_size: int
    """Side of the set's images in pixels."""

    size: int
    """Side of the images asked for in pixels."""

    batch_size: int
    """Samples in a batch."""

    threads: int
    """Threads or worker processes, whichever the peer has."""

    mode: str = ""
    """Which of its formats, of a peer that has several."""


class Peer(Protocol):
    """What a peer's module offers; one that works on a GPU also has `finish()`, which waits."""

    def prepare(self, job: Job) -> None:
        """Write what the peer needs beside our shards; outside the clock."""
        ...

    def batches(self, job: Job, *, shuffled: bool) -> Iterator[Arrays]:
        """Whole batches of one pass or more, in random order or as stored."""
        ...
