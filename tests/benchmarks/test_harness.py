import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness import (
    CannotRun,
    Row,
    base_of,
    environment,
    print_rows,
    rate_of,
    report,
    result,
    settle,
    take_turns,
)


def test_contenders_take_turns_and_the_first_turn_is_thrown_away() -> None:
    called: list[str] = []

    def contender(name: str, rates: list[float]) -> float:
        called.append(name)
        return rates.pop(0)

    a, b = [100.0, 1.0, 2.0, 9.0], [100.0, 1.0, 1.0, 3.0]
    rows = take_turns({"a": lambda: contender("a", a), "b": lambda: contender("b", b)}, turns=3)
    assert called == ["a", "b"] * 4
    assert rows[0].median == 2.0
    assert rows[0].ratio(rows[1]) == 2.0, "the median of the ratios 1, 2, 3"


def test_every_turn_waits_until_the_one_before_has_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("benchmarks.harness.settle", lambda: told.append("settled") or 0.0)
    take_turns({"a": lambda: told.append("a") or 1.0, "b": lambda: told.append("b") or 1.0}, 1)
    assert told == ["settled", "a", "settled", "b"] * 2


@pytest.mark.parametrize(
    ("busy", "looks"), [([0.9, 0.5, 0.1, 0.9], 3), ([0.0], 1), ([0.9] * 40, None)]
)
def test_settling_ends_with_the_first_idle_look_or_with_patience(
    monkeypatch: pytest.MonkeyPatch, busy: list[float], looks: int | None
) -> None:
    ticks, taken = [(0, 0)], 0

    def times() -> tuple[int, int]:
        nonlocal taken
        if taken:
            worked = int(100 * busy[taken - 1])
            ticks.append((ticks[-1][0] + worked, ticks[-1][1] + 100))
        taken += 1
        return ticks[-1]

    monkeypatch.setattr("benchmarks.harness._processor_times", times)
    monkeypatch.setattr("benchmarks.harness._LOOK_EVERY_S", 0.001)
    waited = settle(limit_s=0.02)
    if looks is None:
        assert 0.02 <= waited < 1
    else:
        assert taken == looks + 1
        assert waited < 1


def test_a_contender_that_fails_is_a_row_with_its_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> float:
        msg = "no such library"
        raise ImportError(msg)

    rows = take_turns({"broken": fail, "works": lambda: 5.0}, turns=2)
    assert rows[0] == Row(name="broken", rates=(), failure="ImportError: no such library")
    print_rows("a table", "samples/s", rows, rows[1])
    printed = capsys.readouterr().out
    assert "did not run: ImportError: no such library" in printed
    assert "1.00" in printed


def test_a_result_says_where_and_with_what_it_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Row(name="ours", rates=(3.0, 1.0, 2.0))]
    found = result("loader", {"count": 5}, {"64 px": rows}, "samples/s")
    report(found, tmp_path / "deep" / "result.json")
    kept = json.loads((tmp_path / "deep" / "result.json").read_text())
    assert kept == json.loads(capsys.readouterr().out.splitlines()[-1])
    assert kept["tables"]["64 px"][0]["median"] == 2.0
    assert {"date", "processor", "cores", "commit", "torch"} <= kept["environment"].keys()
    assert kept["environment"] == json.loads(json.dumps(environment()))


def test_a_contender_that_cannot_run_says_why_in_its_own_words() -> None:
    def give_up() -> float:
        msg = "its environment is not made"
        raise CannotRun(msg)

    (row,) = take_turns({"theirs": give_up}, turns=1, peers=["theirs"])
    assert row == Row(name="theirs", rates=(), failure="its environment is not made", role="peer")


def test_rows_are_compared_with_the_first_peer_that_ran() -> None:
    ceiling = Row(name="ceiling: all", rates=(9.0,), role="ceiling")
    broken = Row(name="broken", rates=(), failure="gone", role="peer")
    peer = Row(name="theirs", rates=(1.0,), role="peer")
    ours = Row(name="ours", rates=(3.0,))
    assert base_of([ceiling, ours, broken, peer]) is peer
    assert base_of([ceiling, ours, broken]) is ceiling


def test_a_rate_leaves_out_the_first_batches_and_stops_after_its_seconds() -> None:
    """Two slow batches fill the queue; of those at 10 ms, four pass before 50 ms, four after."""
    waits = iter([0.1, 0.1] + [0.01] * 100)
    finished: list[int] = []
    taken = 0

    def batches() -> Iterator[None]:
        nonlocal taken
        for wait in waits:
            time.sleep(wait)
            taken += 1
            yield

    rate = rate_of(batches(), 5, 0.05, lambda: finished.append(taken))
    assert rate <= 5 / 0.01
    assert finished[0] == 2, "the clock starts when the device has finished"
    assert finished[-1] == taken, "and stops when it has"
    assert (taken - 2) % 4 == 0, "whole bursts of worker processes"
    assert 4 <= taken - 2 <= 8
