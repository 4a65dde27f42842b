"""What does the order of 10 billion samples cost each of 4,096 ranks, and how well does it mix?

    maskdepth bench order [--quick] [--json FILE]

Cost: 2.5 million shards of 4,000 samples. A rank's samples of each global batch are worked out as
training does, from the last million batches of an epoch on. The ceiling is a slice of a table of
the epoch, which would be 80 GB a machine. Memory is the peak of what the order holds and works
with, by tracemalloc, less the list of shard lengths that it is given. Few samples at a time are
bounded by the interpreter, many by three keyed permutations.

Exactly once: whole epochs, counted, for shards of any lengths; and what all ranks take of a batch,
put together, against the stream. Mixing: see `mixing.py`.
"""

import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.harness import environment, report
from benchmarks.mixing import BATCH, measure_mixing, print_mixings
from pipeline.extents import Extents
from pipeline.order import Order, SampleOrder
from pipeline.windowed import WindowedOrder

NUM_SHARDS, PER_SHARD, RANKS = 2_500_000, 4_000, 4_096
SHARES = (16, 256)
"""Samples per rank and step: global batches of 65,536 and of a million."""

_TIMED_RANKS, _TIMED_STEPS = 32, 512
_TABLE = 1 << 22

Numbers = npt.NDArray[np.int64]


def run(*, quick: bool, json_path: Path | None) -> None:
    """Measure and print."""
    costs = measure_costs(num_timed=4 if quick else _TIMED_RANKS)
    counted = check_exactly_once(num_shards=200, per_shard=100 if quick else 5_000)
    shared = check_ranks(num_places=1 if quick else 4)
    num_shards, per_shard = (256, 500) if quick else (1_024, 1_000)
    mixings = measure_mixing(num_shards, per_shard)
    print_mixings(mixings, num_shards, per_shard)
    settings = {
        "num_shards": NUM_SHARDS, "per_shard": PER_SHARD, "ranks": RANKS, "quick": quick,
        "mixing": {"num_shards": num_shards, "per_shard": per_shard, "batch": BATCH},
    }  # fmt: skip
    found = {
        "question": "order",
        "configuration": settings,
        "environment": environment(),
        "costs": [asdict(cost) for cost in costs],
        "samples_exactly_once": counted,
        "samples_shared_by_all_ranks": shared,
        "mixing": [asdict(mixing) for mixing in mixings],
    }
    report(found, json_path)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one rank pays."""

    name: str
    share: int
    """Samples per step."""

    us_per_step: float
    """Median over ranks, after the first step."""

    first_step_ms: float
    """Median over ranks: opening the order from its shards, and the first samples."""

    memory_mb: float
    """At the peak, over the end of an epoch."""


def measure_costs(num_timed: int) -> list[Cost]:
    """Time a rank's steps, and watch its memory."""
    print(f"{NUM_SHARDS * PER_SHARD:,} samples in {NUM_SHARDS:,} shards, {RANKS:,} ranks")
    print(f"{'':<34}{'samples a step':>15}{'us/step':>10}{'first, ms':>11}{'memory, MB':>12}")
    costs = []
    for share in SHARES:
        found = [_ceiling(share)]
        found += [_cost(name, *how, share, num_timed) for name, how in _huge_orders().items()]
        for cost in found:
            print(f"{cost.name:<34}{cost.share:>15}{cost.us_per_step:>10.2f}"
                  f"{cost.first_step_ms:>11.2f}{cost.memory_mb:>12,.2f}")  # fmt: skip
        costs += found
    return costs


