"""Runs laid end to end, against plain tables of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.extents import Extents

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any)
NEARLY_EQUAL = st.builds(
    lambda num, full, last: [full] * num + [last],
    st.integers(1, 40), st.integers(1, 9), st.integers(0, 12),
)  # fmt: skip


@given(lengths=LENGTHS | NEARLY_EQUAL)
@settings(max_examples=150, deadline=None)
def test_starts_and_positions_agree_with_a_table_of_all_runs(lengths: list[int]) -> None:
    extents = Extents.of(lengths)
    assert extents.total == sum(lengths)
    runs = np.arange(len(lengths) + 1)
    np.testing.assert_array_equal(extents.starts(runs), np.concatenate([[0], np.cumsum(lengths)]))
    table = np.repeat(np.arange(len(lengths)), lengths)
    np.testing.assert_array_equal(extents.locate(np.arange(sum(lengths))), table)


def test_runs_of_one_length_need_no_table() -> None:
    """2.5 million shards of 4,000 samples, the last one short, in a few words."""
    extents = Extents(
        num=2_500_000, full=4000, odd=np.array([2_499_999]), odd_lengths=np.array([3])
    )
    assert extents.total == 2_499_999 * 4000 + 3
    runs = np.array([0, 1_234_567, 2_499_999, 2_500_000])
    assert extents.starts(runs).tolist() == [0, 4_938_268_000, 9_999_996_000, 9_999_996_003]
    assert extents.locate(extents.starts(runs[:3]) + 2).tolist() == runs[:3].tolist()
    assert Extents.of([4000] * 5 + [3]).odd.tolist() == [5]


@pytest.mark.parametrize("lengths", [[], [0, 0], [4, -1]])
def test_lengths_that_hold_no_samples_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="give the length of each"):
        Extents.of(lengths)
