"""Tasks dealt to processes, results in the order of the tasks, few of them under way."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Self, TypeVar

from shards.error import ShardError

Task = TypeVar("Task")
Result = TypeVar("Result")


class Processes:
    """So many processes while the context is open; 1 runs everything in this one."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._number > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self._number, mp_context=context, initializer=_serve_the_parent
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
        """The function's results; at most twice as many tasks as processes are under way.

        Raises:
            ShardError: A process was killed.
        """
        if self._pool is None:
            yield from map(function, tasks)
            return
        under_way: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                under_way.append(self._pool.submit(function, task))
                if len(under_way) > 2 * self._number:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
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