def _ceiling(share: int) -> Cost:
    """A slice of a table; a small one is timed, and a whole one's memory told."""
    table = np.arange(_TABLE)
    starts = range(0, _TABLE - share, _TABLE // _TIMED_STEPS)
    began = time.perf_counter()
    for start in starts:
        table[start : start + share].copy()
    elapsed = time.perf_counter() - began
    return Cost(
        name="ceiling: a table of the epoch",
        share=share,
        us_per_step=elapsed / len(starts) * 1e6,
        first_step_ms=0.0,
        memory_mb=NUM_SHARDS * PER_SHARD * table.itemsize / 1e6,
    )


def _huge_orders() -> Mapping[str, tuple[Callable[[Numbers], SampleOrder], Numbers]]:
    """How to open each contender, and the shard lengths to open it with."""
    rng = np.random.default_rng(0)
    equal = np.full(NUM_SHARDS, PER_SHARD)
    equal[-1] = 17
    some = equal.copy()
    some[rng.integers(0, NUM_SHARDS, NUM_SHARDS // 100)] -= 5
    any_length = rng.integers(PER_SHARD // 2, PER_SHARD * 3 // 2, NUM_SHARDS)

    def windowed(lengths: Numbers) -> SampleOrder:
        return WindowedOrder(Extents.of(lengths), seed=1)

    return {
        "global": (lambda lengths: Order(num_samples=int(lengths.sum()), seed=1), equal),
        "windowed, the last shard short": (windowed, equal),
        "windowed, 1 in 100 of other length": (windowed, some),
        "windowed, all of other lengths": (windowed, any_length),
    }


def _cost(
    name: str,
    open_order: Callable[[Numbers], SampleOrder],
    lengths: Numbers,
    share: int,
    num_timed: int,
) -> Cost:
    steps, first = [], []
    for rank in np.linspace(0, RANKS - 1, num_timed).astype(int).tolist():
        began = time.perf_counter()
        order = open_order(lengths)
        batch_size = share * RANKS
        start = (order.num_samples // batch_size - 10**6 // share) * batch_size
        batches = order.batches(
            batch_size=batch_size, start=start, num_steps=_TIMED_STEPS, rank=rank, world_size=RANKS
        )
        next(batches)
        first.append(time.perf_counter() - began)
        for _ in batches:  # the rest of what was worked out with the first
            pass
        again = order.batches(
            batch_size=batch_size, start=start, num_steps=_TIMED_STEPS, rank=rank, world_size=RANKS
        )
        began = time.perf_counter()
        for _ in again:
            pass
        steps.append((time.perf_counter() - began) / _TIMED_STEPS)
    return Cost(
        name=name,
        share=share,
        us_per_step=statistics.median(steps) * 1e6,
        first_step_ms=statistics.median(first) * 1e3,
        memory_mb=_peak_bytes(open_order, lengths, share) / 1e6,
    )


def _peak_bytes(open_order: Callable[[Numbers], SampleOrder], lengths: Numbers, share: int) -> int:
    """From the opened order on, while a rank streams over the end of an epoch."""
    tracemalloc.start()
    try:
        order = open_order(lengths)
        tracemalloc.reset_peak()
        batch_size = share * RANKS
        start = order.num_samples - 3 * batch_size
        for _ in order.batches(
            batch_size=batch_size, start=start, num_steps=_TIMED_STEPS, world_size=RANKS
        ):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def check_exactly_once(num_shards: int, per_shard: int) -> int:
    """Count every sample of two epochs, for shards of all kinds of lengths; how many were counted.

    Raises:
        RuntimeError: One came twice, or not at all.
    """
    rng = np.random.default_rng(1)
    equal = np.full(num_shards, per_shard)
    kinds = {
        "equal": equal,
        "the last one short": np.append(equal[1:], 7),
        "one in ten short": equal - (rng.random(num_shards) < 0.1) * rng.integers(1, per_shard),
        "any, also empty": rng.integers(0, per_shard, num_shards),
    }
    counted = 0
    print()
    for kind, lengths in kinds.items():
        for window in (4, 64, 2 * num_shards):
            order = WindowedOrder(Extents.of(lengths), seed=3, window_shards=window)
            for epoch in range(2):
                numbers = order.sample_numbers(epoch * order.num_samples, order.num_samples)
                if (np.bincount(numbers, minlength=order.num_samples) != 1).any():
                    msg = f"not exactly once: shards {kind}, window {window}, epoch {epoch}"
                    raise RuntimeError(msg)
                counted += order.num_samples
        print(f"exactly once: shards {kind}, windows of 4, 64 and all")
    return counted


def check_ranks(num_places: int) -> int:
    """What all ranks take of a batch, put together, against the stream; how many samples.

    Raises:
        RuntimeError: They differ, or a sample is taken twice.
    """
    lengths = np.full(NUM_SHARDS, PER_SHARD)
    order = WindowedOrder(Extents.of(lengths), seed=5)
    batch_size = SHARES[0] * RANKS
    places = np.random.default_rng(2).integers(0, 2**45, num_places).tolist()
    for start in places:
        shares = [
            next(
                WindowedOrder(order.shards, seed=5).batches(
                    batch_size=batch_size, start=start, num_steps=1, rank=rank, world_size=RANKS
                )
            )
            for rank in range(RANKS)
        ]
        joined = np.concatenate(shares)
        whole = order.sample_numbers(start, batch_size)
        if (joined != whole).any() or len(np.unique(joined)) != batch_size:
            msg = f"{RANKS} ranks do not share the batch at {start}"
            raise RuntimeError(msg)
    total = num_places * batch_size
    print(f"{RANKS:,} ranks, each by itself: {total:,} samples in {num_places} batches, all right")
    return total
