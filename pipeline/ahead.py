"""Work done ahead in threads, handed out in order, a bounded number of jobs at a time."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

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


def one_ahead(jobs: Iterator[Job], work: Callable[[Job], Result]) -> Generator[Result]:
    """Results in the order of the jobs; while the consumer holds one, a thread makes the next.

    Jobs are taken by the consumer's thread, each when the one before it has been worked off, which
    whoever makes them can count on. An error of either comes when its result is asked for.

    The thread computes alone: torch's other threads are busy with the consumer's work.

    Args:
        jobs: What there is to do.
        work: Does it, one job at a time.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="maskdepth-finish") as pool:
        _compute_alone(pool)
        upcoming = _begun(jobs, work, pool)
        while upcoming is not None:
            result = upcoming.result()
            upcoming = _begun(jobs, work, pool)
            yield result


def _begun(
    jobs: Iterator[Job], work: Callable[[Job], Result], pool: Executor
) -> Future[Result] | None:
    """The next job, begun; one that could not even be taken is over, with its error."""
    try:
        job = next(jobs)
    except StopIteration:
        return None
    except Exception as error:  # kept until its result is asked for
        failed: Future[Result] = Future()
        failed.set_exception(error)
        return failed
    return pool.submit(work, job)


def _compute_alone(pool: Executor) -> None:
    num_threads = torch.get_num_threads()
    if num_threads > 1:
        pool.submit(_set_one_thread).result()
        # it holds for the thread that calls it, and for those that will be: these shall have all
        torch.set_num_threads(num_threads)


def _set_one_thread() -> None:
    torch.get_num_threads()  # the first question sets what holds for new threads
    torch.set_num_threads(1)
