"""Large memory comes from the system, small memory from the heap."""

import mmap

import numpy as np
import pytest

from pipeline.memory import LARGE_BYTES, pages


@pytest.mark.parametrize("num_bytes", [0, 1, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1])
def test_it_is_as_long_as_asked_for_empty_and_writable(num_bytes: int) -> None:
    memory = pages(num_bytes)
    assert (memory.shape, memory.dtype) == ((num_bytes,), np.uint8)
    assert not memory.any()
    memory[:] = 7
    assert (memory == 7).all()


def test_only_what_is_large_has_a_mapping_of_its_own() -> None:
    """A process may have 65,000: a consumer that keeps every batch has more small arrays."""
    assert isinstance(pages(LARGE_BYTES).base.obj, mmap.mmap)  # type: ignore[union-attr]
    assert pages(LARGE_BYTES - 1).base is None
