"""A result as a picture: a panel for each table, a bar for each contender, with Pillow alone.

    python -m benchmarks.plot RESULT.json PICTURE.png

Bars are medians, the line through a bar's end its slowest and fastest turn. Each panel has a scale
of its own, from zero.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from benchmarks.compare import read_result

_WIDTH, _ROW, _HEAD, _GAP = 900, 24, 34, 18
_NAMES, _FIGURES = 220, 130  # columns left and right of the bars
_INK, _FAINT = "#222222", "#8a8a8a"
_COLOURS = {"ceiling": "#d9d9d9", "ours": "#2f6db3", "peer": "#e0a458"}
_LEGEND = {"ceiling": "ceiling", "ours": "maskdepth", "peer": "others"}
_SCALE = 2  # drawn at twice the size: sharp on today's screens

Rows = Sequence[Mapping[str, Any]]


def draw(found: Mapping[str, Any]) -> Image.Image:
    """All tables of a result, one below the other."""
    tables = found["tables"]
    heights = [_HEAD + _ROW * len(rows) + _GAP for rows in tables.values()]
    canvas = _Canvas(_WIDTH, 2 * _HEAD + sum(heights))
    where = found["environment"]
    place = f"{where['processor']}, {where['cores']} cores, {where['date']}, {where['commit']}"
    canvas.text(12, 10, f"{found['question']}: {found['unit']}", size=16)
    canvas.text(12, 34, place, colour=_FAINT)
    _draw_legend(canvas, {row.get("role", "ours") for rows in tables.values() for row in rows})
    top = 2 * _HEAD
    for (title, rows), height in zip(tables.items(), heights, strict=True):
        _draw_panel(canvas, title, rows, top)
        top += height
    return canvas.image


def save(found: Mapping[str, Any], path: Path) -> None:
    """Draw a result into a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(found).save(path, "PNG")


def main(arguments: Sequence[str]) -> None:
    """Draw a stored result."""
    if len(arguments) != 2:
        sys.exit("usage: python -m benchmarks.plot RESULT.json PICTURE.png")
    source, target = map(Path, arguments)
    save(read_result(source), target)


def _draw_panel(canvas: "_Canvas", title: str, rows: Rows, top: int) -> None:
    canvas.text(12, top + 8, title, size=14)
    most = max((rate for row in rows for rate in row["rates"]), default=1.0)
    room = _WIDTH - _NAMES - _FIGURES
    for number, row in enumerate(rows):
        y = top + _HEAD + number * _ROW
        canvas.text(_NAMES - 10, y + 3, row["name"], anchor="ra")
        if not row["rates"]:
            canvas.text(_NAMES, y + 3, _shortened(f"did not run: {row['failure']}"), colour=_FAINT)
            continue
        low, median, high = (
            _NAMES + room * rate / most
            for rate in (min(row["rates"]), row["median"], max(row["rates"]))
        )
        canvas.box(_NAMES, y + 2, median, y + _ROW - 4, _COLOURS[row.get("role", "ours")])
        canvas.line(low, high, y + _ROW / 2 - 1)
        canvas.text(_WIDTH - 12, y + 3, f"{row['median']:,.0f}", anchor="ra")


def _draw_legend(canvas: "_Canvas", roles: set[str]) -> None:
    x = _WIDTH - 300
    for role, name in _LEGEND.items():
        if role in roles:
            canvas.box(x, 12, x + 14, 26, _COLOURS[role])
            canvas.text(x + 20, 11, name)
            x += 100


def _shortened(text: str, length: int = 90) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


class _Canvas:
    """Draws in the units of a picture of half the size."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width * _SCALE, height * _SCALE), "white")
        self._draw = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, text: str, *, size: int = 12, colour: str = _INK,
             anchor: str = "la") -> None:  # fmt: skip
        font = ImageFont.load_default(size * _SCALE)
        self._draw.text((x * _SCALE, y * _SCALE), text, fill=colour, font=font, anchor=anchor)

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        self._draw.rectangle([side * _SCALE for side in (left, top, right, bottom)], fill=colour)

    def line(self, left: float, right: float, y: float) -> None:
        ends = [side * _SCALE for side in (left, y, right, y)]
        self._draw.line(ends, fill=_INK, width=_SCALE)


if __name__ == "__main__":
    main(sys.argv[1:])
