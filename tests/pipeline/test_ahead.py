"""Jobs run ahead, bounded, and come back in order."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from pipeline.ahead import in_order


def test_results_come_in_the_order_of_the_jobs_however_long_each_takes() -> None:
    def work(n: int) -> int:
        time.sleep(0.005 * (n % 3))
        return n * n

    jobs = [(n, [partial(work, n), partial(work, n + 100)]) for n in range(12)]
    with ThreadPoolExecutor(4) as pool:
        assert list(in_order(jobs, pool, ahead=3)) == [
            (n, [n * n, (n + 100) ** 2]) for n in range(12)
        ]


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_no_more_jobs_are_started_than_one_and_those_ahead(ahead: int) -> None:
    started: list[int] = []

    def jobs() -> Iterator[tuple[int, list[Callable[[], None]]]]:
        for n in range(20):
            started.append(n)
            yield n, [lambda: None]

    with ThreadPoolExecutor(2) as pool:
        for n, _ in in_order(jobs(), pool, ahead=ahead):
            assert len(started) == min(20, n + 1 + ahead)


def test_an_error_in_a_task_reaches_the_consumer_and_cancels_what_waits() -> None:
    ran: list[int] = []
    gate = threading.Event()

    def work(n: int) -> None:
        if n == 0:
            msg = "task 0"
            raise KeyError(msg)
        gate.wait(0.05)
        ran.append(n)

    jobs = [(n, [partial(work, n)]) for n in range(50)]
    with ThreadPoolExecutor(1) as pool, pytest.raises(KeyError, match="task 0"):
        list(in_order(jobs, pool, ahead=40))
    assert len(ran) < 10
