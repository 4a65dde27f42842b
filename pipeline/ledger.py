"""The samples found bad while streaming: each logged once, counted, and limited."""

import logging
from pathlib import Path

from pipeline.error import LoaderError
from pipeline.source import BadSample

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

    def __init__(self, set_path: Path, split: str, num_samples: int, max_share: float) -> None:
        self._set_path, self._split = set_path, split
        self._num_samples, self._max_share = num_samples, max_share
        self._found: dict[int, BadSample] = {}

    @property
    def samples(self) -> tuple[BadSample, ...]:
        """Each bad sample once, in the order they were met."""
        return tuple(self._found.values())

    def record(self, found: tuple[BadSample, ...]) -> None:
        """Take note of the bad samples of a batch.

        Raises:
            LoaderError: There are now more than tolerated; the last is named.
        """
        for bad in found:
            if bad.number not in self._found:
                self._found[bad.number] = bad
                _logger.warning("%s; it is replaced at weight 0", bad)
        tolerated = max(1, self._max_share * self._num_samples) if self._max_share else 0
        if len(self._found) > tolerated:
            msg = (
                f"{len(self._found)} of {self._num_samples} samples ({self._split}) are bad, more "
                f"than the share of {self._max_share} that is tolerated; the last: "
                f"{self.samples[-1]}; run `maskdepth verify {self._set_path}`"
            )
            raise LoaderError(msg)
