"""What is written down of a run: windows of steps, steps that were skipped, validations."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from models.error import TrainingError
from models.training.display import Display
from models.training.distributed import Ranks
from models.training.learner import Learner
from models.training.plan import PlannedStage, RunPlan
from models.training.progress import Progress
from models.training.speed import Speed
from models.training.tracking import NoTracker, Record, Tracker
from pipeline.batch import BatchLoader, sets_text
from pipeline.meter import Meter


@dataclass(kw_only=True)
class Recorder:
    """Writes records, and keeps account of them in the progress."""

    progress: Progress
    plan: RunPlan
    learner: Learner
    loader: BatchLoader
    meter: Meter
    speed: Speed
    ranks: Ranks
    tracker: Tracker | NoTracker
    display: Display
    run_dir: Path
    max_bad_steps: int
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = time.monotonic() - self.progress.elapsed_s

    def take_stock(self) -> None:
        """Bring up to date what the progress says of time and bad samples."""
        self.progress.elapsed_s = time.monotonic() - self._started
        self.ranks.share_bad_samples(self.loader)

    def training(self, stage: PlannedStage) -> None:
        """Of the steps since the last record.

        Raises:
            TrainingError: Too many steps changed nothing.
        """
        self._tell_skipped(stage)
        means = self.learner.window.take()  # waits for the device, so the reading is honest
        speed = self.speed.fields(self.meter.read())
        record = self._write("train", stage, {**means, "lr": self.learner.lr, **speed})
        self.display.trained(stage, record)

    def validation(self, stage: PlannedStage, values: Mapping[str, Any], *, is_best: bool) -> None:
        """Of a validation."""
        record = self._write("validation", stage, values)
        self.display.validated(stage, record, is_best=is_best)

    def _tell_skipped(self, stage: PlannedStage) -> None:
        """Write down the steps that changed nothing; end the run after too many."""
        skipped = self.learner.skipped.take()
        for step, numbers in skipped:
            self.progress.bad_steps += 1
            before = replace(self.progress, by_sets={**self.progress.by_sets})
            before.take(stage.sets, (step - self.progress.step) * stage.batch_size)
            epoch = before.passes(self.plan)
            place = {"step": step, "samples": before.samples, "epoch": epoch}
            self._write("skipped", stage, {**place, "numbers": numbers})
        records = self.run_dir / "metrics.jsonl"
        if skipped:
            steps = ", ".join(f"{step:,}" for step, _ in skipped)
            self.display.say(
                f"skipped step {steps}: loss or gradient was not a finite number; the samples are "
                f"in {records}"
            )
        if self.progress.bad_steps > self.max_bad_steps:
            msg = (
                f"loss or gradient was not a finite number in {self.progress.bad_steps:,} of the "
                f"steps up to {self.progress.step:,}, more than --max-bad-steps "
                f"{self.max_bad_steps:,}; their samples are in {records}, and the checkpoints are "
                "good; start another run with a lower learning rate, or go on with --resume and a "
                "higher limit"
            )
            raise TrainingError(msg)

    def _write(self, kind: str, stage: PlannedStage, values: Mapping[str, Any]) -> Record:
        self.take_stock()
        record: Record = {
            "kind": kind,
            "step": self.progress.step,
            "samples": self.progress.samples,
            "epoch": self.progress.passes(self.plan),
            "stage": stage.number,
            "size": stage.size,
            **({"sets": sets_text(stage.sets)} if stage.sets else {}),
            "elapsed_s": self.progress.elapsed_s,
            "bad_samples": self.loader.num_bad_samples,
            "bad_steps": self.progress.bad_steps,
            **values,
        }
        self.tracker.write(record)
        self.progress.num_records += 1
        return record
