"""The windowed order: a pure function, exactly once per epoch, few shards at a time, well mixed."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.extents import Extents
from pipeline.order import Numbers, Order, mix64, permute
from pipeline.windowed import WindowedOrder, open_order

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any)
EQUAL = st.builds(
    lambda num, last: [7] * num + [last], num=st.integers(0, 60), last=st.integers(1, 7)
)
SEEDS = st.integers(0, 2**63 - 1)
WINDOWS = st.integers(4, 50)
HUGE = Extents(num=2_500_000, full=4000, odd=np.array([2_499_999]), odd_lengths=np.array([17]))


def _order(lengths: list[int], *, seed: int = 5, window_shards: int = 6) -> WindowedOrder:
    return WindowedOrder(Extents.of(lengths), seed=seed, window_shards=window_shards)


@given(lengths=LENGTHS | EQUAL, seed=SEEDS, window=WINDOWS, epoch=st.integers(0, 2**30))
@settings(max_examples=80, deadline=None)
def test_every_sample_comes_exactly_once_per_epoch_whatever_the_shards(
    lengths: list[int], seed: int, window: int, epoch: int
) -> None:
    order = _order(lengths, seed=seed, window_shards=window)
    num = sum(lengths)
    assert sorted(order.sample_numbers(epoch * num, num)) == list(range(num))


@given(
    lengths=LENGTHS,
    share=st.integers(1, 10),
    world_size=st.integers(1, 4),
    steps=st.integers(1, 6),
    start=st.integers(0, 2**45),
)
@settings(max_examples=60, deadline=None)
def test_ranks_slices_and_steps_concatenate_to_the_undisturbed_stream(
    lengths: list[int], share: int, world_size: int, steps: int, start: int
) -> None:
    order, batch_size = _order(lengths), share * world_size
    ranks = [
        list(
            order.batches(
                batch_size=batch_size, start=start, num_steps=steps, rank=r, world_size=world_size
            )
        )
        for r in range(world_size)
    ]
    joined = np.concatenate([ranks[r][step] for step in range(steps) for r in range(world_size)])
    np.testing.assert_array_equal(joined, order.sample_numbers(start, steps * batch_size))


@given(lengths=LENGTHS | EQUAL, seed=SEEDS, window=WINDOWS, epoch=st.integers(0, 2**30))
@settings(max_examples=60, deadline=None)
def test_the_order_is_that_of_plain_lists_dealt_and_permuted(
    lengths: list[int], seed: int, window: int, epoch: int
) -> None:
    """The same with a table of every sample, cut where the docstring says."""
    order = _order(lengths, seed=seed, window_shards=window)
    num = sum(lengths)
    expected = _by_tables(lengths, seed, window, epoch)
    np.testing.assert_array_equal(order.sample_numbers(epoch * num, num), expected)


def _by_tables(lengths: list[int], seed: int, window: int, epoch: int) -> Numbers:
    golden = np.uint64(0x9E3779B97F4A7C15)

    def key(word: np.ndarray, number: int) -> np.ndarray:
        return mix64(word + np.array([number], np.uint64) * golden)

    def permuted(num: int, word: np.ndarray) -> list[int]:
        return permute(np.arange(num, dtype=np.uint64), num=num, keys=word.repeat(num)).tolist()

    epoch_key = key(mix64(np.array([seed], np.uint64) + golden), epoch)
    samples = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    dealt = [samples[shard] for shard in permuted(len(lengths), key(epoch_key, 1))]
    block, stream = window // 2, np.concatenate(dealt)
    starts = np.concatenate([[0], np.cumsum([len(shard) for shard in dealt])])
    for shift, purpose in ((block // 2, 2), (0, 3)):
        cuts = sorted({0, len(lengths), *range(shift, len(lengths), block)})
        for first, end in pairwise(cuts):
            part = stream[starts[first] : starts[end]]
            if len(part):
                word = key(key(epoch_key, purpose), first)
                stream[starts[first] : starts[end]] = part[permuted(len(part), word)]
    return stream


def test_the_order_is_pinned_by_golden_values() -> None:
    """A checkpoint of today must find its next sample in any later version."""
    small = _order([3, 3, 3, 3, 2], seed=0, window_shards=4).sample_numbers(10, 8)
    large = WindowedOrder(Extents.of([4000] * 100), seed=17).sample_numbers(399_998, 4)
    huge = WindowedOrder(HUGE, seed=5, window_shards=64).sample_numbers(2**45, 4)
    assert small.tolist() == [4, 10, 11, 5, 2, 0, 3, 5]
    assert large.tolist() == [335717, 184372, 293051, 370584]
    assert huge.tolist() == [8040030212, 8961879008, 7698956733, 206569582]


@given(
    lengths=LENGTHS,
    window=WINDOWS,
    start=st.integers(0, 2**40),
    count=st.integers(0, 40),
)
@settings(max_examples=80, deadline=None)
def test_the_shards_of_a_stretch_are_told_without_its_samples(
    lengths: list[int], window: int, start: int, count: int
) -> None:
    """All that are needed, in an epoch each once; for one sample no more than the window."""
    order = _order(lengths, window_shards=window)
    told = order.shards_of(start, count)
    needed = order.shards.locate(order.sample_numbers(start, count))
    assert set(needed) <= set(told)
    assert len(order.shards_of(start, 1)) <= window
    if start // order.num_samples == (start + count) // order.num_samples:
        assert len(set(told)) == len(told)


def test_the_window_moves_on_by_half_and_never_returns_to_a_shard() -> None:
    """So a cache of one and a half windows fetches every shard once per epoch, half ahead."""
    order = _order([50] * 100, window_shards=12)
    windows = [set(order.shards_of(start, 1)) for start in range(0, 5000, 50)]
    for shard in range(100):
        uses = [at for at, window in enumerate(windows) if shard in window]
        assert uses == list(range(uses[0], uses[-1] + 1))
    moves = [(a, b) for a, b in pairwise(windows) if a != b]
    assert {len(b - a) for a, b in moves[:-1]} == {6}
    assert {len(window) for window in windows[6:-12]} == {12}
    assert len(order.shards_of(2000, 300)) == 18


@given(
    num=st.integers(1, 200),
    window=WINDOWS,
    seed=SEEDS,
    place=st.floats(0, 1),
    where_epochs_meet=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_batches_under_way_need_no_more_shards_than_have_to_be_held(
    num: int, window: int, seed: int, place: float, where_epochs_meet: bool
) -> None:
    """Samples of a quarter of a window, anywhere, and where the deal of shards changes."""
    order = _order([20] * num, seed=seed, window_shards=window)
    count = max(1, 20 * (window // 4))
    start = order.num_samples - count // 2 if where_epochs_meet else int(place * 10**6)
    numbers = order.sample_numbers(start, count)
    assert len(set(order.shards.locate(numbers))) <= order.num_held


def test_a_batch_draws_from_all_shards_of_its_window_alike() -> None:
    """Chi-square per batch of 4,096 over 64 shards: its expectation is 1 per degree of freedom."""
    order = WindowedOrder(Extents.of([4000] * 1000), seed=3)
    ratios = []
    for start in range(128_000 * 10 + 50_000, 128_000 * 20, 128_000):
        counts = np.bincount(order.sample_numbers(start, 4096) // 4000, minlength=1000)
        drawn = counts[order.shards_of(start, 4096)]
        assert drawn.sum() == 4096
        assert len(drawn) == 64
        ratios.append(((drawn - 64) ** 2 / 64).sum() / 63)
    assert 0.8 < np.mean(ratios) < 1.2


def test_the_order_has_nothing_to_do_with_storage_nor_with_another_epoch_or_seed() -> None:
    num = 64_000
    order = _order([100] * 640, seed=2, window_shards=64)
    first, second = order.sample_numbers(0, num), order.sample_numbers(num, num)
    other = _order([100] * 640, seed=3, window_shards=64).sample_numbers(0, num)
    limit = 5 / np.sqrt(640)  # five standard deviations: it is shards that are dealt
    for a, b in [(first, np.arange(num)), (first, second), (first, other)]:
        assert abs(np.corrcoef(a, b)[0, 1]) < limit


def test_ten_billion_samples_take_no_more_memory_than_a_few() -> None:
    order = WindowedOrder(HUGE, seed=1)
    tracemalloc.start()
    try:
        for start in (0, 5 * 10**9, 10**10 - 5000, 10**15):
            numbers = order.sample_numbers(start, 10_000)
            assert numbers.min() >= 0
            assert numbers.max() < HUGE.total
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_of_its_own_accord_a_window_has_64_shards_or_a_quarter_of_a_million_samples() -> None:
    assert WindowedOrder(Extents.of([4000] * 3), seed=0).window_shards == 64
    assert WindowedOrder(Extents.of([5000, 5000, 9]), seed=0).window_shards == 64
    assert WindowedOrder(Extents.of([100]), seed=0).window_shards == 2500


def test_an_order_is_opened_by_name_and_says_what_decides_it() -> None:
    everything = open_order("global", [4, 4, 3], seed=7)
    assert everything == Order(num_samples=11, seed=7)
    assert everything.record == {"order": "global"}
    windowed = open_order("windowed", [4, 4, 3], seed=7, window_shards=5)
    assert windowed.record == {"order": "windowed", "window_shards": 5}
    assert windowed.num_samples == 11


@pytest.mark.parametrize(("seed", "window"), [(-1, 8), (2**63, 8), (0, 3), (0, -8)])
def test_an_impossible_order_is_refused(seed: int, window: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        _order([4, 4], seed=seed, window_shards=window)
