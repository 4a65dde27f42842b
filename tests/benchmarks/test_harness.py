import json
from pathlib import Path

import pytest

from benchmarks.harness import Row, environment, print_rows, report, result, take_turns


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
