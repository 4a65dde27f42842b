"""The report's tables: records and configuration in, rows of HTML out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from models.report.folder import RunFolder, StagePart

_PLACE = ("kind", "step", "samples", "epoch", "stage", "size", "sets", "elapsed_s",
          "bad_samples", "bad_steps")  # fmt: skip


def stages_table(stages: Sequence[StagePart]) -> Iterator[str]:
    """Each stage's best validation."""
    columns = {
        "mask_iou": "mask IoU",
        "mask_boundary_f": "boundary F",
        "depth_rmse": "depth RMSE",
        "depth_delta1": "delta 1",
        "depth_ssim": "SSIM",
    }
    best = [stage.best for stage in stages]
    used = [key for key in columns if any(record and key in record for record in best)]
    if not used:
        return
    yield "<section><h2>Stages</h2><div class=wide><table><thead><tr>"
    titles = ["stage", "size", "samples", "best at epoch", *(columns[key] for key in used)]
    yield "".join(f"<th>{title}</th>" for title in titles) + "</tr></thead><tbody>"
    for stage, record in zip(stages, best, strict=True):
        cells = [
            f"{stage.number}",
            stage.told,
            f"{stage.last_sample - stage.first_sample:,}",
            f"{record['epoch']:.1f}" if record else "-",
            *(_cell(record.get(key) if record else None) for key in used),
        ]
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</tbody></table></div></section>"


def validations_table(run: RunFolder) -> Iterator[str]:
    """Every validation, folded away."""
    records = [record for stage in run.stages for record in stage.validations]
    if not records:
        return
    keys = [key for key in dict.fromkeys(key for record in records for key in record)
            if key not in _PLACE]  # fmt: skip
    yield f"<section><details><summary>All {len(records)} validations</summary><div class=wide>"
    yield "<table><thead><tr><th>epoch</th><th>size</th><th>time</th>"
    yield "".join(f"<th>{escape(_words(key))}</th>" for key in keys) + "</tr></thead><tbody>"
    for record in records:
        place = f"<td>{record['epoch']:.1f}</td><td>{record['size']}</td>"
        place += f"<td>{duration(record.get('elapsed_s', 0))}</td>"
        cells = "".join(f"<td>{_cell(record.get(key))}</td>" for key in keys)
        yield f"<tr>{place}{cells}</tr>"
    yield "</tbody></table></div></details></section>"


def configuration_tables(config: Mapping[str, Any]) -> Iterator[str]:
    """`config.toml`, a table for each of its own."""
    yield "<section><h2>Configuration</h2><div class=tables>"
    for title, rows in _tables(config, ()):
        yield f"<table><caption>{escape(title)}</caption><tbody>"
        for key, value in rows:
            yield f"<tr><th>{escape(key)}</th><td>{escape(_plain(value))}</td></tr>"
        yield "</tbody></table>"
    yield "</div></section>"


def versions_table(versions: Mapping[str, Any]) -> Iterator[str]:
    """Of the machine that writes the page."""
    yield "<section><h2>Versions</h2>"
    yield '<p class="note">Of the machine that made this page.</p><div class=tables><table><tbody>'
    for key, value in versions.items():
        yield f"<tr><th>{escape(key)}</th><td>{escape(_plain(value))}</td></tr>"
    yield "</tbody></table></div></section>"


def duration(seconds: float) -> str:
    """Seconds as text: 12 s, 3 min 12 s, 5 h 03 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def is_number(value: Any) -> bool:
    """Whether a record's value can be shown as one."""
    return isinstance(value, int | float) and math.isfinite(value)


def _tables(
    values: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Nested dictionaries as titled tables."""
    rows = [(key, value) for key, value in values.items() if not isinstance(value, Mapping)]
    if rows:
        yield " / ".join(path) or "run", rows
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _tables(value, (*path, key))


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(_plain(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else escape(str(value or "-"))


def _words(key: str) -> str:
    return key.replace("_", " ")
