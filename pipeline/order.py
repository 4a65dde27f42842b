"""(seed, position in the stream) -> sample number: the order of training, a pure function.

Training is one endless stream. Its k-th sample is `permutation(seed, epoch = k // N)` at `k mod N`,
so every epoch holds every sample once, batches may straddle epochs, and going on after an
interruption (or with another number of ranks) is arithmetic: the state is one integer. Here all
samples are permuted at once; `windowed.py` has the order for sets too large to have at hand.

The permutation is a Feistel network over a rectangle Z_a x Z_b that just covers the N numbers,
walked again while it lands outside (Black and Rogaway, "Ciphers with Arbitrary Finite Domains",
2002). A rectangle leaves fewer than sqrt(N) numbers over where the usual power of two leaves up to
3 N, so walks are rare. Nothing is stored: no table, whatever N.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_Side = np.uint64 | Words
_Sides = tuple[_Side, _Side]

MAX_SAMPLES = 1 << 60
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NUM_ROUNDS = 6
_NUM_ROUNDS_SMALL = 24
"""A network over a few numbers has few round functions to draw from and mixes more slowly."""

_SMALL = 1024

_AHEAD = 8192
"""Samples whose numbers are worked out at once: one by one the interpreter takes longer than the
arithmetic, and a rank of thousands takes few samples of each batch."""


def mix64(words: Words) -> Words:
    """Scramble 64-bit words (the finaliser of splitmix64): a bijection with full avalanche."""
    words = words ^ (words >> np.uint64(30))  # new memory; the rest is in place
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


def permute(positions: Words, *, num: int, keys: Words) -> Words:
    """Where each position goes under the permutation of `range(num)` that its key chooses.

    Args:
        positions: (K,) numbers below `num`.
        num: How many numbers are permuted.
        keys: (K,) keys; equal keys are the same permutation.
    """
    values = _feistel(positions, _sides(num), _num_rounds(num), keys)
    while (outside := np.flatnonzero(values >= np.uint64(num))).size:
        values[outside] = _feistel(values[outside], _sides(num), _num_rounds(num), keys[outside])
    return values


def permute_each(positions: Words, *, nums: Words, keys: Words) -> Words:
    """`permute` where each position has a number of its own that are permuted: `nums` is (K,)."""
    if nums.size and (nums == nums[0]).all():  # by far the most frequent: dividing is cheaper then
        return permute(positions, num=int(nums[0]), keys=keys)
    values = np.empty_like(positions)
    for chosen in (nums > _SMALL, nums <= _SMALL):
        outside = np.flatnonzero(chosen)
        values[outside] = positions[outside]
        while outside.size:
            num = nums[outside]
            values[outside] = _feistel(
                values[outside], _sides_each(num), _num_rounds(int(num[0])), keys[outside]
            )
            outside = outside[values[outside] >= num]
    return values


def unpermute(numbers: Words, *, num: int, keys: Words) -> Words:
    """The way back: the position that `permute` sends to each number."""
    values = _feistel_back(numbers, num, keys)
    while (outside := np.flatnonzero(values >= np.uint64(num))).size:
        values[outside] = _feistel_back(values[outside], num, keys[outside])
    return values


def _feistel(values: Words, sides: _Sides, num_rounds: int, keys: Words) -> Words:
    left, right = _divided(values, sides[1])
    for number in range(num_rounds):
        modulus = sides[number % 2]
        left += _scrambled(right, number, keys, modulus)
        left, right = right, _reduced(left, modulus)
    return left * sides[1] + right


def _feistel_back(values: Words, num: int, keys: Words) -> Words:
    sides = _sides(num)
    left, right = _divided(values, sides[1])
    for number in reversed(range(_num_rounds(num))):
        modulus = sides[number % 2]
        right += modulus - _scrambled(left, number, keys, modulus)
        left, right = _reduced(right, modulus), left
    return left * sides[1] + right


def _divided(values: Words, by: _Side) -> tuple[Words, Words]:
    """Quotients and remainders; `np.divmod` takes twice as long."""
    quotients = values // by
    return quotients, values - quotients * by


def _reduced(values: Words, modulus: _Side) -> Words:
    """Of values less than twice the modulus; what is below zero is the largest of all."""
    return np.minimum(values, values - modulus)


def _sides(num: int) -> tuple[np.uint64, np.uint64]:
    """The rectangle that just covers `num` numbers."""
    side = isqrt(num - 1) + 1
    return np.uint64(side), np.uint64(-(-num // side))


def _sides_each(nums: Words) -> tuple[Words, Words]:
    one = np.uint64(1)
    side = np.sqrt(nums - one).astype(np.uint64)
    # the root of a number past 2**53 may be rounded to the next one
    side += (side + one) * (side + one) <= nums - one
    side -= side * side > nums - one
    side += one
    return side, (nums - one) // side + one


def _num_rounds(num: int) -> int:
    return _NUM_ROUNDS if num > _SMALL else _NUM_ROUNDS_SMALL  # both even: sides end as they began


def _scrambled(half: Words, number: int, keys: Words, modulus: _Side) -> Words:
    """The round function: a number below `modulus` from one half and the key."""
    words = half + np.uint64(1)
    words *= _ROUND_FACTORS[number]
    words += keys
    words = mix64(words)
    words >>= np.uint64(32)
    words *= modulus
    words >>= np.uint64(32)
    return words


_ROUND_FACTORS = np.uint64(1) | mix64(
    np.arange(1, _NUM_ROUNDS_SMALL + 1, dtype=np.uint64) * _GOLDEN
)


def epoch_keys(seed: int, epochs: Numbers | Words) -> Words:
    """(K,) the key of each epoch."""
    seed_key = mix64(np.array([seed], np.uint64) + _GOLDEN)
    return mix64(seed_key + epochs.astype(np.uint64) * _GOLDEN)


class SampleOrder(ABC):
    """The endless training stream over a split; `Order` or `WindowedOrder`."""

    num_samples: int
    """Samples in one epoch."""

    @property
    @abstractmethod
    def record(self) -> dict[str, Any]:
        """What decides the order beside the seed, for checkpoints and results."""

    @abstractmethod
    def numbers_at(self, consumed: Numbers) -> Numbers:
        """The sample numbers at (K,) places of the stream, each told by the samples before it."""

    def sample_numbers(self, start: int, count: int) -> Numbers:
        """The stream's samples `start` to `start + count - 1`, as (count,) sample numbers."""
        return self.numbers_at(np.arange(start, start + count, dtype=np.int64))

    def batches(
        self, *, batch_size: int, start: int, num_steps: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[Numbers]:
        """A rank's slice of each of `num_steps` global batches, from sample `start` on."""
        share = rank_share(batch_size, world_size)
        within = start + rank * share + np.arange(share, dtype=np.int64)
        steps_at_once = max(1, _AHEAD // share)
        for first in range(0, num_steps, steps_at_once):
            steps = np.arange(first, min(first + steps_at_once, num_steps), dtype=np.int64)
            consumed = steps[:, None] * batch_size + within
            yield from self.numbers_at(consumed.ravel()).reshape(consumed.shape)


@dataclass(frozen=True, kw_only=True)
class Order(SampleOrder):
    """All samples of an epoch in one permutation."""

    num_samples: int
    """Samples in one epoch."""

    seed: int
    """Chooses the order, together with the epoch."""

    def __post_init__(self) -> None:
        check_order(self.num_samples, self.seed)

    @property
    def record(self) -> dict[str, Any]:
        """See `SampleOrder.record`."""
        return {"order": "global"}

    def numbers_at(self, consumed: Numbers) -> Numbers:
        """See `SampleOrder.numbers_at`."""
        epochs, positions = _divided(consumed.astype(np.uint64), np.uint64(self.num_samples))
        keys = epoch_keys(self.seed, epochs)
        return permute(positions, num=self.num_samples, keys=keys).astype(np.int64)


def check_order(num_samples: int, seed: int) -> None:
    """Refuse what no order can be made of.

    Raises:
        ValueError: A number is out of range.
    """
    if not 1 <= num_samples <= MAX_SAMPLES:
        msg = f"num_samples is {num_samples}; it must be 1 to {MAX_SAMPLES}"
        raise ValueError(msg)
    if not 0 <= seed < 1 << 63:
        msg = f"seed is {seed}; it must be 0 to 2**63 - 1"
        raise ValueError(msg)


def rank_share(batch_size: int, world_size: int) -> int:
    """Samples each rank takes of a global batch: contiguous, rank 0 first.

    Raises:
        ValueError: The batch is empty or cannot be shared evenly.
    """
    if batch_size < 1 or batch_size % world_size:
        msg = (
            f"a batch of {batch_size} samples cannot be shared by {world_size} ranks; "
            f"use a multiple of {world_size}"
        )
        raise ValueError(msg)
    return batch_size // world_size
