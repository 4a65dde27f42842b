"""The order for sets that are remote or larger than memory: only a window of shards at a time.

Each epoch deals the shards anew by a keyed permutation and cuts them into blocks of half a window.
The samples of a block are permuted; then the stream is cut again, half a block further on, and
permuted once more. So whatever is read next lies in one window of shards, every batch draws from
all of them, and the window moves on by half its length: half of it is fetched while the other half
is still in use. (One permutation of blocks as large would have to be replaced as a whole.)

    shards, dealt     | 7 2 | 0 5 | 4 9 | 1 8 | 3 6 |      permuted inside each block,
    stream of samples  |  :  |  :  |  :  |  :  |  :        then across its borders

Every step is a bijection that can be asked for any single position, so that, as for the global
order, the state is one integer. Nothing is kept but the shards of odd length, in stored order and
in that of the last two epochs. Positions count samples of an epoch, slots count dealt shards.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.extents import Extents
from pipeline.order import (
    Numbers,
    Order,
    SampleOrder,
    Words,
    check_order,
    epoch_keys,
    mix64,
    permute,
    permute_each,
    unpermute,
)

ORDERS = ("global", "windowed")

MIN_SHARDS = 4
AUTO_SHARDS = 64
AUTO_SAMPLES = 250_000
"""A window of its own accord has at least so many shards and samples."""

_PRIME = np.uint64(0x9E3779B97F4A7C15)
_DEAL, _INNER, _OUTER = np.arange(1, 4, dtype=np.uint64)[:, None] * _PRIME
"""What an epoch's key is used for."""


