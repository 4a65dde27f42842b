"""The run: stages, epochs, batches, the step.

A run is a pure function of its configuration, its network and its loader. Its state is how many
samples of the endless stream it has consumed, with weights, optimiser and generators to match;
checkpoints hold that, and a run that goes on from one takes the very next sample. On a CPU it then
ends with the same weights, bit for bit, as a run that was never interrupted.

Between two records nothing asks the device a question: losses add up there (`window.py`). The step
itself is in `learner.py`.
"""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import islice
from math import gcd
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.checkpoint import (
    BEST,
    LAST,
    encode,
    read_checkpoint,
    weights,
    write_atomically,
    write_newest,
)
from models.error import Interrupted, TimeIsUp, TrainingError
from models.losses import TaskLoss
from models.prediction import Prediction
from models.training.config import TrainConfig
from models.training.display import Display
from models.training.distributed import ALONE, Ranks
from models.training.evaluate import SetFacts, evaluate, score
from models.training.guards import all_finite
from models.training.learner import Learner
from models.training.memory import fits, out_of_memory
from models.training.panels import PanelRows
from models.training.plan import PlannedStage, plan_run
from models.training.profile import profiled
from models.training.progress import Progress
from models.training.resume import check_resumable, check_same_network, newest_whole
from models.training.speed import Speed
from models.training.stop import StopRequest
from models.training.time_limit import TimeLimit
from models.training.tracking import NoTracker, Record, Tracker, open_run_dir
from models.training.validation_loss import ValidationLoss
from models.training.warm_up import compiled_first
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
        ranks: The processes that train it together, each on its share of every batch.
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
        ranks: Ranks = ALONE,
    ) -> None:
        self.config = config
        self.ranks = ranks
        self.loader = loader
        self.facts = facts
        self.run_dir = run_dir
        self.sections: dict[str, Mapping[str, Any]] = {"train": config.to_dict(), **sections}
        self.plan = plan_run(config.parsed_stages, loader.num_samples)
        self.learner = Learner(config, network, loss, device, ranks)
        self.meter = Meter()
        self.speed = Speed(self.learner.network, self.learner.precision, ranks.size)
        self.stop = StopRequest()
        self.time_limit = TimeLimit(config.time_limit_s, began)
        self.progress = Progress()
        self._has_moved = False
        self._is_profiled = False

    def run(self, *, resume: bool = False) -> dict[str, float]:
        """Train through all stages.

        Args:
            resume: Go on from the newest whole checkpoint, or start where there is none.

        Returns:
            The metrics of the last validation.

        Raises:
            TrainingError: The run folder is in use, too many steps had to be skipped, or a batch
                does not fit into memory.
            LoaderError: More samples are bad than tolerated.
            CheckpointError: Every checkpoint to go on from is damaged, or it is another run's; or
                one cannot be written.
            Interrupted: Ctrl-C or SIGTERM came; the run is saved.
            TimeIsUp: So did the time limit.
        """
        self.ranks.check_same(self.sections | {"set": self.facts.record()})
        self.display = Display(self.plan, is_silent=not self.ranks.is_writer)
        if self.ranks.on_writer(lambda: open_run_dir(self.run_dir, resume=resume)):
            self.restore()
        else:
            self.begin()
        self._started = time.monotonic() - self.progress.elapsed_s
        self.tracker = self._open_tracker()
        with self.stop, self.tracker, self.display:
            self.display.began()
            if self.config.graph:
                self.tracker.graph(self.learner.network, self.plan.stages[0].size)
            for stage in self.plan.stages:
                if stage.last_step > self.progress.validated_planned_step:
                    self.train_stage(stage)
            self.tracker.outcome(self.sections, self.progress.scores)
        return self.progress.scores

    def train_stage(self, stage: PlannedStage) -> None:
        """Train to the end of a stage, and validate after each of its epochs.

        Where validation no longer improves, the stage ends early: the rest of its steps is skipped,
        and the next one goes on with the very next sample.
        """
        self._end_unless_there_is_room()
        self.time_limit.opening()
        self.learner.begin_stage(stage.number)
        self.speed.begin_stage(stage.size)
        with self._open(stage) as stream:
            batches = self._watched(stage, stream)
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
        rate, number = self._rate(stage), self.progress.step
        if not fits(lambda: self.learner.step(batch, rate=rate, progress=share, number=number)):
            raise self._out_of_memory(stage, batch)
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
            self._save(LAST)
        if self.config.keep_every and step % self.config.keep_every == 0:
            self._save(f"step-{step:08}.pt")
        self._stop_if_asked()

    def validate(self, stage: PlannedStage) -> None:
        """Score the network at the stage's size, draw the panel, keep the best weights.

        A score compares validations of one stage only: at another size it measures another task
        (a mask's edge is a larger share of a small image). So the first validation of each stage
        replaces the best of the stage before, and `best.pt` is the best at the last size reached.
        """
        self._end_unless_there_is_room()
        self.display.validating(stage)
        rows = PanelRows(self.config.num_panels if self.ranks.is_writer else 0)
        losses = ValidationLoss(self.learner.loss)

        def observe(batch: Batch, prediction: Prediction) -> None:
            self._stop_if_asked()
            losses.add(batch, prediction)
            rows.add(batch, prediction)

        self.progress.scores = evaluate(
            self.learner.predictor(),
            self.loader,
            size=stage.size,
            # no larger than what a training step computes at once
            batch_size=self.ranks.size
            * max(1, stage.batch_size // self.ranks.size // self.config.accumulate),
            facts=self.facts,
            precision=self.learner.precision,
            observe=observe,
            ranks=self.ranks,
        )
        self.progress.validated_step = self.progress.step
        if picture := rows.draw(self.facts):
            epoch = self.progress.samples / self.plan.num_samples
            self.tracker.draw(picture, f"epoch-{epoch:06.2f}-{stage.size}px", self.progress.step)
        result = (stage.number, score(self.progress.scores))
        is_best = result > self.progress.best
        self.progress.best = max(result, self.progress.best)
        self.progress.num_worse = 0 if is_best else self.progress.num_worse + 1
        values = {"score": result[1], **losses.means(self.ranks), **self.progress.scores}
        if self.learner.plateau is not None:
            self.learner.plateau.update(values[self.config.schedule.watch])
        record = self._record("validation", stage, values)
        self.display.validated(stage, record, is_best=is_best)
        if self.config.histograms:
            self.tracker.distributions(self.learner.network, self.progress.step)
        self._skip_if_hopeless(stage)
        self._has_moved = True
        self._save(*([BEST] if is_best else []), LAST)
        self.meter.restart()

    def begin(self) -> None:
        """Begin at the first sample, with random weights or with those of a checkpoint.

        Raises:
            CheckpointError: That checkpoint is damaged, or of another network.
        """
        self.ranks.seed(self.config.seed)
        if self.config.init_from:
            path = Path(self.config.init_from)
            state = self.ranks.on_writer(lambda: read_checkpoint(path))
            check_same_network(path, state, self.sections)
            self.learner.load_weights(weights(state), path)

    def restore(self) -> None:
        """Take up where the newest whole checkpoint was written.

        Raises:
            CheckpointError: None is whole, or it is another run's.
            LoaderError: It knows of more bad samples than are tolerated now.
        """
        path, state = self.ranks.on_writer(lambda: newest_whole(self.run_dir, self.display.say))
        check_resumable(
            path,
            state,
            config=self.sections,
            fingerprint=self.facts.fingerprint,
            sets=self.facts.sets,
        )
        # the run began with what it says, whatever is asked for now
        began_with = {"init_from": state["config"]["train"].get("init_from", "")}
        self.sections["train"] = {**self.sections["train"], **began_with}
        self.learner.load_state_dict(state, path)
        self.progress = Progress(**state["progress"])
        self.loader.load_state_dict(self.progress.loader)

    def _open_tracker(self) -> Tracker | NoTracker:
        if not self.ranks.is_writer:
            return NoTracker()
        return Tracker(
            self.run_dir,
            {**self.sections, "set": self.facts.record()},
            num_records=self.progress.num_records,
            step=self.progress.step,
        )

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

    def _watched(self, stage: PlannedStage, stream: Iterator[Batch]) -> Iterator[Batch]:
        """The batches of a stage as they are waited for, compiled for, and profiled if asked to."""

        def compiled(seconds: float) -> None:
            self.display.compiled(stage, seconds)
            self.tracker.note("data/compile_s", seconds, self.progress.step)
            self.meter.restart()

        self.meter.restart()
        batches = self.meter.watch(compiled_first(stream, self.learner, compiled))
        if not self.config.profile or self._is_profiled or not self.ranks.is_writer:
            return batches
        self._is_profiled = True
        return profiled(
            batches,
            self.run_dir / "tensorboard",
            self.learner.precision.device,
            num_steps=stage.last_step - self.progress.planned_step,
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
        self._tell_skipped(stage)
        means = self.learner.window.take()  # waits for the device, so the reading is honest
        speed = self.speed.fields(self.meter.read())
        record = self._record("train", stage, {**means, "lr": self.learner.lr, **speed})
        self.display.trained(stage, record)

    def _tell_skipped(self, stage: PlannedStage) -> None:
        """Write down the steps that changed nothing; end the run after too many."""
        skipped = self.learner.skipped.take()
        for step, numbers in skipped:
            self.progress.bad_steps += 1
            samples = self.progress.samples - (self.progress.step - step) * stage.batch_size
            place = {"step": step, "samples": samples, "epoch": samples / self.plan.num_samples}
            self._record("skipped", stage, {**place, "numbers": numbers})
        if skipped:
            steps = ", ".join(f"{step:,}" for step, _ in skipped)
            self.display.say(
                f"skipped step {steps}: loss or gradient was not a finite number; the samples are "
                f"in {self.run_dir / 'metrics.jsonl'}"
            )
        if self.progress.bad_steps > self.config.max_bad_steps:
            msg = (
                f"loss or gradient was not a finite number in {self.progress.bad_steps:,} of the "
                f"steps up to {self.progress.step:,}, more than --max-bad-steps "
                f"{self.config.max_bad_steps:,}; their samples are in "
                f"{self.run_dir / 'metrics.jsonl'}, and the checkpoints are good; start another "
                "run with a lower learning rate, or go on with --resume and a higher limit"
            )
            raise TrainingError(msg)

    def _record(self, kind: str, stage: PlannedStage, values: Mapping[str, Any]) -> Record:
        self.progress.elapsed_s = time.monotonic() - self._started
        self.ranks.share_bad_samples(self.loader)
        record: Record = {
            "kind": kind,
            "step": self.progress.step,
            "samples": self.progress.samples,
            "epoch": self.progress.samples / self.plan.num_samples,
            "stage": stage.number,
            "size": stage.size,
            "elapsed_s": self.progress.elapsed_s,
            "bad_samples": self.loader.num_bad_samples,
            "bad_steps": self.progress.bad_steps,
            **values,
        }
        self.tracker.write(record)
        self.progress.num_records += 1
        return record

    def _save(self, *names: str) -> None:
        with self.time_limit.saving():
            self._refuse_bad_weights()
            self.progress.elapsed_s = time.monotonic() - self._started
            self.ranks.share_bad_samples(self.loader)
            self.progress.loader = self.loader.state_dict()
            self.tracker.sync()
            state = {
                **self.learner.state_dict(),
                "progress": asdict(self.progress),
                "config": self.sections,
                "set": self.facts.record(),
            }

            def write() -> None:
                content = encode(state)
                for name in names:
                    if name == LAST:
                        write_newest(self.run_dir, content)
                    else:
                        write_atomically(self.run_dir / name, content)

            self.ranks.on_writer(write)

    def _refuse_bad_weights(self) -> None:
        """End the run, so that no checkpoint is ever written of weights that are not finite."""
        if not all_finite(self.learner.network):
            msg = (
                f"the weights are no finite numbers any more after step {self.progress.step:,}; "
                f"the checkpoints in {self.run_dir} are from before; start another run with a "
                "lower learning rate"
            )
            raise TrainingError(msg)

    def _out_of_memory(self, stage: PlannedStage, batch: Batch) -> TrainingError:
        return out_of_memory(
            batch.composite.device,
            size=stage.size,
            batch_size=len(batch),
            accumulate=self.config.accumulate,
            common=gcd(*(stage.batch_size for stage in self.plan.stages)),
            fits=lambda parts: self.learner.fits(batch, parts),
        )

    def _stop_if_asked(self) -> None:
        number, is_up = self.ranks.highest(self.stop.received or 0, self.time_limit.is_up())
        if number:
            raise Interrupted(self._saved(f"stopped by {signal.Signals(number).name}"))
        if is_up:
            self._end_in_time()

    def _end_unless_there_is_room(self) -> None:
        (is_over,) = self.ranks.highest(not self.time_limit.has_room_to_open())
        if is_over:
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
        self._save(LAST)
        return (
            f"{why} after step {self.progress.step:,} of {self.plan.num_steps:,} and saved "
            f"{self.run_dir / 'last.pt'}; the same command with --resume goes on from there"
        )
