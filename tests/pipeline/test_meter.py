"""One definition of rate and waiting, checked against a clock moved by hand."""

from collections.abc import Iterator

import pytest

from pipeline.meter import Meter


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_waiting_is_the_time_inside_next_and_working_the_rest() -> None:
    clock = _Clock()

    def batches() -> Iterator[int]:
        for _ in range(3):
            clock.now += 1.0
            yield 8

    meter = Meter(clock)
    for num_samples in meter.watch(batches()):
        clock.now += 3.0
        meter.tick(num_samples)
    reading = meter.read()
    assert (reading.steps, reading.samples, reading.seconds) == (3, 24, 12.0)
    assert reading.samples_per_s == pytest.approx(2.0)
    assert reading.images_per_s == pytest.approx(6.0)
    assert reading.waiting_share == pytest.approx(0.25)


def test_reading_begins_a_new_window() -> None:
    clock = _Clock()
    meter = Meter(clock)
    clock.now += 5
    meter.tick(10)
    meter.read()
    clock.now += 2
    meter.tick(1)
    reading = meter.read()
    assert (reading.samples, reading.seconds, reading.waiting_s) == (1, 2.0, 0.0)


def test_an_empty_window_has_rate_zero() -> None:
    reading = Meter(_Clock()).read()
    assert (reading.samples_per_s, reading.images_per_s, reading.waiting_share) == (0.0, 0.0, 0.0)
