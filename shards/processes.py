"""Tasks dealt to processes, results in the order of the tasks, few of them under way.

Each process has a pipe of its own, and nothing is shared but the files they write: whichever is
killed, at whatever moment, holds no lock that another one waits for (`ProcessPoolExecutor` can
hang so).
"""

import gc
import multiprocessing
import multiprocessing.forkserver
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from shards.error import ShardError

Task = TypeVar("Task")
Result = TypeVar("Result")

_FORKED = multiprocessing.get_context("forkserver")
"""Forks are made from a process that has imported what they need and holds nothing else: each is
there in 20 ms, where a new interpreter takes 300, and shares that one's memory."""


class _Worker(NamedTuple):
    process: BaseProcess
    pipe: Connection


class Processes:
    """So many processes while the context is open; 1 runs everything in this one.

    They start while the caller goes on.

    Args:
        number: How many.
        prepare: What each does first, while it has no task yet.
    """

    def __init__(self, number: int, prepare: Callable[[], None] | None = None) -> None:
        self._number, self._prepare = number, prepare
        self._workers: list[_Worker] = []
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="maskdepth-start")
        self._starting: Future[None] | None = None

    def __enter__(self) -> Self:
        if self._number > 1:
            _FORKED.set_forkserver_preload(["__main__", "shards.shard"])
            multiprocessing.forkserver.ensure_running()
            self._starting = self._starter.submit(self._start)
        return self

    def _start(self) -> None:
        for _ in range(self._number):
            here, there = _FORKED.Pipe()
            process = _FORKED.Process(target=_serve, args=(there, self._prepare))
            process.start()
            there.close()
            self._workers.append(_Worker(process, here))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._starter.shutdown()
        for worker in self._workers:
            worker.pipe.close()  # an idle process ends by that
            if kind is not None:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join()

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """The function's results in the order of the tasks; few tasks are made ahead of their turn.

        Raises:
            ShardError: A process was killed.
        """
        if self._starting is None:
            yield from map(function, tasks)
            return
        self._starting.result()
        waiting = (pickle.dumps((function, task), pickle.HIGHEST_PROTOCOL) for task in tasks)
        try:
            yield from self._results(waiting)
        except (EOFError, ConnectionError):
            msg = (
                "a process was killed (out of memory?); run the same command again, "
                "with fewer --processes if memory is short"
            )
            raise ShardError(msg) from None

    def _results(self, tasks: Iterator[bytes]) -> Iterator[Any]:
        """The next tasks are ready when a process asks for one; the first is sent when it is."""
        idle, busy = [worker.pipe for worker in self._workers], dict[Connection, int]()
        results: dict[int, Any] = {}
        ahead: list[bytes] = []
        sent = given = 0
        while True:
            while idle and (ahead := ahead or list(islice(tasks, 1))):
                pipe = idle.pop()
                pipe.send_bytes(ahead.pop(0))
                busy[pipe] = sent
                sent += 1
            ahead += islice(tasks, self._number - len(ahead))
            while given in results:  # only now: whoever takes them may take long
                yield results.pop(given)
                given += 1
            if not busy:
                return
            for answering in wait(list(busy)):
                assert isinstance(answering, Connection)
                results[busy.pop(answering)] = _received(answering)
                idle.append(answering)


def _received(pipe: Connection) -> Any:
    failed, value = pickle.loads(pipe.recv_bytes())
    if failed:
        raise value
    return value


def _serve(pipe: Connection, prepare: Callable[[], None] | None) -> None:
    """Work until the parent closes the pipe. Ctrl-C is its affair; killed, it takes us with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare()
    gc.freeze()
    gc.disable()  # a task is a hundred thousand objects that stay until it is done
    while True:
        try:
            function, task = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            result = False, function(task)
        except Exception as error:
            error.add_note(f"in a process of its own:\n{traceback.format_exc()}")
            result = True, error
        try:
            pipe.send_bytes(pickle.dumps(result, pickle.HIGHEST_PROTOCOL))
        except ConnectionError:  # nobody wants it any more
            return
        del task, result
        gc.collect()
