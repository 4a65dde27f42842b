import json
from pathlib import Path

import pytest

from benchmarks import augment
from benchmarks.harness import take_turns


def test_the_ceiling_comes_first_and_every_operation_and_preset_has_a_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(augment, "SIZES", (32,))
    monkeypatch.setattr(augment, "_PIXELS", 4 * 32**2)
    monkeypatch.setattr(augment, "take_turns", lambda contenders, _: take_turns(contenders, 1))
    augment.run(quick=True, json_path=tmp_path / "augment.json")
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].startswith(augment.CEILING)
    found = json.loads(lines[-1])
    assert found == json.loads((tmp_path / "augment.json").read_text())
    (rows,) = found["tables"].values()
    assert [row["name"] for row in rows] == [
        augment.CEILING, *augment.OPERATIONS, *(f"preset {name}" for name in augment.PRESETS),
    ]  # fmt: skip
    assert all(row["median"] > 0 for row in rows)
