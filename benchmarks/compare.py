"""Is a result slower than a stored one? Compared by ratios, since machines and hours differ.

Each of our rows is divided, turn by turn, by the first peer that ran in both runs, or else by the
ceiling; slower is a median ratio lower by more than the tolerance.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TOLERANCE = 0.15
"""A ratio lower by less than this share is taken for noise."""

Rows = Sequence[Mapping[str, Any]]


def read_result(path: Path) -> dict[str, Any]:
    """A stored result.

    Raises:
        ValueError: The file is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path} is not a result of `maskdepth bench`: {error}"
        raise ValueError(msg) from None
    if not isinstance(found, dict) or not {"question", "configuration", "tables"} <= found.keys():
        msg = f"{path} is not a result of `maskdepth bench`"
        raise ValueError(msg)
    return found


def read_comparable(path: Path, *, question: str, quick: bool) -> dict[str, Any]:
    """A stored result of the same measurement.

    Raises:
        ValueError: The file is none.
    """
    stored = read_result(path)
    if stored["question"] != question:
        msg = f"{path} answers {stored['question']!r}, not {question!r}"
        raise ValueError(msg)
    if stored["configuration"].get("quick") != quick:
        kind = "a full" if quick else "a --quick"
        msg = f"{path} is {kind} run, unlike this one; compare like with like"
        raise ValueError(msg)
    return stored


def slower_rows(found: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """What is slower now, a line each.

    Raises:
        ValueError: The two have no row in common.
    """
    lines, num_compared = [], 0
    for title in found["tables"].keys() & stored["tables"].keys():
        now, then = found["tables"][title], stored["tables"][title]
        base = _common_base(now, then)
        for row in then:
            if base is None or row.get("role") != "ours" or not row["rates"]:
                continue
            num_compared += 1
            line = _difference(row["name"], base, now, then)
            lines += [f"{title}, {line}"] if line else []
    if not num_compared:
        msg = "the stored result shares no row with this one; measure it anew"
        raise ValueError(msg)
    return sorted(lines)


def _common_base(now: Rows, then: Rows) -> str | None:
    for role in ("peer", "ceiling"):
        for row in then:
            if row.get("role") == role and row["rates"] and _rates(now, row["name"]):
                return str(row["name"])
    return None


def _difference(name: str, base: str, now: Rows, then: Rows) -> str:
    before = _ratio(then, name, base)
    if not _rates(now, name):
        return f"{name}: did not run; it was {before:.2f} x {base}"
    after = _ratio(now, name, base)
    if after >= before * (1 - TOLERANCE):
        return ""
    return f"{name}: {after:.2f} x {base}, it was {before:.2f}: {1 - after / before:.0%} slower"


def _ratio(rows: Rows, name: str, base: str) -> float:
    pairs = zip(_rates(rows, name), _rates(rows, base), strict=False)
    return statistics.median(mine / theirs for mine, theirs in pairs)


def _rates(rows: Rows, name: str) -> list[float]:
    return next((row["rates"] for row in rows if row["name"] == name), [])
