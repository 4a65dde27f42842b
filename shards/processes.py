"""Tasks dealt to processes, results in the order of the tasks, few of them under way."""

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Self, TypeVar

from shards.error import ShardError

Task = TypeVar("Task")
Result = TypeVar("Result")


_FORKED = multiprocessing.get_context("forkserver")
"""Forks are made from a process that has imported what they need and holds nothing else: each is
there in 20 ms, where a new interpreter takes 300, and shares that one's memory."""


def prepare(num_processes: int) -> None:
    """Have the process that others are forked from start, while this one does something else."""
    if num_processes > 1:
        _FORKED.set_forkserver_preload(["__main__", "shards.shard"])
        multiprocessing.forkserver.ensure_running()


class Processes:
    """So many processes while the context is open; 1 runs everything in this one."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._number > 1:
            prepare(self._number)
            self._pool = ProcessPoolExecutor(
                self._number, mp_context=_FORKED, initializer=_serve_the_parent
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """The function's results in the order of the tasks; few tasks are made ahead of their turn.

        Raises:
            ShardError: A process was killed.
        """
        if self._pool is None:
            yield from map(function, tasks)
            return
        results: deque[Future[Result]] = deque()
        unfinished: set[Future[Result]] = set()
        try:
            for task in tasks:
                results.append(self._pool.submit(function, task))
                unfinished.add(results[-1])
                # the one that finishes first makes room, wherever it stands in the order
                while len(unfinished) > 2 * self._number:
                    _, unfinished = wait(unfinished, return_when=FIRST_COMPLETED)
                while results and results[0].done():
                    yield results.popleft().result()
            while results:
                yield results.popleft().result()
        except BrokenProcessPool:
            msg = (
                "a process was killed (out of memory?); run the same command again, "
                "with fewer --processes if memory is short"
            )
            raise ShardError(msg) from None


def _serve_the_parent() -> None:
    """Ctrl-C is the parent's affair; but when the parent is killed, its processes end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
