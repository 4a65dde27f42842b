"""What a run shows while it goes: a live table on a terminal, now and then a plain line elsewhere.

The table has a row for each stage: done, running with its bar, rate and time left, or waiting.
Everything goes to stderr; a row per validation stays, the live table does not.
"""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from models.training.plan import PlannedStage, RunPlan
from models.training.tracking import Record

PLAIN_EVERY_S = 30.0
FEW_STEPS = 300

_HEADER = (
    "stage   size   epoch       step  mask IoU (free)  Dice    depth RMSE (free)  MAE     d<1.25"
)


class Display:
    """Shows the progress of one run."""

    def __init__(
        self, plan: RunPlan, console: Console | None = None, *, is_silent: bool = False
    ) -> None:
        self._plan = plan
        self._console = console or Console(stderr=True, quiet=is_silent)
        self._last_plain = -PLAIN_EVERY_S
        self._planned_step = 0
        self._pixels_per_s = 0.0
        self._has_header = False
        self._over: set[int] = set()
        self._progress = Progress(
            TextColumn("{task.fields[place]}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[news]}"),
            console=self._console,
            transient=True,
            disable=is_silent or not self._console.is_terminal,
        )
        self._tasks = {
            stage.number: self._progress.add_task(
                "",
                total=stage.last_step - stage.first_step,
                place=f"stage {stage.number}/{len(plan.stages)}  {stage.told:>6}",
                left="",
                news="waiting",
            )
            for stage in plan.stages
        }

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def began(self) -> None:
        """Warn of a run too short to learn much: batches of the default size on a small set."""
        if self._plan.num_steps < FEW_STEPS:
            self.say(
                f"only {self._plan.num_steps} steps in all, of {self._plan.stages[0].batch_size} "
                "samples; a smaller --batch-size or more epochs in --stages learn more"
            )

    def advance(self, step: int) -> None:
        """Move the bars to a step of the plan."""
        self._planned_step = step
        for stage in self._plan.stages:
            if stage.first_step < step and stage.number not in self._over:
                done = min(step, stage.last_step) - stage.first_step
                self._progress.update(self._tasks[stage.number], completed=done)
                if step > stage.last_step:  # in a run that was resumed after it
                    self._end(stage, "done")

    def trained(self, stage: PlannedStage, record: Record) -> None:
        """Show a record of loss and speed."""
        place = (
            f"stage {stage.number}/{len(self._plan.stages)}, {stage.told}, "
            f"epoch {record['epoch']:.2f}/{self._plan.epochs:.2f}"
        )
        self._pixels_per_s = float(record["samples_per_s"]) * stage.size**2
        speed = (
            f"loss {record['loss']:.4f}, {record['samples_per_s']:,.0f} samples/s, "
            f"data {record['data_wait_share']:.1%}"
        )
        news = f"{speed}, {self._time(self._plan.pixels_left(self._planned_step))} left"
        if bad := record.get("bad_samples"):
            news += f", {bad:,} bad samples"
        self._show_times_left()
        self._progress.update(self._tasks[stage.number], news=speed)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_plain >= PLAIN_EVERY_S:
            self._last_plain = now
            self.say(f"{place}: {news}")

    def validating(self, stage: PlannedStage) -> None:
        """Say what the bar waits for."""
        self._progress.update(self._tasks[stage.number], left="", news="validating")

    def validated(self, stage: PlannedStage, record: Record, *, is_best: bool) -> None:
        """Add the row of a validation."""
        if self._planned_step >= stage.last_step:
            score = f"mask IoU {record['mask_iou']:.4f}" if "mask_iou" in record else "validated"
            self._end(stage, f"done, {score}")
        if not self._has_header:
            self._has_header = True
            self.say(_HEADER)
        cells = {
            name: f"{value:.4f}" if isinstance(value, float) else "-"
            for name in _METRICS
            for value in [record.get(name)]
        }
        self.say(
            f"{stage.number:>2}/{len(self._plan.stages):<3}{stage.size:>6}{record['epoch']:>8.2f}"
            f"{record['step']:>11,}  {cells['mask_iou']:6} ({cells['baseline_mask_iou']:6}) "
            f"{cells['mask_dice']:6}  {cells['depth_rmse']:6}   ({cells['baseline_depth_rmse']:6}) "
            f"  {cells['depth_mae']:6}  {cells['depth_delta1']:6}{'  best' if is_best else ''}"
        )

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def compiled(self, stage: PlannedStage, seconds: float) -> None:
        """Say how long compiling took: the rates leave it out."""
        self.say(f"stage {stage.number}: compiled for {stage.size} px in {seconds:.1f} s")

    def _end(self, stage: PlannedStage, news: str) -> None:
        self._over.add(stage.number)
        self._progress.update(self._tasks[stage.number], left="", news=news)

    def _show_times_left(self) -> None:
        """Of each stage that is not over."""
        for stage in self._plan.stages:
            num_steps = stage.last_step - max(self._planned_step, stage.first_step)
            if num_steps > 0:
                pixels = num_steps * stage.batch_size * stage.size**2
                self._progress.update(self._tasks[stage.number], left=self._time(pixels))

    def _time(self, pixels: int) -> str:
        """By the present rate in pixels: a stage at twice the side takes four times as long."""
        if self._pixels_per_s <= 0:
            return "?"
        minutes, seconds = divmod(round(pixels / self._pixels_per_s), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}"


_METRICS = (
    "mask_iou",
    "baseline_mask_iou",
    "mask_dice",
    "depth_rmse",
    "baseline_depth_rmse",
    "depth_mae",
    "depth_delta1",
)
