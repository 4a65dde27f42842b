import json
from pathlib import Path
from typing import Any

import pytest

import benchmarks.loader
import cli
from benchmarks.compare import TOLERANCE, read_comparable, slower_rows
from benchmarks.harness import Row, result

TITLE = "64 px"


def make(ours: float, *, peer: float = 100.0, ceiling: float = 1_000.0, failure: str = "",
         quick: bool = False) -> dict[str, Any]:  # fmt: skip
    """A result of three turns, of which the machine is slower in each."""

    def rates(rate: float) -> tuple[float, ...]:
        return tuple(rate / slowness for slowness in (1, 2, 4)) if rate else ()

    rows = [
        Row(name="ceiling: all", rates=rates(ceiling), role="ceiling"),
        Row(name="us", rates=rates(ours), failure=failure),
        Row(name="them", rates=rates(peer), role="peer"),
    ]
    found = result("loader", {"quick": quick}, {TITLE: rows}, "samples/s")
    return dict(json.loads(json.dumps(found)))


def test_a_row_is_slower_by_its_ratio_to_the_peer() -> None:
    stored = make(300)
    assert slower_rows(make(300 * (1 - TOLERANCE) + 1), stored) == []
    (line,) = slower_rows(make(150), stored)
    assert line == f"{TITLE}, us: 1.50 x them, it was 3.00: 50% slower"


def test_a_slower_machine_is_no_slower_code() -> None:
    assert slower_rows(make(30, peer=10, ceiling=100), make(300)) == []


def test_without_a_peer_in_both_the_ceiling_decides() -> None:
    assert slower_rows(make(300, peer=0), make(300)) == []
    (line,) = slower_rows(make(200, peer=0), make(300))
    assert line == f"{TITLE}, us: 0.20 x ceiling: all, it was 0.30: 33% slower"


def test_a_row_that_no_longer_runs_is_slower() -> None:
    (line,) = slower_rows(make(0, failure="gone"), make(300))
    assert line == f"{TITLE}, us: did not run; it was 3.00 x them"


def test_nothing_in_common_is_not_equally_fast() -> None:
    stored = make(300)
    stored["tables"] = {"another": stored["tables"][TITLE]}
    with pytest.raises(ValueError, match="shares no row with this one; measure it anew"):
        slower_rows(make(300), stored)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is not a result of `maskdepth bench`: Expecting"),
        ("[]", "is not a result of `maskdepth bench`$"),
        (json.dumps(make(1, quick=True)), "is a --quick run, unlike this one"),
        (json.dumps(make(1) | {"question": "convert"}), "answers 'convert', not 'loader'"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_is_measured(
    tmp_path: Path, content: str, told: str
) -> None:
    (tmp_path / "stored.json").write_text(content)
    with pytest.raises(ValueError, match=told):
        read_comparable(tmp_path / "stored.json", question="loader", quick=False)


def test_the_command_ends_with_1_if_something_is_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "stored.json"
    path.write_text(json.dumps(make(300)))
    picture = tmp_path / "deep" / "picture.png"
    for now, status, told in ((300, 0, "nothing slower"), (150, 1, "1 slower")):
        monkeypatch.setattr(benchmarks.loader, "run", lambda now=now, **_: make(now))
        with pytest.raises(SystemExit) as ended:
            cli.main(["bench", "loader", "--compare", str(path), "--plot", str(picture)])
        assert (ended.value.code or 0) == status
        assert capsys.readouterr().out.splitlines()[-1] == f"{path}: {told}"
        assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "loader", "--quick", "--compare", str(path)])
    assert ended.value.code == 2
    assert "is a full run, unlike this one; compare like with like" in capsys.readouterr().err
