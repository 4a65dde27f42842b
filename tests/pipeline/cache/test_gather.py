"""However rows are gathered, they are the table's bytes; a kernel comes when it is worth it."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.cache.gather as gathering
from pipeline.cache.gather import WORTH_BYTES, Bytes, Gather, Kernel, Numbers
from pipeline.cache.gather_kernel import gather_rows

SECONDS = 20
"""Anything here takes a fraction of one; the rest is for a busy machine."""


def table(num: int, length: int) -> Bytes:
    return np.random.default_rng(num * length).integers(0, 256, (num, length), np.uint8)


def at_address(remainder: int, shape: tuple[int, int]) -> tuple[Bytes, Bytes]:
    """Bytes whose address leaves this remainder to 64, and the bytes on both sides with them."""
    num = shape[0] * shape[1]
    around = np.full(num + 256, 99, np.uint8)
    begin = 64 + (remainder - around.ctypes.data) % 64
    return around[begin : begin + num].reshape(shape), around


@given(
    length=st.integers(1, 400) | st.integers(1, 30).map(lambda size: 5 * size**2),
    num=st.integers(1, 9),
    remainder=st.integers(0, 63),
    past_caches=st.booleans(),
    data=st.data(),
)
@settings(max_examples=300, deadline=None)
def test_the_kernel_copies_the_rows_and_nothing_beside_them(
    length: int, num: int, remainder: int, past_caches: bool, data: st.DataObject
) -> None:
    """Any length, any address, rows again and again, none at all."""
    rows, _ = at_address(data.draw(st.integers(0, 63)), (num, length))
    rows[:] = table(num, length)
    numbers = np.array(data.draw(st.lists(st.integers(0, num - 1), max_size=7)), np.int64)
    out, around = at_address(remainder, (len(numbers), length))
    gather_rows(rows, numbers, out, past_caches)
    np.testing.assert_array_equal(out, rows[numbers])
    out[:] = 99
    assert (around == 99).all()


@pytest.mark.parametrize("size", [64, 96, 224])
def test_batches_of_the_usual_sizes_are_the_same_whoever_gathers(size: int) -> None:
    rows, numbers = table(40, 5 * size**2), np.random.default_rng(1).integers(0, 40, 64)
    expected = rows[numbers]
    by_numpy, by_kernel = Gather(lambda: gather_rows), Gather(lambda: gather_rows)
    by_kernel.compile()
    for gather in (by_numpy, by_kernel):
        for in_use in (0, 1 << 40):
            out = np.empty_like(expected)
            gather(rows, numbers, out, in_use=in_use)
            np.testing.assert_array_equal(out, expected)


def recording(told: list[bool]) -> Kernel:
    """A kernel that notes whether it shall go past the caches."""

    def kernel(rows: Bytes, numbers: Numbers, out: Bytes, past_caches: bool) -> None:
        out[:] = rows[numbers]
        told.append(past_caches)

    return kernel


def gathered(gather: Gather, *, in_use: int = 0) -> None:
    """One batch of 80 bytes, checked."""
    rows, numbers = table(10, 20), np.array([9, 0, 0, 4])
    out = np.zeros((4, 20), np.uint8)
    gather(rows, numbers, out, in_use=in_use)
    np.testing.assert_array_equal(out, rows[numbers])


def wait_until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def compiling() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "maskdepth-compile"]


def test_frames_that_fit_the_l3_cache_stay_there_and_others_go_past_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gathering, "l3_bytes", lambda: 1000)
    told: list[bool] = []
    gather = Gather(lambda: recording(told))
    gather.compile()
    for in_use in (0, 999, 1000, 1001):
        gathered(gather, in_use=in_use)
    assert told == [False, False, False, True]


def test_it_is_compiled_once_for_a_stream_worth_it_and_numpy_gathers_until_then() -> None:
    told: list[bool] = []
    begun: list[threading.Thread] = []
    may_end = threading.Event()

    def compiled() -> Kernel:
        begun.append(threading.current_thread())
        may_end.wait(SECONDS)
        return recording(told)

    gather = Gather(compiled)
    gather.expect(WORTH_BYTES - 1)
    assert not compiling()
    gather.expect(WORTH_BYTES)
    gather.expect(WORTH_BYTES)
    wait_until(lambda: begun)
    assert begun[0].daemon, "a process that ends does not wait for it"
    for _ in range(20):
        gathered(gather)
    assert not told
    may_end.set()
    wait_until(lambda: not compiling())
    gather.expect(WORTH_BYTES)
    gathered(gather)
    assert len(told) == len(begun) == 1


def test_many_threads_compile_it_once() -> None:
    begun: list[None] = []

    def compiled() -> Kernel:
        begun.append(None)
        return recording([])

    gather = Gather(compiled)
    together = threading.Barrier(8)

    def work() -> None:
        together.wait(SECONDS)
        gather.expect(WORTH_BYTES)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: not compiling())
    assert len(begun) == 1


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (ModuleNotFoundError("No module named 'numba'"), logging.INFO),
        (RuntimeError("unknown processor"), logging.WARNING),
    ],
)
def test_without_a_kernel_numpy_goes_on_and_it_is_told_once(
    error: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    def compiled() -> Kernel:
        raise error

    gather = Gather(compiled)
    with caplog.at_level(logging.INFO, "pipeline.cache.gather"):
        gather.expect(WORTH_BYTES)
        wait_until(lambda: not compiling())
        gather.expect(WORTH_BYTES)
        gathered(gather)
    [record] = caplog.records
    assert record.levelno == level
    assert str(error) in record.getMessage()


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_numba_is_imported_when_it_is_needed_and_a_process_without_it_gathers_too() -> None:
    ended = run("""
import sys
import pipeline.loader
assert not {"numba", "llvmlite"} & {*sys.modules}, "the loader imports it"
sys.modules["numba"] = None  # as on a machine without it
import time
import numpy as np
from pipeline.cache.gather import WORTH_BYTES, gather
gather.expect(WORTH_BYTES)
rows, out = np.arange(60, dtype=np.uint8).reshape(3, 20), np.zeros((2, 20), np.uint8)
for _ in range(3):
    gather(rows, np.array([2, 1]), out, in_use=0)
    time.sleep(0.05)
    assert (out == rows[[2, 1]]).all()
""")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.3, 0.6])
def test_a_process_that_ends_while_it_compiles_does_not_wait_and_does_not_fail(
    delay_s: float,
) -> None:
    """The thread would sleep for a minute after it has compiled."""
    ended = run(f"""
import time
import numpy as np
from pipeline.cache.gather import WORTH_BYTES, Gather, _compiled
def compiled():
    kernel = _compiled()
    time.sleep(60)
    return kernel
Gather(compiled).expect(WORTH_BYTES)
time.sleep({delay_s})
""")
    assert (ended.returncode, ended.stderr) == (0, "")
