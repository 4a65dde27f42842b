"""Work done ahead in a thread pool, handed out in order, a bounded number of jobs at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(
    jobs: Iterable[tuple[Job, Sequence[Callable[[], Result]]]], pool: Executor, *, ahead: int
) -> Iterator[tuple[Job, list[Result]]]:
    """Run the tasks of `ahead` jobs beyond the one being handed out.

    A job is taken from `jobs` only when it may start, after the consumer has come back for the
    next one: whoever makes the jobs can count on the job before having been used up.

    Args:
        jobs: Each job with its tasks.
        pool: Runs the tasks, in the order of the jobs.
        ahead: How many jobs are under way while the consumer holds one.
    """
    jobs = iter(jobs)
    under_way: deque[tuple[Job, list[Future[Result]]]] = deque()
    try:
        while True:
            for job, tasks in islice(jobs, ahead + 1 - len(under_way)):
                under_way.append((job, [pool.submit(task) for task in tasks]))
            if not under_way:
                return
            job, futures = under_way.popleft()
            yield job, [future.result() for future in futures]
    finally:
        for _, futures in under_way:
            for future in futures:
                future.cancel()
