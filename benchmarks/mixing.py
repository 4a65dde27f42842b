"""How well an order mixes: a scaled-down set, every sample of two epochs.

Each order is told by the shards that a local cache must hold for it: a window and the half that is
fetched ahead, or a block and the next one, which is needed as a whole when its turn comes. Beside
the ideal, independent random orders, stand one permutation per block of shards, and the shuffle
buffer that readers of tar streams have.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.extents import Extents
from pipeline.order import Order
from pipeline.windowed import WindowedOrder

BATCH = 256
NUM_CLASSES = 64
"""Kinds of sample in a set that was stored sorted: what a converter without a shuffle leaves."""

_STRETCH = 64 * BATCH
_HELD = (24, 96, 384)
"""Shards that a cache holds; two thirds of them are a window of ours."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How an order mixes, averaged over an epoch."""

    name: str
    held: int
    """Shards that a local cache must hold."""

    shards_per_batch: float
    """Distinct shards among the samples of a batch."""

    shard_distance: float
    """Total variation between the shards of 64 batches and a uniform choice of all; 0 to 1."""

    class_distance: float
    """The same between the classes of one batch and all, had the set been stored sorted."""

    rank_correlation: float
    """Between place in the epoch and place in storage, had the set been stored sorted."""

    met_again: float
    """Pairs that share a batch in this epoch and in the next, as a multiple of chance."""


def measure_mixing(num_shards: int, per_shard: int) -> list[Mixing]:
    """Measure all contenders, the ideal first."""
    return [
        _measure(name, held, epochs, per_shard)
        for name, (held, epochs) in _contenders(num_shards, per_shard).items()
    ]


def print_mixings(mixings: list[Mixing], num_shards: int, per_shard: int) -> None:
    """A table."""
    print(f"\n{num_shards:,} shards of {per_shard:,}, batches of {BATCH}")
    print(f"{'':<34}{'shards':>8}{'shards in':>11}{'distance':>10}{'distance':>10}"
          f"{'rank':>8}{'met':>7}")  # fmt: skip
    print(f"{'':<34}{'held':>8}{'a batch':>11}{'shards':>10}{'classes':>10}"
          f"{'corr.':>8}{'again':>7}")  # fmt: skip
    for one in mixings:
        print(f"{one.name:<34}{one.held:>8,}{one.shards_per_batch:>11.1f}"
              f"{one.shard_distance:>10.3f}{one.class_distance:>10.3f}"
              f"{one.rank_correlation:>8.3f}{one.met_again:>7.2f}")  # fmt: skip


def _contenders(
    num_shards: int, per_shard: int
) -> Mapping[str, tuple[int, tuple[Numbers, Numbers]]]:
    """Shards held, and the sample numbers of two epochs, by name."""
    num = num_shards * per_shard
    rng = np.random.default_rng(4)
    everything = Order(num_samples=num, seed=6)
    found = {
        "ideal: independent at random": (num_shards, (rng.permutation(num), rng.permutation(num))),
        "global": (num_shards, _epochs(everything)),
    }
    shards = Extents(num=num_shards, full=per_shard)
    for held in (held for held in _HELD if held < num_shards):
        window = held * 2 // 3
        order = WindowedOrder(shards, seed=6, window_shards=window)
        found[f"windowed, {window} shards"] = (held, _epochs(order))
        found[f"one permutation per {held // 2}"] = (
            held,
            (_blocks(num_shards, per_shard, held // 2, rng),
             _blocks(num_shards, per_shard, held // 2, rng)),
        )  # fmt: skip
    for buffer in (1_000, 10_000):
        found[f"shuffle buffer of {buffer:,}"] = (
            1,
            (_buffered(num_shards, per_shard, buffer, rng),
             _buffered(num_shards, per_shard, buffer, rng)),
        )  # fmt: skip
    return found


def _epochs(order: Order | WindowedOrder) -> tuple[Numbers, Numbers]:
    num = order.num_samples
    return order.sample_numbers(0, num), order.sample_numbers(num, num)


def _dealt(num_shards: int, per_shard: int, rng: np.random.Generator) -> Numbers:
    """(num_shards, per_shard) sample numbers, shards in a random order."""
    shards = rng.permutation(num_shards)
    return shards[:, None] * per_shard + np.arange(per_shard)


def _blocks(num_shards: int, per_shard: int, block: int, rng: np.random.Generator) -> Numbers:
    """Samples permuted within each block of shards."""
    dealt = _dealt(num_shards, per_shard, rng)
    return np.concatenate(
        [rng.permutation(dealt[at : at + block].ravel()) for at in range(0, num_shards, block)]
    )


def _buffered(num_shards: int, per_shard: int, size: int, rng: np.random.Generator) -> Numbers:
    """Shards read through a buffer that gives any of its samples for the next one."""
    stream = _dealt(num_shards, per_shard, rng).ravel()
    buffer = stream[:size].tolist()
    places = rng.integers(0, size, len(stream) - size).tolist()
    given = []
    for place, sample in zip(places, stream[size:].tolist(), strict=True):
        given.append(buffer[place])
        buffer[place] = sample
    return np.concatenate([np.array(given, np.int64), rng.permutation(buffer)])


def _measure(name: str, held: int, epochs: tuple[Numbers, Numbers], per_shard: int) -> Mixing:
    first, second = epochs
    num = len(first)
    shards, num_shards = first // per_shard, num // per_shard
    classes = first * NUM_CLASSES // num
    return Mixing(
        name=name,
        held=held,
        shards_per_batch=float((_histograms(shards, BATCH, num_shards) > 0).sum(1).mean()),
        shard_distance=_distance(_histograms(shards, min(_STRETCH, num // 2), num_shards)),
        class_distance=_distance(_histograms(classes, BATCH, NUM_CLASSES)),
        rank_correlation=float(np.corrcoef(np.arange(num), first)[0, 1]),
        met_again=_met_again(first, second),
    )


def _histograms(labels: Numbers, length: int, num_labels: int) -> Numbers:
    """(K, num_labels) how often each label comes in each whole stretch of the given length."""
    num = len(labels) // length
    stretches = np.repeat(np.arange(num), length)
    flat = stretches * num_labels + labels[: num * length]
    return np.bincount(flat, minlength=num * num_labels).reshape(num, num_labels)


def _distance(histograms: Numbers) -> float:
    """Mean total variation from the uniform distribution."""
    shares = histograms / histograms.sum(1, keepdims=True)
    return float(np.abs(shares - 1 / histograms.shape[1]).sum(1).mean() / 2)


def _met_again(first: Numbers, second: Numbers) -> float:
    num = len(first)
    batch = np.empty((2, num), np.int64)
    for row, numbers in zip(batch, (first, second), strict=True):
        row[numbers] = np.arange(num) // BATCH
    _, together = np.unique(batch[0] * num + batch[1], return_counts=True)
    pairs = num / BATCH * BATCH * (BATCH - 1) / 2
    return float((together * (together - 1) / 2).sum() / (pairs * (BATCH - 1) / (num - 1)))
