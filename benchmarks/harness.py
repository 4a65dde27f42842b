"""How things are measured here: in turns, repeated, medians, the circumstances written down.

Machines are shared and noisy. So contenders take turns within one run, the first turn of each is
thrown away, and what is quoted is the median rate and the median of ratios turn by turn.
"""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "nvidia-dali-cuda120", "nvidia-dali-cuda130", "simplejpeg", "numpy",
             "pillow", "webdataset")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One contender's figures."""

    name: str
    rates: tuple[float, ...]
    """Per turn, in the table's unit."""
    failure: str = ""
    """Why it did not run; then there are no rates."""

    @property
    def median(self) -> float:
        """Median rate; 0 if it did not run."""
        return statistics.median(self.rates) if self.rates else 0.0

    def ratio(self, other: "Row") -> float:
        """Median of this over the other, turn by turn; 0 if either did not run."""
        pairs = [mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=False)]
        return statistics.median(pairs) if pairs else 0.0


def take_turns(contenders: Mapping[str, Callable[[], float]], turns: int) -> list[Row]:
    """Measure contenders in turn.

    Args:
        contenders: Name to a function that does the work once and returns its rate.
        turns: Counted turns; one more of each comes first, to warm up.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    failures: dict[str, str] = {}
    for turn in range(turns + 1):
        for name, run in contenders.items():
            if name in failures:
                continue
            try:
                rate = run()
            except Exception as error:  # a peer that fails is a row, not the end
                failures[name] = f"{type(error).__name__}: {error}"
                continue
            if turn:
                rates[name].append(rate)
    return [
        Row(name=name, rates=() if name in failures else tuple(found),
            failure=failures.get(name, ""))
        for name, found in rates.items()
    ]  # fmt: skip


def print_rows(title: str, unit: str, rows: list[Row], base: Row) -> None:
    """A table of medians, spreads, and ratios to `base`."""
    print(f"\n{title}")
    print(f"{'':<34}{unit:>14}{'spread':>18}{'x ' + base.name:>24}")
    for row in rows:
        if row.failure:
            print(f"{row.name:<34}  did not run: {row.failure}")
            continue
        spread = f"{min(row.rates):,.0f}-{max(row.rates):,.0f}"
        print(f"{row.name:<34}{row.median:>14,.0f}{spread:>18}{row.ratio(base):>24.2f}")


def result(question: str, configuration: Mapping[str, Any], tables: Mapping[str, list[Row]],
           unit: str) -> dict[str, Any]:  # fmt: skip
    """Everything that was measured, as one JSON object."""
    return {
        "question": question,
        "configuration": dict(configuration),
        "unit": unit,
        "environment": environment(),
        "tables": {
            title: [
                {"name": row.name, "median": row.median, "rates": list(row.rates),
                 **({"failure": row.failure} if row.failure else {})}
                for row in rows
            ]
            for title, rows in tables.items()
        },
    }  # fmt: skip


def report(found: Mapping[str, Any], path: Path | None) -> None:
    """Print the JSON as the last line, and keep it in a file if asked."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n" + json.dumps(found))


def environment() -> dict[str, Any]:
    """Hardware, versions and commit."""
    found: dict[str, Any] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "commit": _commit(),
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
