"""Peak memory of a process and everything it starts: the sum of PSS, sampled from /proc.

PSS divides what processes share among them, so that the sum is what the machine has to hold.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

SPAWN = multiprocessing.get_context("spawn")
_EVERY_S = 0.05


class Measured(NamedTuple):
    """What a function returned, and what it needed."""

    value: Any
    peak_bytes: int


def measure_memory(work: Callable[..., Any], *arguments: Any) -> Measured:
    """Call a function in a new process and watch it.

    Raises:
        RuntimeError: The process ended without a result.
    """
    receive, send = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=_send, args=(send, work, arguments))
    process.start()
    send.close()
    assert process.pid is not None
    peak = 0
    while not receive.poll(_EVERY_S):
        peak = max(peak, tree_pss_bytes(process.pid))
    try:
        value = receive.recv()
    except EOFError:
        msg = f"{work.__name__} ended without a result"
        raise RuntimeError(msg) from None
    finally:
        process.join()
    return Measured(value, peak)


def tree_pss_bytes(pid: int) -> int:
    """Proportional set size of a process and all below it, at this moment."""
    return sum(_pss_bytes(each) for each in _tree(pid))


def _send(send: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    send.send(work(*arguments))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text(encoding="ascii").split()
        except OSError:  # it has ended
            continue
        for child in children:
            yield from _tree(int(child))


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
