"""Jobs run ahead, bounded, and come back in order."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from pipeline.ahead import in_order, one_ahead


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


def test_one_ahead_gives_every_result_in_order_and_takes_no_job_too_early() -> None:
    """A job is taken when the one before it is worked off: its memory may be used again then."""
    free, most = threading.Event(), 0

    def jobs() -> Iterator[int]:
        for n in range(20):
            assert not free.is_set()
            free.set()
            yield n

    def work(n: int) -> int:
        time.sleep(0.001 * (n % 3))
        free.clear()
        return n * n

    for place, result in enumerate(one_ahead(jobs(), work)):
        most = max(most, place)
        assert result == place**2
    assert most == 19


def test_the_next_result_is_made_while_the_consumer_holds_one() -> None:
    made = [threading.Event() for _ in range(4)]

    def work(n: int) -> int:
        made[n].set()
        return n

    for n in one_ahead(iter(range(4)), work):
        if n < 3:
            assert made[n + 1].wait(10)
        assert not any(event.is_set() for event in made[n + 2 :])


@pytest.mark.parametrize("where", ["job", "work"])
def test_an_error_comes_when_its_result_is_asked_for(where: str) -> None:
    def fail(n: int) -> int:
        if n == 2:
            raise KeyError(where)
        return n

    numbers = iter(range(9))
    results = one_ahead(map(fail, numbers), int) if where == "job" else one_ahead(numbers, fail)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(KeyError, match=where):
        next(results)
    assert next(numbers) == 3, "nothing is begun after a failure"


def test_ctrl_c_while_a_job_is_taken_is_not_put_off() -> None:
    def jobs() -> Iterator[int]:
        yield 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(one_ahead(jobs(), int))


def test_closing_waits_for_what_is_under_way_and_leaves_no_thread() -> None:
    before = threading.active_count()
    begun, ended = threading.Event(), threading.Event()

    def work(n: int) -> int:
        if n == 1:
            begun.set()
            time.sleep(0.05)
            ended.set()
        return n

    results = one_ahead(iter(range(9)), work)
    assert next(results) == 0
    assert begun.wait(10)
    results.close()
    assert ended.is_set()
    assert threading.active_count() == before


def test_it_computes_with_one_thread_and_all_others_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = list(one_ahead(iter(range(2)), lambda _: torch.get_num_threads()))
        here = torch.get_num_threads()
        with ThreadPoolExecutor(1) as pool:
            later = pool.submit(torch.get_num_threads).result()
    finally:
        torch.set_num_threads(before)
    assert (found, here, later) == ([1, 1], 3, 3)
