"""The members of our shards by number, with numpy alone: for peers without a reader of their own.

One `pread` a sample, no check of anything: what somebody writes who trusts the files.
"""

import os
from pathlib import Path

import numpy as np


class SetFiles:
    """The training samples of a set, in stored order."""

    def __init__(self, set_path: Path) -> None:
        indices = sorted(set_path.glob("train-*.npy"))
        tables = [np.load(path) for path in indices]
        rows = np.concatenate(tables)
        self._offsets, self._sizes = rows["offset"].tolist(), rows["size"].tolist()
        self._files = [os.open(path.with_suffix(".tar"), os.O_RDONLY) for path in indices]
        self._file_of = np.repeat(self._files, [len(table) for table in tables]).tolist()

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, number: int) -> tuple[bytes, bytes, bytes]:
        """Composite, mask and depth as they are encoded."""
        offsets, sizes = self._offsets[number], self._sizes[number]
        first, end = offsets[0], offsets[2] + sizes[2]
        span = os.pread(self._file_of[number], end - first, first)
        composite, mask, depth = (
            span[at - first : at - first + size] for at, size in zip(offsets, sizes, strict=True)
        )
        return composite, mask, depth
