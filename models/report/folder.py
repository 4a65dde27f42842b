"""A run folder as its report reads it: also of a run that goes on, or has only begun."""

import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.checkpoint import read_checkpoint
from models.error import CheckpointError, TrainingError
from models.training.plan import plan_run
from models.training.stages import parse_stages

Record = Mapping[str, Any]

_DRAWABLE = 1e30  # also false of what is no number
_PANEL = re.compile(r"epoch-(\d+\.\d+)-(\d+)px\.png")


@dataclass(frozen=True, kw_only=True, slots=True)
class StagePart:
    """What there is of one stage."""

    number: int
    """From 1."""

    size: int
    """Side of its images in pixels."""

    sets: str
    """The sets it trained on, such as 2+3; nothing for all."""

    first_sample: int
    """Samples of the run before its first record."""

    last_sample: int
    """Samples up to its newest record."""

    training: tuple[Record, ...]
    validations: tuple[Record, ...]

    panels: tuple[tuple[float, Path], ...]
    """Epoch and picture of each validation that was drawn."""

    @property
    def told(self) -> str:
        """Its size, and its sets if it had some alone."""
        return f"{self.size} px @{self.sets}" if self.sets else f"{self.size} px"

    @property
    def best(self) -> Record | None:
        """The validation with the best score."""
        return max(self.validations, key=_score, default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFolder:
    """What a run left so far."""

    path: Path
    config: Mapping[str, Any]
    """`config.toml`."""

    stages: tuple[StagePart, ...]
    """Those that have records."""

    planned_samples: int | None
    """Of the whole run; None where that cannot be known yet."""

    planned_stages: int
    """How many stages the run is to have."""

    skipped_samples: int = 0
    """Planned, but left out where a stage ended early because it no longer improved."""

    @property
    def records(self) -> list[Record]:
        """All of them, in order."""
        found = [
            record for stage in self.stages for record in (*stage.training, *stage.validations)
        ]
        return sorted(found, key=lambda record: (record["step"], record["kind"] != "train"))

    @property
    def is_finished(self) -> bool:
        """Whether the last planned stage was validated at its planned end."""
        if self.planned_samples is None or not self.stages or not self.stages[-1].validations:
            return False
        last = self.stages[-1]
        return (
            last.number == self.planned_stages
            and last.validations[-1]["samples"] + self.skipped_samples >= self.planned_samples
        )

    @property
    def best(self) -> Record | None:
        """The validation whose weights are `best.pt`: the best at the last size reached."""
        return next((stage.best for stage in self.stages[::-1] if stage.best), None)


def read_run(path: Path) -> RunFolder:
    """Read a run folder; a record that is just being written is left out.

    Raises:
        TrainingError: It is none, or a file in it is damaged.
    """
    lacking = [name for name in ("config.toml", "metrics.jsonl") if not (path / name).is_file()]
    if lacking:
        msg = (
            f"{path} is no run folder (no {lacking[0]} in it); name the --out of `maskdepth train`"
        )
        raise TrainingError(msg)
    config = _config(path / "config.toml")
    records = list(_records(path / "metrics.jsonl"))
    panels = sorted(_panels(path / "panels"))
    planned_samples, planned_stages = _plan(config, records)
    return RunFolder(
        path=path,
        config=config,
        stages=tuple(_stages(records, panels)),
        planned_samples=planned_samples,
        planned_stages=planned_stages,
        skipped_samples=_skipped(path / "last.pt", config),
    )


def numbers(records: Iterable[Record], key: str) -> tuple[list[float], list[float]]:
    """Samples and values of those records that have a number of this name that can be drawn."""
    found = [
        (float(record["samples"]), float(value))
        for record in records
        if isinstance(value := record.get(key), int | float) and abs(value) < _DRAWABLE
    ]
    return [samples for samples, _ in found], [value for _, value in found]


def _score(record: Record) -> float:
    value = record.get("score", 0.0)
    return value if math.isfinite(value) else -math.inf


def _config(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is damaged ({error}); restore it, or go on with --resume to write it again"
        raise TrainingError(msg) from None


def _records(path: Path) -> Iterator[Record]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            complete = {"kind", "step", "samples", "epoch", "stage", "size"} <= record.keys()
        except (ValueError, AttributeError):
            complete = False
        if complete:
            yield record
        elif number < len(lines):  # what follows the last line's end is still being written
            msg = f"{path} is damaged in line {number}; go on with --resume to write it again"
            raise TrainingError(msg)


def _panels(folder: Path) -> Iterator[tuple[float, int, Path]]:
    for path in folder.glob("*.png"):
        if found := _PANEL.fullmatch(path.name):
            yield float(found[1]), int(found[2]), path


def _stages(records: list[Record], panels: list[tuple[float, int, Path]]) -> Iterator[StagePart]:
    begin = 0
    for number in sorted({record["stage"] for record in records}):
        own = [record for record in records if record["stage"] == number]
        size, last = own[0]["size"], own[-1]["samples"]
        validations = [record for record in own if record["kind"] == "validation"]
        epochs = [record["epoch"] for record in validations]
        yield StagePart(
            number=number,
            size=size,
            sets=str(own[0].get("sets", "")),
            first_sample=begin,
            last_sample=last,
            training=tuple(record for record in own if record["kind"] == "train"),
            validations=tuple(validations),
            panels=tuple(
                (epoch, path)
                for epoch, side, path in panels
                if side == size and any(abs(epoch - drawn) < 0.006 for drawn in epochs)
            ),
        )
        begin = last


def _skipped(checkpoint: Path, config: Mapping[str, Any]) -> int:
    """What the newest checkpoint knows to be skipped; asked only where runs may end early."""
    if not config.get("train", {}).get("patience"):
        return 0
    try:
        return int(read_checkpoint(checkpoint)["progress"].get("skipped_samples", 0))
    except CheckpointError:  # the page is for looking at such a run, too
        return 0


def _plan(config: Mapping[str, Any], records: list[Record]) -> tuple[int | None, int]:
    """Planned samples and stages, as far as the folder tells how large the sets are."""
    train = config.get("train", {})
    try:
        stages = parse_stages(train["stages"], train["batch_size"])
    except (KeyError, ValueError, AttributeError):
        return None, 0
    lengths = config.get("set", {}).get("samples")
    if lengths is None:  # of a version that did not write it down, and knew no stages on some sets
        known = next((record for record in records if record["epoch"] > 0), None)
        lengths = [] if known is None else [round(known["samples"] / known["epoch"])]
    try:
        total = plan_run(stages, *lengths).total_samples
    except (TrainingError, TypeError):
        return None, len(stages)
    return total, len(stages)
