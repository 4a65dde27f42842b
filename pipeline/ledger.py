"""The samples found bad while streaming: each logged once, counted, limited, and remembered.

A checkpoint keeps the ledger as plain numbers and text, so a resumed run goes on counting where
the first one stopped, and tells nothing twice.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.error import LoaderError
from pipeline.source import BadSample

KEPT_IN_FULL = 1000
"""Bad samples of which everything is kept; of any more the number alone, in 8 bytes."""

_logger = logging.getLogger(__name__)


class BadSampleLedger:
    """What turned out bad in one split.

    Args:
        set_path: Folder of the set, for the next action.
        split: Which split.
        num_samples: How many samples the split has.
        max_share: The share of them that may be bad; a first one may be unless this is 0, since
            one sample is more than a share of a small set.
    """

    def __init__(
        self, set_path: Path | str, split: str, num_samples: int, max_share: float
    ) -> None:
        self._set_path, self._split = set_path, split
        self._num_samples, self._max_share = num_samples, max_share
        # a share of 0.29 of 100 samples is 28.999999999999996 of them
        self._tolerated = max(1, int(max_share * num_samples + 1e-6)) if max_share else 0
        self._numbers: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._samples: list[BadSample] = []

    def __len__(self) -> int:
        """How many samples are bad, each counted once."""
        return len(self._numbers)

    @property
    def samples(self) -> tuple[BadSample, ...]:
        """The first `KEPT_IN_FULL` of them, in the order they were met."""
        return tuple(self._samples)

    def record(self, found: Iterable[BadSample]) -> None:
        """Take note of the bad samples of a batch.

        Raises:
            LoaderError: There are now more than tolerated; the last is named.
        """
        new = {bad.number: bad for bad in found if not self._knows(bad.number)}
        if not new:
            return
        for bad in new.values():
            _logger.warning("%s; it is replaced at weight 0", bad)
        self._add(new, new.values())
        self._check_limit(bad)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "numbers": self._numbers.tolist(),
            "samples": [asdict(bad) for bad in self._samples],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Add what a checkpoint knows; what several ranks know may be added one by one.

        Raises:
            LoaderError: That is more than tolerated now.
        """
        kept = [BadSample(**values) for values in state["samples"]]
        self._add(state["numbers"], [bad for bad in kept if not self._knows(bad.number)])
        if self._samples:
            self._check_limit(self._samples[-1])

    def _knows(self, number: int) -> bool:
        at = np.searchsorted(self._numbers, number)
        return bool(at < len(self._numbers) and self._numbers[at] == number)

    def _add(self, numbers: Iterable[int], samples: Iterable[BadSample]) -> None:
        self._numbers = np.union1d(self._numbers, np.fromiter(numbers, np.int64))
        self._samples += [*samples][: KEPT_IN_FULL - len(self._samples)]

    def _check_limit(self, last: BadSample) -> None:
        if len(self) > self._tolerated:
            msg = (
                f"{len(self)} of {self._num_samples} samples ({self._split}) are bad, more than "
                f"the {self._tolerated} that --max-bad-samples {self._max_share:g} tolerates; "
                f"the last: {last}; run `maskdepth verify {self._set_path}` (with --repair SOURCE "
                "to mend it), or raise --max-bad-samples"
            )
            raise LoaderError(msg)
