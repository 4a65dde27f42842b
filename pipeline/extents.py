"""Runs laid end to end, nearly all of one length: where each begins, and which holds a position.

A set of 10 billion samples has 2.5 million shards, all of 4,000 samples but the last. So only the
runs of another length are kept, and both questions are one search among those.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

_NONE = np.zeros(0, np.int64)


class Extents:
    """Runs of one length, but for the odd ones.

    Args:
        num: How many runs there are.
        full: How long those are that are not odd; at least 1.
        odd: (M,) the runs of another length, ascending.
        odd_lengths: (M,) their lengths; 0 is one.
    """

    def __init__(
        self, *, num: int, full: int, odd: Numbers = _NONE, odd_lengths: Numbers = _NONE
    ) -> None:
        self.num, self.full = num, full
        ends = (odd + 1) * full - np.cumsum(full - odd_lengths)
        self._odd_starts = ends - odd_lengths
        # a run before them all, so that every position has an odd run before it
        self._runs = np.concatenate([[-1], odd])
        self._ends = np.concatenate([[0], ends])
        self.total = int(self.starts(np.array([num]))[0])

    @classmethod
    def of(cls, lengths: Sequence[int] | Numbers) -> Self:
        """Runs of the given lengths; the most frequent one counts as full.

        Raises:
            ValueError: A length is negative, or all are 0.
        """
        array = np.asarray(lengths, np.int64)
        if (array < 0).any() or not array.any():
            msg = "shards hold no samples, or fewer than none; give the length of each"
            raise ValueError(msg)
        values, counts = np.unique(array[array > 0], return_counts=True)
        full = int(values[counts.argmax()])
        odd = np.flatnonzero(array != full)
        return cls(num=len(array), full=full, odd=odd, odd_lengths=array[odd])

    @property
    def odd(self) -> Numbers:
        """(M,) the runs of another length, ascending."""
        return self._runs[1:]

    @property
    def odd_lengths(self) -> Numbers:
        """(M,) how long the odd runs are."""
        return self._ends[1:] - self._odd_starts

    def starts(self, runs: Numbers) -> Numbers:
        """Where runs begin; where the last one ends, for run `num`."""
        before = np.searchsorted(self.odd, runs)
        return self._ends[before] + (runs - self._runs[before] - 1) * self.full

    def locate(self, positions: Numbers) -> Numbers:
        """The runs that hold positions below `total`."""
        before = np.searchsorted(self._odd_starts, positions, side="right")
        beyond = positions - self._ends[before]
        return self._runs[before] + (beyond >= 0) * (1 + beyond // self.full)
