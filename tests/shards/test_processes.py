import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.error import ShardError
from shards.processes import Processes

NUM_TASKS = 40


def sleep_for(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def wait_for_file(path: Path) -> bool:
    """Whether the file appears within a time no test machine needs."""
    end = time.monotonic() + 30
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return path.exists()


def wait_or_make(task: tuple[bool, Path]) -> bool:
    waits, path = task
    if waits:
        return wait_for_file(path)
    path.touch()
    return True


@pytest.mark.parametrize("number", [1, 2])
def test_results_come_in_the_order_of_the_tasks(number: int) -> None:
    tasks = [0.02 * (task % 3) for task in range(12)]
    with Processes(number) as processes:
        assert list(processes.map(sleep_for, tasks)) == tasks


def test_a_slow_task_does_not_hold_up_those_behind_it(tmp_path: Path) -> None:
    """The first one waits for what only the last one does, far past the tasks under way."""
    tasks = [(True, tmp_path / "last"), *((False, tmp_path / str(n)) for n in range(NUM_TASKS)),
             (False, tmp_path / "last")]  # fmt: skip
    with Processes(2) as processes:
        assert all(processes.map(wait_or_make, tasks))


def test_tasks_are_made_shortly_before_their_turn() -> None:
    """A million samples as tasks would fill the memory."""
    made = 0

    def tasks() -> Iterator[float]:
        nonlocal made
        for _ in range(NUM_TASKS):
            made += 1
            yield 0.02

    with Processes(2) as processes:
        results = processes.map(sleep_for, tasks())
        next(results)
        assert made < NUM_TASKS / 2
        assert len(list(results)) == NUM_TASKS - 1


def test_processes_are_forked_from_one_that_is_ready_beforehand() -> None:
    with Processes(2) as processes:
        (parent, *_) = processes.map(parent_of, [0])
    assert parent != os.getpid()


def parent_of(_: int) -> int:
    return os.getppid()


def kill_own_process(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(_: int) -> None:
    msg = "no room"
    raise OSError(msg)


@pytest.mark.parametrize("killed", [0, 7])
def test_a_killed_process_is_one_error_and_none_is_left(killed: int) -> None:
    """At the first task or later; the others end with it, and at once."""
    began = time.monotonic()
    with Processes(2) as processes:
        tasks = [0.01] * killed
        assert list(processes.map(sleep_for, tasks)) == tasks
        with pytest.raises(ShardError, match="a process was killed"):
            list(processes.map(kill_own_process, range(3)))
    assert time.monotonic() - began < 20
    assert multiprocessing.active_children() == []


def test_an_error_comes_back_as_it_was_with_the_place_where_it_happened() -> None:
    with Processes(2) as processes, pytest.raises(OSError, match="no room") as caught:
        list(processes.map(fail, range(3)))
    assert "in fail" in caught.value.__notes__[0]


def test_processes_that_cannot_be_started_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not a pool of none, which would give no result for any task."""

    def refuse(_: Processes) -> None:
        msg = "no more processes"
        raise OSError(msg)

    monkeypatch.setattr(Processes, "_start", refuse)
    with Processes(2) as processes, pytest.raises(OSError, match="no more processes"):
        list(processes.map(sleep_for, [0.0]))


def test_processes_that_are_not_asked_for_anything_end_too() -> None:
    with Processes(2):
        pass
    assert multiprocessing.active_children() == []
