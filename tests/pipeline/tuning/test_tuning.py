"""What `auto` means by rule, and how measurements choose."""

from collections.abc import Callable

import pytest
import torch

from pipeline.dali import DaliDecoder
from pipeline.tuning.settings import (
    DEFAULT_DEPTH,
    DEFAULT_LOAD,
    LOADS,
    MOST_DEPTH,
    Settings,
    Wish,
    by_rule,
    depth_for,
    search,
    thread_choices,
)
from pipeline.turbojpeg import CHUNK, TurboJpegDecoder

START = Settings(threads=16, prefetch_batches=3, hw_decoder_load=DEFAULT_LOAD)
THREADS = [16, 15, 12, 8]


def test_numbers_stay_and_auto_follows_the_cores() -> None:
    asked = Wish(threads=5, prefetch_batches=7, hw_decoder_load=0.2)
    assert by_rule(asked, cores=2, batch_size=8) == Settings(
        threads=5, prefetch_batches=7, hw_decoder_load=0.2
    )
    assert by_rule(Wish(), cores=6) == Settings(
        threads=6, prefetch_batches=DEFAULT_DEPTH, hw_decoder_load=DEFAULT_LOAD
    )


def test_deterministic_gives_the_engines_nothing_and_refuses_to_be_told_otherwise() -> None:
    assert by_rule(Wish(deterministic=True), cores=2).hw_decoder_load == 0
    assert by_rule(Wish(deterministic=True, hw_decoder_load=0), cores=2).hw_decoder_load == 0
    with pytest.raises(ValueError, match=r"hw_decoder_load is 0\.5; it must be 0 where"):
        Wish(deterministic=True, hw_decoder_load=0.5)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"threads": 0}, "threads is 0; it must be at least 1, or auto"),
        ({"threads": "many"}, "threads is 'many'; it must be"),
        ({"prefetch_batches": 1.5}, "prefetch_batches is 1.5; it must be"),
        ({"hw_decoder_load": 1.01}, "hw_decoder_load is 1.01; it must be 0 to 1, or auto"),
        ({"hw_decoder_load": float("nan")}, "hw_decoder_load is nan; it must be"),
        ({"hw_decoder_load": "all"}, "hw_decoder_load is 'all'; it must be"),
        ({"tune": "never"}, "tune is 'never'; it must be one of auto, again, off"),
    ],
)
def test_what_is_neither_a_number_nor_auto_is_refused_by_name(
    wrong: dict[str, object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        Wish(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("threads", "batch_size", "depth"),
    [
        (2, 256, DEFAULT_DEPTH),
        (2, 1, 4),
        (16, 8 * CHUNK, 4),
        (16, 2 * CHUNK, 16),
        (16, 2 * CHUNK + 1, 11),
        (64, 1, MOST_DEPTH),
        (64, None, DEFAULT_DEPTH),
    ],
)
def test_the_queue_holds_two_tasks_for_each_thread_within_bounds(
    threads: int, batch_size: int | None, depth: int
) -> None:
    assert depth_for(threads, batch_size) == depth


@pytest.mark.parametrize(
    ("cores", "on_gpu", "choices"),
    [
        (1, False, [1]),
        (2, False, [2]),
        (2, True, [2]),
        (3, False, [3, 2]),
        (4, False, [4, 3, 2]),
        (16, False, [16, 12, 8]),
        (16, True, [16, 15, 12, 8]),
    ],
)
def test_few_cores_leave_no_choice_and_a_gpus_trainer_may_keep_one(
    cores: int, on_gpu: bool, choices: list[int]
) -> None:
    assert thread_choices(cores, on_gpu=on_gpu) == choices


def _rates(
    by_load: dict[float, float], by_threads: dict[int, float]
) -> Callable[[Settings], float]:
    return lambda settings: by_load[settings.hw_decoder_load] * by_threads[settings.threads]


FLAT_LOADS = dict.fromkeys(LOADS, 1.0)
FLAT_THREADS = dict.fromkeys(THREADS, 1.0)


@pytest.mark.parametrize(
    ("loads", "threads", "expected"),
    [
        (FLAT_LOADS, FLAT_THREADS, (DEFAULT_LOAD, 8)),
        ({**FLAT_LOADS, 0.25: 1.04}, {**FLAT_THREADS, 8: 0.96}, (DEFAULT_LOAD, 8)),
        ({**FLAT_LOADS, 0.25: 1.20}, {**FLAT_THREADS, 8: 0.90}, (0.25, 12)),
        ({**FLAT_LOADS, 0.0: 2.0}, {16: 1.0, 15: 0.99, 12: 0.9, 8: 0.5}, (0.0, 15)),
        (FLAT_LOADS, {16: 1.0, 15: 0.9, 12: 0.8, 8: 1.3}, (DEFAULT_LOAD, 8)),
    ],
)
def test_a_clear_winner_is_taken_and_what_is_as_good_goes_to_the_preferred(
    loads: dict[float, float], threads: dict[int, float], expected: tuple[float, int]
) -> None:
    found = search(START, LOADS, THREADS, _rates(loads, threads), limit_s=60)
    assert (found.hw_decoder_load, found.threads) == expected
    assert found.prefetch_batches == START.prefetch_batches


def test_what_has_one_choice_is_not_measured() -> None:
    def measure(_: Settings) -> float:
        raise AssertionError

    assert search(START, [0.65], [16], measure, limit_s=60) == START


def test_when_time_is_up_nothing_more_is_tried_and_nothing_untried_is_chosen() -> None:
    tried: list[Settings] = []
    now = [0.0]

    def measure(settings: Settings) -> float:
        tried.append(settings)
        now[0] += 1.0
        return 100.0

    found = search(START, LOADS, THREADS, measure, limit_s=2.5, clock=lambda: now[0])
    assert [one.hw_decoder_load for one in tried] == [*LOADS[:3], LOADS[0]]
    assert [one.threads for one in tried] == [16, 16, 16, 16]
    assert found == START


@pytest.mark.parametrize(
    "decoder",
    [
        TurboJpegDecoder(threads=1, prefetch_batches=1),
        DaliDecoder(device=torch.device("cpu"), threads=1, prefetch_batches=1, hw_decoder_load=0.5),
    ],
)
def test_settings_change_a_decoder_in_what_they_say_and_nothing_else(
    decoder: TurboJpegDecoder | DaliDecoder,
) -> None:
    changed = START.applied(decoder)
    assert type(changed) is type(decoder)
    assert (changed.threads, changed.prefetch_batches) == (16, 3)  # type: ignore[attr-defined]
    if isinstance(changed, DaliDecoder):
        assert changed.hw_decoder_load == DEFAULT_LOAD
        assert changed.device == torch.device("cpu")
