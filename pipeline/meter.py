"""Samples per second, and the share of time spent waiting for data: one definition for all.

The trainer and every benchmark take their rates from here. Nothing asks the device a question: on
a GPU a rate is that of whole windows of steps, which run no faster than the device lets them.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

IMAGES_PER_SAMPLE = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What happened in one window."""

    steps: int
    samples: int
    seconds: float
    waiting_s: float
    """Seconds of it that passed inside `next` of the watched batches."""

    @property
    def samples_per_s(self) -> float:
        """Samples per second; 0 for an empty window."""
        return self.samples / self.seconds if self.seconds else 0.0

    @property
    def images_per_s(self) -> float:
        """Composites, masks and depth maps per second: three times the samples."""
        return IMAGES_PER_SAMPLE * self.samples_per_s

    @property
    def waiting_share(self) -> float:
        """Share of the time spent waiting for data, 0 to 1."""
        return self.waiting_s / self.seconds if self.seconds else 0.0


class Meter:
    """Watches a stream of batches and is ticked once per step.

    Args:
        clock: Seconds, ever increasing.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Begin a new window now: after warm-up, or at a stage's start."""
        self._begin = self._clock()
        self._steps = self._samples = 0
        self._waiting_s = 0.0

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; the time that each takes to come counts as waiting."""
        iterator = iter(batches)
        while True:
            asked = self._clock()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                # a window that began while we waited counts only its own part
                self._waiting_s += self._clock() - max(asked, self._begin)
            yield batch

    def tick(self, num_samples: int) -> None:
        """Count a finished step over `num_samples` samples."""
        self._steps += 1
        self._samples += num_samples

    def read(self) -> Reading:
        """The window up to now, and begin the next one."""
        reading = Reading(
            steps=self._steps,
            samples=self._samples,
            seconds=self._clock() - self._begin,
            waiting_s=self._waiting_s,
        )
        self.restart()
        return reading
