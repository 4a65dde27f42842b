import pytest

from models.training.time_limit import ENDING_S, TimeLimit, parse_duration


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        """The time."""
        return self.now


@pytest.mark.parametrize(
    ("text", "seconds"), [("9m", 540), ("90s", 90), ("90", 90), ("1.5h", 5400), ("", 0)]
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["m", "-1m", "0", "9 min", "1d", "nan"])
def test_what_is_no_duration_is_quoted(text):
    with pytest.raises(ValueError, match=f"time_limit '{text}' is no time above 0"):
        parse_duration(text)


def test_without_a_limit_time_is_never_up():
    clock = Clock()
    limit = TimeLimit(0, clock=clock)
    clock.now = 1e9
    assert not limit.is_up()
    assert limit.has_room_to_open()
    assert not limit.wants_a_save


@pytest.mark.parametrize(("step_s", "save_s"), [(0.1, 0.5), (3.0, 0.0), (0.5, 4.0)])
def test_a_step_and_a_save_more_than_foreseen_still_fit(step_s, save_s):
    """Were the next step and the save half as long again as any before, it would end in time.

    And not much earlier than needed.
    """
    clock = Clock()
    limit = TimeLimit(60, began=clock.now - 5, clock=clock)
    with limit.saving():
        clock.now += save_s
    while not limit.is_up():
        clock.now += step_s
    left = 155 - clock.now
    assert left >= ENDING_S + 1.5 * save_s
    assert left <= ENDING_S + 2 * save_s + 3 * max(step_s, save_s)


def test_what_was_slow_once_is_forgotten():
    clock = Clock()
    limit = TimeLimit(1000, clock=clock)
    clock.now += 300
    assert not limit.is_up()
    while not limit.is_up():
        clock.now += 1
    assert 1100 - clock.now < ENDING_S + 3


def test_there_must_be_room_to_open_the_next_stage():
    """As long as the first one took to its first step; its steps need not be as long."""
    clock = Clock()
    limit = TimeLimit(100, clock=clock)
    limit.opening()
    clock.now += 30
    limit.opened()
    assert not limit.is_up()
    assert limit.has_room_to_open()
    clock.now += 20
    assert not limit.has_room_to_open()
    clock.now -= 19
    assert not limit.is_up()


def test_a_save_is_timed_once_early():
    clock = Clock()
    limit = TimeLimit(100, clock=clock)
    assert limit.wants_a_save
    with limit.saving():
        clock.now += 1
    assert not limit.wants_a_save
