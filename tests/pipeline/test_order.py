"""The order is a pure function, exactly once per epoch, and shuffled well."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.order import (
    Order,
    _sides,
    _sides_each,
    epoch_keys,
    permute,
    permute_each,
    rank_share,
    unpermute,
)


@given(num=st.integers(1, 700), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 2**30))
@settings(max_examples=60, deadline=None)
def test_every_sample_comes_exactly_once_per_epoch(num: int, seed: int, epoch: int) -> None:
    numbers = Order(num_samples=num, seed=seed).sample_numbers(epoch * num, num)
    assert sorted(numbers) == list(range(num))


@given(
    num=st.integers(1, 300),
    share=st.integers(1, 40),
    world_size=st.integers(1, 4),
    steps=st.integers(1, 12),
    start=st.integers(0, 2**45),
)
@settings(max_examples=60, deadline=None)
def test_ranks_slices_and_steps_concatenate_to_the_undisturbed_stream(
    num: int, share: int, world_size: int, steps: int, start: int
) -> None:
    order = Order(num_samples=num, seed=5)
    batch_size = share * world_size
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


@given(cut=st.integers(0, 500), num=st.integers(1, 90))
@settings(max_examples=40, deadline=None)
def test_resuming_at_any_sample_gives_the_rest_of_the_stream(cut: int, num: int) -> None:
    order = Order(num_samples=num, seed=11)
    whole = order.sample_numbers(0, 500)
    parts = [order.sample_numbers(0, cut), order.sample_numbers(cut, 500 - cut)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_order_is_pinned_by_golden_values() -> None:
    """A checkpoint of today must find its next sample in any later version."""
    small = Order(num_samples=10, seed=0).sample_numbers(5, 10)
    large = Order(num_samples=400_000, seed=17).sample_numbers(399_998, 4)
    huge = Order(num_samples=2**34 + 7, seed=5).sample_numbers(2**45, 4)
    assert small.tolist() == [6, 2, 0, 4, 1, 1, 5, 7, 0, 8]
    assert large.tolist() == [259586, 292221, 141656, 46716]
    assert huge.tolist() == [6299802110, 8740106974, 10118296248, 969249293]


@pytest.mark.parametrize("num", [2, 3, 4, 5])
def test_over_many_epochs_all_orders_of_few_samples_are_equally_frequent(num: int) -> None:
    """Chi-square over all permutations: its expectation is 1 per degree of freedom."""
    num_epochs = 12_000
    epochs = Order(num_samples=num, seed=1).sample_numbers(0, num * num_epochs).reshape(-1, num)
    found, counts = np.unique(epochs, axis=0, return_counts=True)
    expected = num_epochs / len(list(permutations(range(num))))
    assert len(found) == num_epochs / expected
    assert ((counts - expected) ** 2 / expected).sum() / max(1, len(found) - 1) < 4


def test_the_order_has_nothing_to_do_with_storage_nor_with_another_epoch_or_seed() -> None:
    num = 50_000
    order = Order(num_samples=num, seed=2)
    first, second = order.sample_numbers(0, num), order.sample_numbers(num, num)
    other = Order(num_samples=num, seed=3).sample_numbers(0, num)
    limit = 5 / np.sqrt(num)  # five standard deviations of a correlation of independent orders
    for a, b in [
        (first, np.arange(num)), (first, second), (first, other), (first[1:], first[:-1]),
    ]:  # fmt: skip
        assert abs(np.corrcoef(a, b)[0, 1]) < limit


def test_a_short_window_is_spread_over_the_whole_set() -> None:
    """256 consecutive samples fall into 16 equal parts of the set like balls into boxes."""
    numbers = Order(num_samples=400_000, seed=0).sample_numbers(1000, 256 * 64)
    counts = np.bincount(numbers * 16 // 400_000, minlength=16)
    assert ((counts - 1024) ** 2 / 1024).sum() < 45  # chi-square, 15 degrees: p < 1e-4 above


@pytest.mark.parametrize(("num", "seed"), [(0, 0), (-3, 0), (10, -1), (10, 2**63)])
def test_an_impossible_order_is_refused(num: int, seed: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        Order(num_samples=num, seed=seed)


def test_a_batch_that_ranks_cannot_share_is_refused_naming_both_numbers() -> None:
    with pytest.raises(ValueError, match="10 samples cannot be shared by 4 ranks"):
        rank_share(10, 4)


@given(num=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 2**30))
@settings(max_examples=60, deadline=None)
def test_the_way_back_finds_the_position_of_every_number(num: int, seed: int, epoch: int) -> None:
    positions = np.arange(num, dtype=np.uint64)
    keys = epoch_keys(seed, np.array([epoch])).repeat(num)
    numbers = permute(positions, num=num, keys=keys)
    np.testing.assert_array_equal(unpermute(numbers, num=num, keys=keys), positions)


def test_single_places_of_the_stream_can_be_asked_for_in_any_order() -> None:
    order = Order(num_samples=1000, seed=9)
    places = np.array([2**40, 3, 999, 1000, 3])
    expected = [order.sample_numbers(int(place), 1)[0] for place in places]
    assert order.numbers_at(places).tolist() == expected


@given(
    nums=st.lists(st.integers(1, 2**40) | st.integers(1, 3000), min_size=1, max_size=50),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_many_permutations_at_once_are_each_the_one_of_their_length(
    nums: list[int], data: st.DataObject
) -> None:
    positions = np.array([data.draw(st.integers(0, num - 1)) for num in nums], np.uint64)
    keys = epoch_keys(3, np.arange(len(nums)))
    at_once = permute_each(positions, nums=np.array(nums, np.uint64), keys=keys)
    one_by_one = [
        int(permute(positions[i : i + 1], num=num, keys=keys[i : i + 1])[0])
        for i, num in enumerate(nums)
    ]
    assert at_once.tolist() == one_by_one


@pytest.mark.parametrize("root", [1, 32, 33, 94906267, 2**30 - 1, 2**30])
def test_rectangles_are_exact_where_roots_are_rounded(root: int) -> None:
    """Just below, at and above a square, also past the 53 bits of a float."""
    nums = [max(1, root**2 + difference) for difference in (-1, 0, 1, 2)]
    found = _sides_each(np.array(nums, np.uint64))
    assert list(zip(*(sides.tolist() for sides in found), strict=True)) == [
        tuple(int(side) for side in _sides(num)) for num in nums
    ]