class WindowedOrder(SampleOrder):
    """Shards permuted per epoch, samples permuted within a moving window of them.

    Args:
        shards: How many samples each shard of the split holds, in stored order.
        seed: Chooses the order, together with the epoch.
        window_shards: How many shards batches draw from at a time; None: 64, and more where they
            are small.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(self, shards: Extents, *, seed: int, window_shards: int | None = None) -> None:
        check_order(shards.total, seed)
        if window_shards is not None:
            check_window(window_shards)
        self.num_samples = shards.total
        self.shards = shards
        self.seed = seed
        self.window_shards = window_shards or max(AUTO_SHARDS, -(-AUTO_SAMPLES // shards.full))
        self._recent: tuple[_Epoch, ...] = ()

    @property
    def num_held(self) -> int:
        """Shards for which a cache needs room, so that none is fetched twice in an epoch.

        Within an epoch batches that pass from one window to the next draw from one and a half;
        where epochs meet, from nearly two.
        """
        return min(2 * self.window_shards, self.shards.num)

    @property
    def record(self) -> dict[str, Any]:
        """See `SampleOrder.record`."""
        return {"order": "windowed", "window_shards": self.window_shards}

    def numbers_at(self, consumed: Numbers) -> Numbers:
        """See `SampleOrder.numbers_at`."""
        epochs, positions = np.divmod(consumed, self.num_samples)
        numbers = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            numbers[chosen] = self._epoch(epoch).numbers(positions[chosen])
        return numbers

    def shards_of(self, start: int, count: int) -> Numbers:
        """The shards that hold the stream's samples `start` to `start + count - 1`, and some more.

        They come in the order in which the windows reach them; in another epoch they come again.
        The cost is that of the shards told, not of the samples: a look-ahead may be long.
        """
        first, last = divmod(start, self.num_samples), divmod(start + count - 1, self.num_samples)
        parts = [
            self._epoch(epoch).shards_between(
                first[1] if epoch == first[0] else 0,
                last[1] if epoch == last[0] else self.num_samples - 1,
            )
            for epoch in range(first[0], last[0] + 1 if count else first[0])
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _epoch(self, number: int) -> "_Epoch":
        for epoch in self._recent:
            if epoch.number == number:
                return epoch
        epoch = _Epoch(self, number)
        self._recent = (epoch, *self._recent[:1])  # replaced whole: several threads may ask
        return epoch


def open_order(
    name: str, shard_lengths: Sequence[int], *, seed: int, window_shards: int | None = None
) -> SampleOrder:
    """The order of `ORDERS` that is named, over the shards of a split.

    Args:
        name: One of `ORDERS`.
        shard_lengths: Samples of each shard, in stored order.
        seed: Chooses the order, together with the epoch.
        window_shards: See `WindowedOrder`; of no account to the global order.

    Raises:
        ValueError: A number is out of range.
    """
    if name == "global":
        return Order(num_samples=sum(shard_lengths), seed=seed)
    return WindowedOrder(Extents.of(shard_lengths), seed=seed, window_shards=window_shards)


def check_window(window_shards: int) -> None:
    """Refuse a window that is none.

    Raises:
        ValueError: It is too small to move on by halves.
    """
    if window_shards < MIN_SHARDS:
        msg = f"window_shards is {window_shards}; it must be at least {MIN_SHARDS}"
        raise ValueError(msg)


class _Epoch:
    """One epoch of a windowed order."""

    def __init__(self, order: WindowedOrder, number: int) -> None:
        self.number = number
        self._shards = order.shards
        self._block = order.window_shards // 2
        self._key = epoch_keys(order.seed, np.array([number]))

    def numbers(self, positions: Numbers) -> Numbers:
        """The sample numbers at positions of the epoch."""
        positions = self._permuted(positions, shift=0, purpose=_OUTER)
        positions = self._permuted(positions, shift=self._block // 2, purpose=_INNER)
        slots = self._dealt.locate(positions)
        return self._shards.starts(self._deal(slots)) + positions - self._dealt.starts(slots)

    def shards_between(self, first: int, last: int) -> Numbers:
        """The shards of the windows that two positions and all between them lie in."""
        slots = self._dealt.locate(np.array([first, last]))
        for shift in (0, self._block // 2):
            begins, ends = self._borders(slots, shift)
            slots = np.array([begins[0], ends[1] - 1])
        return self._deal(np.arange(slots[0], slots[1] + 1))

    def _permuted(self, positions: Numbers, *, shift: int, purpose: Words) -> Numbers:
        """Where positions go under the permutation of the block that each lies in."""
        first_slots, end_slots = self._borders(self._dealt.locate(positions), shift)
        begins = self._dealt.starts(first_slots)
        lengths = self._dealt.starts(end_slots) - begins
        keys = mix64(self._key_for(purpose) + first_slots.astype(np.uint64) * _PRIME)
        offsets = (positions - begins).astype(np.uint64)
        offsets = permute_each(offsets, nums=lengths.astype(np.uint64), keys=keys)
        return begins + offsets.astype(np.int64)

    def _borders(self, slots: Numbers, shift: int) -> tuple[Numbers, Numbers]:
        """The first slot of the block that each slot lies in, and the first one after it."""
        begins = slots - (slots - shift) % self._block
        return np.maximum(begins, 0), np.minimum(begins + self._block, self._shards.num)

    def _deal(self, slots: Numbers) -> Numbers:
        """The shards that are dealt to slots."""
        keys = np.broadcast_to(self._key_for(_DEAL), slots.shape)
        return permute(slots.astype(np.uint64), num=self._shards.num, keys=keys).astype(np.int64)

    @cached_property
    def _dealt(self) -> Extents:
        """The shards' lengths in the order in which they are dealt."""
        shards = self._shards
        keys = np.broadcast_to(self._key_for(_DEAL), shards.odd.shape)
        slots = unpermute(shards.odd.astype(np.uint64), num=shards.num, keys=keys)
        ascending = np.argsort(slots)
        return Extents(
            num=shards.num,
            full=shards.full,
            odd=slots[ascending].astype(np.int64),
            odd_lengths=shards.odd_lengths[ascending],
        )

    def _key_for(self, purpose: Words) -> Words:
        return mix64(self._key + purpose)
