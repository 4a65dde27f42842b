import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from benchmarks.harness import Row, result
from benchmarks.plot import _COLOURS, draw, main
from benchmarks.readme import RESULTS


def found() -> dict[str, Any]:
    rows = [
        Row(name="ceiling: all", rates=(400.0,), role="ceiling"),
        Row(name="ours", rates=(300.0,)),
        Row(name="theirs", rates=(100.0,), role="peer"),
        Row(name="broken", rates=(), failure="no such library " * 20, role="peer"),
    ]
    return result("loader", {}, {"64 px": rows, "224 px": rows}, "samples/s")


def longest_bar(image: Image.Image, role: str) -> int:
    """Most pixels of a role's colour in any line."""
    is_bar = (np.asarray(image) == ImageColor.getrgb(_COLOURS[role])).all(axis=2)
    return int(is_bar.sum(axis=1).max())


def test_bars_are_as_long_as_the_rates() -> None:
    image = draw(found())
    longest = {role: longest_bar(image, role) for role in _COLOURS}
    assert longest["ours"] / longest["ceiling"] == pytest.approx(3 / 4, abs=0.01)
    assert longest["peer"] / longest["ceiling"] == pytest.approx(1 / 4, abs=0.01)


def test_a_stored_result_is_drawn_by_a_command(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(found()))
    main([str(tmp_path / "result.json"), str(tmp_path / "picture.png")])
    with Image.open(tmp_path / "picture.png") as image:
        assert image.tobytes() == draw(found()).tobytes()
    with pytest.raises(SystemExit, match=r"usage: python -m benchmarks\.plot"):
        main([])


def test_the_stored_results_can_be_drawn() -> None:
    for path in RESULTS.glob("loader_*.json"):
        assert draw(json.loads(path.read_text())).height > 400
