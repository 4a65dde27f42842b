"""Some of several sets: their samples under numbers without gaps, and an endless stream of them.

A stage of training may draw from some of a loader's sets alone. Everything behind the loader keeps
the numbers that all sets have together, so what is known of a sample (its background, that it is
bad, what it draws) is known of it in every stage. Places count the samples of the chosen sets
without gaps: that is what an order permutes, and what a cache has rows for.

Each choice of sets has a stream of its own, by a key of its own: those of two sets of one length
are not alike. All sets together are the choice `()`, whose places are the numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from pipeline.batch import Sets, sets_text
from pipeline.error import LoaderError
from pipeline.order import Numbers, SampleOrder, mix64
from pipeline.windowed import open_order

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_EPOCH_BITS = 32


@dataclass(frozen=True, kw_only=True)
class Subset:
    """The samples of some of the sets of a split."""

    sets: Sets
    """Which sets."""

    shard_lengths: tuple[int, ...]
    """Samples of each of their shards, in the order of their numbers."""

    firsts: tuple[int, ...]
    """The sample number at which each of them begins."""

    begins: tuple[int, ...]
    """The place at which it begins here."""

    @classmethod
    def of(cls, sets: Sets, shard_lengths: Sequence[Sequence[int]]) -> "Subset":
        """Choose sets by their places among all, from 1; () and all of them are the same.

        Args:
            sets: Which.
            shard_lengths: Samples of each shard, set by set.

        Raises:
            LoaderError: There is no set at such a place.
        """
        num = len(shard_lengths)
        if unknown := [place for place in sets if not 1 <= place <= num]:
            msg = f"there is no set {unknown[0]} among {num}; they are counted from 1"
            raise LoaderError(msg)
        chosen = tuple(sorted({*sets})) or tuple(range(1, num + 1))
        lengths = [sum(lengths) for lengths in shard_lengths]
        firsts = [0, *accumulate(lengths)]
        begins = [0, *accumulate(lengths[place - 1] for place in chosen)]
        return cls(
            sets=chosen if len(chosen) < num else (),
            shard_lengths=tuple(n for place in chosen for n in shard_lengths[place - 1]),
            firsts=tuple(firsts[place - 1] for place in chosen),
            begins=tuple(begins[:-1]),
        )

    @cached_property
    def num_samples(self) -> int:
        """How many they are."""
        return sum(self.shard_lengths)

    @cached_property
    def first_epoch(self) -> int:
        """What the epochs of this stream are counted from where augmentation draws by them.

        Two streams that share samples so give them the same changes by an accident of 1 in 2**30
        alone. 0 for all sets.
        """
        return _key(0, self.sets) >> (_EPOCH_BITS + 1) << _EPOCH_BITS if self.sets else 0

    def numbers_at(self, places: Numbers) -> Numbers:
        """The sample numbers at places."""
        return self._moved(places, self.begins, self.firsts)

    def places_of(self, numbers: Numbers) -> Numbers:
        """The places of sample numbers, all of which must be of these sets."""
        return self._moved(numbers, self.firsts, self.begins)

    def open_order(self, name: str, *, seed: int, window_shards: int | None) -> SampleOrder:
        """The endless stream of these samples; see `windowed.open_order`.

        Raises:
            LoaderError: There are none.
        """
        if not self.num_samples:
            msg = f"no training samples in set {sets_text(self.sets)}; convert with a smaller --val"
            raise LoaderError(msg)
        key = _key(seed, self.sets) if self.sets else seed
        inner = open_order(name, self.shard_lengths, seed=key, window_shards=window_shards)
        return SubsetOrder(self, inner) if self.sets else inner

    def _moved(self, values: Numbers, there: Sequence[int], here: Sequence[int]) -> Numbers:
        if not self.sets:
            return values
        # of sets that begin together all but the last are empty
        which = np.searchsorted(np.array(there), values, side="right") - 1
        return values + (np.array(here) - np.array(there))[which]


class SubsetOrder(SampleOrder):
    """An order of places as one of sample numbers.

    Args:
        subset: Whose.
        places: The order of its places.
    """

    def __init__(self, subset: Subset, places: SampleOrder) -> None:
        self.num_samples = subset.num_samples
        self.places = places
        self._subset = subset

    @property
    def record(self) -> dict[str, Any]:
        """See `SampleOrder.record`."""
        return self.places.record

    def numbers_at(self, consumed: Numbers) -> Numbers:
        """See `SampleOrder.numbers_at`."""
        return self._subset.numbers_at(self.places.numbers_at(consumed))


def _key(seed: int, sets: Sets) -> int:
    """A seed for a choice of sets, less than 2**63."""
    key = np.array([seed], np.uint64)
    for place in sets:
        key = mix64(key + np.array([place], np.uint64) * _GOLDEN)
    return int(key[0] >> np.uint64(1))
