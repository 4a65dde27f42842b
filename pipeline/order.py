"""(seed, position in the stream) -> sample number: the order of training, a pure function.

Training is one endless stream. Its k-th sample is `permutation(seed, epoch = k // N)` at `k mod N`,
so every epoch holds every sample once, batches may straddle epochs, and going on after an
interruption (or with another number of ranks) is arithmetic: the state is one integer.

The permutation is a Feistel network over a rectangle Z_a x Z_b that just covers the N numbers,
walked again while it lands outside (Black and Rogaway, "Ciphers with Arbitrary Finite Domains",
2002). A rectangle leaves fewer than sqrt(N) numbers over where the usual power of two leaves up to
3 N, so walks are rare. Nothing is stored: no table, whatever N.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

MAX_SAMPLES = 1 << 60
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NUM_ROUNDS = 6
_NUM_ROUNDS_SMALL = 24
"""A network over a few numbers has few round functions to draw from and mixes more slowly."""

_SMALL = 1024


def mix64(words: Words) -> Words:
    """Scramble 64-bit words (the finaliser of splitmix64): a bijection with full avalanche."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def permute(positions: Words, *, num: int, keys: Words) -> Words:
    """Where each position goes under the permutation of `range(num)` that its key chooses.

    Args:
        positions: (K,) numbers below `num`.
        num: How many numbers are permuted.
        keys: (K,) keys; equal keys are the same permutation.
    """
    values = _feistel(positions, num, keys)
    while (outside := np.flatnonzero(values >= np.uint64(num))).size:
        values[outside] = _feistel(values[outside], num, keys[outside])
    return values


def _feistel(values: Words, num: int, keys: Words) -> Words:
    side = isqrt(num - 1) + 1
    sides = (np.uint64(side), np.uint64(-(-num // side)))
    left, right = np.divmod(values, sides[1])
    for number in range(_NUM_ROUNDS if num > _SMALL else _NUM_ROUNDS_SMALL):
        modulus = sides[number % 2]
        scrambled = mix64((right + np.uint64(1)) * _ROUND_FACTORS[number] + keys) >> np.uint64(32)
        left = left + (scrambled * modulus >> np.uint64(32))
        left -= modulus * (left >= modulus)
        left, right = right, left
    return left * sides[1] + right


_ROUND_FACTORS = np.uint64(1) | mix64(
    np.arange(1, _NUM_ROUNDS_SMALL + 1, dtype=np.uint64) * _GOLDEN
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """The endless training stream over a split."""

    num_samples: int
    """Samples in one epoch."""

    seed: int
    """Chooses the order, together with the epoch."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_samples <= MAX_SAMPLES:
            msg = f"num_samples is {self.num_samples}; it must be 1 to {MAX_SAMPLES}"
            raise ValueError(msg)
        if not 0 <= self.seed < 1 << 63:
            msg = f"seed is {self.seed}; it must be 0 to 2**63 - 1"
            raise ValueError(msg)

    def sample_numbers(self, start: int, count: int) -> Numbers:
        """The stream's samples `start` to `start + count - 1`, as (count,) sample numbers."""
        consumed = np.arange(start, start + count, dtype=np.int64)
        epochs, positions = np.divmod(consumed, self.num_samples)
        seed_key = mix64(np.array([self.seed], np.uint64) + _GOLDEN)
        keys = mix64(seed_key + epochs.astype(np.uint64) * _GOLDEN)
        numbers = permute(positions.astype(np.uint64), num=self.num_samples, keys=keys)
        return numbers.astype(np.int64)

    def batches(
        self, *, batch_size: int, start: int, num_steps: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[Numbers]:
        """A rank's slice of each of `num_steps` global batches, from sample `start` on."""
        share = rank_share(batch_size, world_size)
        for step in range(num_steps):
            yield self.sample_numbers(start + step * batch_size + rank * share, share)


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
