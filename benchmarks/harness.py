"""How things are measured here: in turns, repeated, medians, the circumstances written down.

Machines are shared and noisy. So contenders take turns within one run, the first turn of each is
thrown away, and what is quoted is the median rate and the median of ratios turn by turn. A turn
begins when the one before has let go of the processors: loaders go on filling their queues for a
while, which cost whoever came next up to half of its rate.
"""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "nvidia-dali-cuda120", "nvidia-dali-cuda130", "simplejpeg", "numpy",
             "pillow", "webdataset")  # fmt: skip

_SETTLED_WITHIN_S, _LOOK_EVERY_S, _IDLE_SHARE = 3.0, 0.1, 0.2

_BATCHES_AT_ONCE = 4  # worker processes deliver in bursts; a clock that stops within one lies


class CannotRun(Exception):  # noqa: N818 - it is read as a sentence: what cannot run, and why
    """A contender cannot run here; what is said becomes its row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One contender's figures."""

    name: str
    rates: tuple[float, ...]
    """Per turn, in the table's unit."""
    failure: str = ""
    """Why it did not run; then there are no rates."""
    role: str = "ours"
    """`ceiling` (what is physically possible), `ours`, or `peer`."""

    @property
    def median(self) -> float:
        """Median rate; 0 if it did not run."""
        return statistics.median(self.rates) if self.rates else 0.0

    def ratio(self, other: "Row") -> float:
        """Median of this over the other, turn by turn; 0 if either did not run."""
        pairs = [mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=False)]
        return statistics.median(pairs) if pairs else 0.0


def rate_of(
    batches: Iterator[object],
    batch_size: int,
    seconds: float,
    finish: Callable[[], None] | None = None,
) -> float:
    """Samples per second of a stream, over at least so many seconds.

    Args:
        batches: What is timed; two batches are taken first, which fill its queue.
        batch_size: Samples in a batch.
        seconds: How long to go on; a few batches are taken at any rate.
        finish: Waits for what a device still has to do.
    """
    _take(2, batches, finish)
    done, elapsed, began = 0, 0.0, time.perf_counter()
    while elapsed < seconds or not done:
        _take(_BATCHES_AT_ONCE, batches, finish)
        done += _BATCHES_AT_ONCE
        elapsed = time.perf_counter() - began
    return done * batch_size / elapsed


def _take(count: int, batches: Iterator[object], finish: Callable[[], None] | None) -> None:
    for _ in range(count):
        next(batches)
    if finish is not None:
        finish()


def take_turns(
    contenders: Mapping[str, Callable[[], float]], turns: int, *, peers: Collection[str] = ()
) -> list[Row]:
    """Measure contenders in turn.

    Args:
        contenders: Name to a function that does the work once and returns its rate. A name that
            begins with `ceiling` is one.
        turns: Counted turns; one more of each comes first, to warm up.
        peers: Which of them are not ours.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    failures: dict[str, str] = {}
    for turn in range(turns + 1):
        for name, run in contenders.items():
            if name in failures:
                continue
            settle()
            try:
                rate = run()
            except CannotRun as error:
                failures[name] = str(error)
                continue
            except Exception as error:  # a peer that fails is a row, not the end
                failures[name] = f"{type(error).__name__}: {error}"
                continue
            if turn:
                rates[name].append(rate)
    return [
        Row(name=name, rates=() if name in failures else tuple(found),
            failure=failures.get(name, ""), role=_role(name, peers))
        for name, found in rates.items()
    ]  # fmt: skip


def settle(limit_s: float = _SETTLED_WITHIN_S) -> float:
    """Wait until the processors idle; returns the seconds it took.

    Args:
        limit_s: Wait no longer: somebody else may be at work.
    """
    began = time.perf_counter()
    before = _processor_times()
    while before is not None and (waited := time.perf_counter() - began) < limit_s:
        time.sleep(_LOOK_EVERY_S)
        now = _processor_times()
        if now is None or now[0] - before[0] <= _IDLE_SHARE * (now[1] - before[1]):
            return waited
        before = now
    return time.perf_counter() - began


def _processor_times() -> tuple[int, int] | None:
    """Ticks that all processors worked, and all ticks; None where the system does not tell."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    except OSError:
        return None
    ticks = [int(word) for word in first.split()[1:9]]
    idle = ticks[3] + ticks[4]  # waiting for a disk is no work
    return sum(ticks) - idle, sum(ticks)


def _role(name: str, peers: Collection[str]) -> str:
    if name.startswith("ceiling"):
        return "ceiling"
    return "peer" if name in peers else "ours"


def print_rows(title: str, unit: str, rows: list[Row], base: Row) -> None:
    """A table of medians, spreads, shares of the ceiling if there is one, and ratios to `base`."""
    ceiling = next((row for row in rows if row.role == "ceiling"), None)
    print(f"\n{title}")
    versus = "" if base is ceiling else f"x {base.name}"
    print(f"{'':<28}{unit:>12}{'spread':>22}{'of ceiling' if ceiling else '':>12}  {versus}")
    for row in rows:
        if row.failure:
            print(f"{row.name:<28}  did not run: {row.failure}")
            continue
        spread = f"{min(row.rates):,.0f} - {max(row.rates):,.0f}"
        share = f"{row.ratio(ceiling):.0%}" if ceiling else ""
        ratio = f"{row.ratio(base):.2f}" if versus else ""
        print(f"{row.name:<28}{row.median:>12,.0f}{spread:>22}{share:>12}  {ratio}".rstrip())


def base_of(rows: list[Row]) -> Row:
    """What the others are compared with: the first peer that ran, else the first row."""
    return next((row for row in rows if row.role == "peer" and row.rates), rows[0])


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
                {"name": row.name, "role": row.role, "median": row.median,
                 "rates": list(row.rates), **({"failure": row.failure} if row.failure else {})}
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
