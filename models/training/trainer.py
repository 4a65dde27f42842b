"""The run: stages, epochs, batches, the step.

A run is a pure function of its configuration, its network and its loader. Its state is how many
samples of the endless stream it has consumed, with weights, optimiser and generators to match;
checkpoints hold that, and a run that goes on from one takes the very next sample. On a CPU it then
ends with the same weights, bit for bit, as a run that was never interrupted.

Between two records nothing asks the device a question: losses add up there (`window.py`). The step
itself is in `learner.py`.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.checkpoint import encode, read_checkpoint, write_atomically
from models.error import Interrupted, TimeIsUp, TrainingError
from models.losses import TaskLoss
from models.prediction import Prediction
from models.training.config import TrainConfig
from models.training.display import Display
from models.training.evaluate import SetFacts, evaluate, score
from models.training.learner import Learner
from models.training.panels import PanelRows
from models.training.plan import PlannedStage, plan_run
from models.training.progress import Progress
from models.training.resume import check_resumable
from models.training.stop import StopRequest
from models.training.time_limit import TimeLimit
from models.training.tracking import Record, Tracker, open_run_dir
from models.training.validation_loss import ValidationLoss
from pipeline.batch import Batch, BatchLoader
from pipeline.meter import Meter


class Trainer:
    """Trains a network on what a loader delivers, and leaves a run folder.

    Args:
        config: How to train.
        network: Trained where it is, after a move to the device; build it under
            `torch.manual_seed(config.seed)`.
        loss: What is minimised.
        loader: The endless stream of training samples, and the validation samples.
        facts: What is known of the set behind the loader.
        run_dir: The run folder.
        device: Where to train.
        sections: The configurations of network, loss and loader by those names, as plain
            dictionaries. They are kept in the checkpoint, and must be the same on resume.
        began: When the process began, by `time.monotonic`: its time limit counts from there.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        network: nn.Module,
        loss: TaskLoss,
        loader: BatchLoader,
        facts: SetFacts,
        run_dir: Path,
        device: torch.device,
        sections: Mapping[str, Mapping[str, Any]],
        began: float | None = None,
    ) -> None:
        self.config = config
        self.loader = loader
        self.facts = facts
        self.run_dir = run_dir
        self.sections = {"train": config.to_dict(), **sections}
        self.plan = plan_run(config.parsed_stages, loader.num_samples)
        self.learner = Learner(config, network, loss, device)
        self.meter = Meter()
        self.stop = StopRequest()
        self.time_limit = TimeLimit(config.time_limit_s, began)
        self.progress = Progress()
        self._has_moved = False

    def run(self, *, resume: bool = False) -> dict[str, float]:
        """Train through all stages.

        Args:
            resume: Go on from `last.pt`, or start where there is none.

        Returns:
            The metrics of the last validation.

        Raises:
            TrainingError: The run folder is in use, or the loss is no longer a finite number.
            LoaderError: More samples are bad than tolerated.
            CheckpointError: The checkpoint to go on from is damaged or another run's.
            Interrupted: Ctrl-C or SIGTERM came; the run is saved.
            TimeIsUp: So did the time limit.
        """
        if open_run_dir(self.run_dir, resume=resume):
            self.restore(self.run_dir / "last.pt")
        else:
            torch.manual_seed(self.config.seed)
        self._started = time.monotonic() - self.progress.elapsed_s
        self.tracker = Tracker(
            self.run_dir,
            {**self.sections, "set": self.facts.record()},
            num_records=self.progress.num_records,
            step=self.progress.step,
        )
        self.display = Display(self.plan)
        with self.stop, self.tracker, self.display:
            self.display.began()
            for stage in self.plan.stages:
                if stage.last_step > self.progress.validated_planned_step:
                    self.train_stage(stage)
        return self.progress.scores

    def train_stage(self, stage: PlannedStage) -> None:
        """Train to the end of a stage, and validate after each of its epochs.

        Where validation no longer improves, the stage ends early: the rest of its steps is skipped,
        and the next one goes on with the very next sample.
        """
        if not self.time_limit.has_room_to_open():
            self._end_in_time()
        self.time_limit.opening()
        self.learner.begin_stage(stage.number)
        with self._open(stage) as stream:
            self.meter.restart()
            batches = self.meter.watch(stream)
            for epoch_end in stage.epochs_left(self.progress.validated_planned_step):
                for batch in islice(batches, epoch_end - self.progress.planned_step):
                    self.step(stage, batch)
                    self.after_step(stage, epoch_end)
                assert self.progress.planned_step == epoch_end, "the loader ended before its time"
                self.validate(stage)
                if self.progress.planned_step > epoch_end:
                    break

    def step(self, stage: PlannedStage, batch: Batch) -> None:
        """Learn from one batch, which is this rank's share of the stage's global one."""
        share = self.progress.planned_samples / self.plan.total_samples
        self.learner.step(batch, rate=self._rate(stage), progress=share, number=self.progress.step)
        self.meter.tick(stage.batch_size)
        self._has_moved = True
        self.progress.step += 1
        self.progress.samples += stage.batch_size

    def after_step(self, stage: PlannedStage, epoch_end: int) -> None:
        """Record, save and stop, where it is time to."""
        step = self.progress.step
        self.display.advance(self.progress.planned_step)
        if step % self.config.log_every == 0 or self.progress.planned_step == epoch_end:
            self._record_training(stage)
        self.time_limit.opened()
        if step % self.config.checkpoint_every == 0 or self.time_limit.wants_a_save:
            self._save("last.pt")
        self._stop_if_asked()

    def validate(self, stage: PlannedStage) -> None:
        """Score the network at the stage's size, draw the panel, keep the best weights.

        A score compares validations of one stage only: at another size it measures another task
        (a mask's edge is a larger share of a small image). So the first validation of each stage
        replaces the best of the stage before, and `best.pt` is the best at the last size reached.
        """
        if not self.time_limit.has_room_to_open():
            self._end_in_time()
        self.display.validating(stage)
        rows = PanelRows(self.config.num_panels)
        losses = ValidationLoss(self.learner.loss)

        def observe(batch: Batch, prediction: Prediction) -> None:
            self._stop_if_asked()
            losses.add(batch, prediction)
            rows.add(batch, prediction)

        self.progress.scores = evaluate(
            self.learner.predictor(),
            self.loader,
            size=stage.size,
            batch_size=stage.batch_size,
            facts=self.facts,
            precision=self.learner.precision,
            observe=observe,
        )
        self.progress.validated_step = self.progress.step
        if picture := rows.draw(self.facts):
            epoch = self.progress.samples / self.plan.num_samples
            self.tracker.draw(picture, f"epoch-{epoch:06.2f}-{stage.size}px", self.progress.step)
        result = (stage.number, score(self.progress.scores))
        is_best = result > self.progress.best
        self.progress.best = max(result, self.progress.best)
        self.progress.num_worse = 0 if is_best else self.progress.num_worse + 1
        values = {"score": result[1], **losses.means(), **self.progress.scores}
        if self.learner.plateau is not None:
            self.learner.plateau.update(values[self.config.schedule.watch])
        record = self._record("validation", stage, values)
        self.display.validated(stage, record, is_best=is_best)
        self._skip_if_hopeless(stage)
        self._has_moved = True
        self._save(*(["best.pt"] if is_best else []), "last.pt")
        self.meter.restart()

    def restore(self, path: Path) -> None:
        """Take up where a checkpoint was written.

        Raises:
            CheckpointError: It is damaged, or another run's.
            LoaderError: It knows of more bad samples than are tolerated now.
        """
        state = read_checkpoint(path)
        check_resumable(
            path,
            state,
            config=self.sections,
            fingerprint=self.facts.fingerprint,
            sets=self.facts.sets,
        )
        self.learner.load_state_dict(state, path)
        self.progress = Progress(**state["progress"])
        self.loader.load_state_dict(self.progress.loader)

    def _open(self, stage: PlannedStage) -> AbstractContextManager[Iterator[Batch]]:
        """What is left of a stage; nothing, where it was interrupted while validating its end."""
        num_steps = stage.last_step - self.progress.planned_step
        if num_steps == 0:
            return nullcontext(iter(()))
        return self.loader.train(
            size=stage.size,
            batch_size=stage.batch_size,
            start=self.progress.samples,
            num_steps=num_steps,
        )

    def _rate(self, stage: PlannedStage) -> float:
        """The schedule's learning rate for the next step, as a share of the peak."""
        begin, length = 0, self.plan.total_samples
        if self.config.schedule.at_stage == "restart":
            begin, length = stage.first_sample, stage.num_samples
        return self.config.schedule.rate(
            (self.progress.planned_samples - begin) / length,
            epochs=length / self.plan.num_samples,
        )

    def _skip_if_hopeless(self, stage: PlannedStage) -> None:
        """Skip the rest of a stage that no longer improves."""
        num_steps = stage.last_step - self.progress.planned_step
        if not num_steps or not 0 < self.config.patience <= self.progress.num_worse:
            return
        self.progress.skipped_steps += num_steps
        self.progress.skipped_samples += num_steps * stage.batch_size
        self.display.advance(self.progress.planned_step)
        self.display.say(
            f"stage {stage.number} ends {num_steps:,} steps early: "
            f"no better score in {self.progress.num_worse} validations"
        )

    def _record_training(self, stage: PlannedStage) -> None:
        self._refuse_bad_losses()
        means = self.learner.window.take()  # waits for the device, so the reading is honest
        reading = self.meter.read()
        speed = {
            "samples_per_s": reading.samples_per_s,
            "images_per_s": reading.images_per_s,
            "data_wait_share": reading.waiting_share,
        }
        record = self._record("train", stage, {**means, "lr": self.learner.lr, **speed})
        self.display.trained(stage, record)

    def _record(self, kind: str, stage: PlannedStage, values: Mapping[str, float]) -> Record:
        self.progress.elapsed_s = time.monotonic() - self._started
        record: Record = {
            "kind": kind,
            "step": self.progress.step,
            "samples": self.progress.samples,
            "epoch": self.progress.samples / self.plan.num_samples,
            "stage": stage.number,
            "size": stage.size,
            "elapsed_s": self.progress.elapsed_s,
            "bad_samples": self.loader.num_bad_samples,
            **values,
        }
        self.tracker.write(record)
        self.progress.num_records += 1
        return record

    def _save(self, *names: str) -> None:
        with self.time_limit.saving():
            self._refuse_bad_losses()
            self.progress.elapsed_s = time.monotonic() - self._started
            self.progress.loader = self.loader.state_dict()
            self.tracker.sync()
            state = {
                **self.learner.state_dict(),
                "progress": asdict(self.progress),
                "config": self.sections,
                "set": self.facts.record(),
            }
            content = encode(state)
            for name in names:
                write_atomically(self.run_dir / name, content)

    def _refuse_bad_losses(self) -> None:
        """End the run, so that no checkpoint is ever written after a step that was not finite."""
        if number := self.learner.window.num_bad_steps():
            msg = (
                f"loss or gradient was not a finite number in {number} of the steps up to "
                f"{self.progress.step:,}; the checkpoints in {self.run_dir} are from before; "
                "start another run with a lower learning rate"
            )
            raise TrainingError(msg)

    def _stop_if_asked(self) -> None:
        if self.stop.received is not None:
            raise Interrupted(self._saved(f"stopped by {self.stop.received.name}"))
        if self.time_limit.is_up():
            self._end_in_time()

    def _end_in_time(self) -> None:
        if not self._has_moved:
            msg = (
                f"{self.run_dir} got no further within the time limit of {self.config.time_limit}, "
                "so that --resume would never end; give more time"
            )
            raise TrainingError(msg)
        raise TimeIsUp(self._saved(f"the time limit of {self.config.time_limit} is near; stopped"))

    def _saved(self, why: str) -> str:
        """Save, and tell."""
        self._save("last.pt")
        return (
            f"{why} after step {self.progress.step:,} of {self.plan.num_steps:,} and saved "
            f"{self.run_dir / 'last.pt'}; the same command with --resume goes on from there"
        )
