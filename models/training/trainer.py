"""The run: stages, epochs, batches, the step.

A run is a pure function of its configuration, its network and its loader. Its state is how many
samples of each endless stream it has consumed, with weights, optimiser and generators to match;
checkpoints hold that, and a run that goes on from one takes the very next sample. On a CPU it then
ends with the same weights, bit for bit, as a run that was never interrupted.

Between two records nothing asks the device a question: losses add up there (`window.py`). The step
itself is in `learner.py`.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from math import gcd, inf, isnan
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.checkpoint import BEST, LAST, read_checkpoint, weights
from models.error import TrainingError
from models.losses import TaskLoss
from models.prediction import Prediction
from models.training.config import TrainConfig
from models.training.display import Display
from models.training.distributed import ALONE, Ranks
from models.training.ending import Ending
from models.training.evaluate import SetFacts, score
from models.training.learner import Learner
from models.training.memory import fits, out_of_memory
from models.training.panels import PanelRows
from models.training.plan import PlannedStage, RunPlan, plan_run
from models.training.profile import profiled
from models.training.progress import Progress
from models.training.recording import Recorder
from models.training.resume import check_resumable, check_same_network, newest_whole
from models.training.saving import Saver
from models.training.speed import Speed
from models.training.stop import StopRequest
from models.training.time_limit import TimeLimit
from models.training.tracking import NoTracker, Tracker, open_run_dir
from models.training.validating import validation_scores
from models.training.validation_loss import ValidationLoss
from models.training.warm_up import compiled_first
from pipeline.batch import Batch, BatchLoader, JointLoader
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
        self.plan = plan_run(
            config.parsed_stages,
            *(loader.set_lengths if isinstance(loader, JointLoader) else [loader.num_samples]),
        )
        self.learner = Learner(config, network, loss, device, ranks)
        self.meter = Meter()
        self.speed = Speed(self.learner.network, self.learner.precision, ranks.size)
        self.stop = StopRequest()
        self.time_limit = TimeLimit(config.time_limit_s, began)
        self.progress = Progress()
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
        self._take_up_pens()
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
        self.ending.unless_there_is_room()
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
        self.progress.step += 1
        self.progress.take(stage.sets, stage.batch_size)

    def after_step(self, stage: PlannedStage, epoch_end: int) -> None:
        """Record, save and stop, where it is time to."""
        step = self.progress.step
        self.ending.has_moved = True
        self.display.advance(self.progress.planned_step)
        if step % self.config.log_every == 0 or self.progress.planned_step == epoch_end:
            self.recorder.training(stage)
        self.time_limit.opened()
        if step % self.config.checkpoint_every == 0 or self.time_limit.wants_a_save:
            self.saver.save(LAST)
        if self.config.keep_every and step % self.config.keep_every == 0:
            self.saver.save(f"step-{step:08}.pt")
        self.ending.if_asked()

    def validate(self, stage: PlannedStage) -> None:
        """Score the network at the stage's size, draw the panel, keep the best weights.

        A score compares validations of one stage only: at another size it measures another task
        (a mask's edge is a larger share of a small image). So the first validation of each stage
        replaces the best of the stage before, and `best.pt` is the best at the last size reached.
        """
        self.ending.unless_there_is_room()
        self.display.validating(stage)
        rows = PanelRows(self.config.num_panels if self.ranks.is_writer else 0)
        losses = ValidationLoss(self.learner.loss)

        def observe(batch: Batch, prediction: Prediction) -> None:
            self.ending.if_asked()
            losses.add(batch, prediction)
            rows.add(batch, prediction)

        self.progress.scores = validation_scores(
            self.learner.predictor(),
            self.loader,
            stage,
            parts=self.config.accumulate,
            common=self._common_divisor,
            loss=self.learner.loss,
            facts=self.facts,
            precision=self.learner.precision,
            observe=observe,
            ranks=self.ranks,
            rescue=self._save_if_memory_suffices,
        )
        self.progress.validated_step = self.progress.step
        if picture := rows.draw(self.facts):
            epoch = self.progress.passes(self.plan)
            self.tracker.draw(picture, f"epoch-{epoch:06.2f}-{stage.size}px", self.progress.step)
        value = score(self.progress.scores)
        # nothing is more than NaN: as the first of a stage it would stay the best
        result = (stage.number, -inf if isnan(value) else value)
        is_best = result > self.progress.best
        self.progress.best = max(result, self.progress.best)
        self.progress.num_worse = 0 if is_best else self.progress.num_worse + 1
        values = {"score": value, **losses.means(self.ranks), **self.progress.scores}
        if self.learner.plateau is not None:
            self.learner.plateau.update(values[self.config.schedule.watch])
        self.recorder.validation(stage, values, is_best=is_best)
        if self.config.histograms:
            self.tracker.distributions(self.learner.network, self.progress.step)
        self._skip_if_hopeless(stage)
        self.ending.has_moved = True
        self.saver.save(*([BEST] if is_best else []), LAST)
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

    def _take_up_pens(self) -> None:
        """Open what writes, where the run stands now."""
        self.tracker = self._open_tracker()
        self.recorder = Recorder(
            progress=self.progress,
            plan=self.plan,
            learner=self.learner,
            loader=self.loader,
            meter=self.meter,
            speed=self.speed,
            ranks=self.ranks,
            tracker=self.tracker,
            display=self.display,
            run_dir=self.run_dir,
            max_bad_steps=self.config.max_bad_steps,
        )
        self.saver = Saver(
            run_dir=self.run_dir,
            learner=self.learner,
            recorder=self.recorder,
            time_limit=self.time_limit,
            sections=self.sections,
            facts=self.facts,
        )
        self.ending = Ending(
            stop=self.stop,
            time_limit=self.time_limit,
            limit=self.config.time_limit,
            saver=self.saver,
            plan=self.plan,
        )

    def _open_tracker(self) -> Tracker | NoTracker:
        if not self.ranks.is_writer:
            return NoTracker()
        return Tracker(
            self.run_dir,
            {**self.sections, "set": {**self.facts.record(), "samples": self.plan.set_lengths}},
            num_records=self.progress.num_records,
            step=self.progress.step,
        )

    def _open(self, stage: PlannedStage) -> AbstractContextManager[Iterator[Batch]]:
        """What is left of a stage; nothing, where it was interrupted while validating its end."""
        num_steps = stage.last_step - self.progress.planned_step
        if num_steps == 0:
            return nullcontext(iter(()))
        place = {
            "size": stage.size,
            "batch_size": stage.batch_size,
            "start": self.progress.taken(stage.sets),
            "num_steps": num_steps,
        }
        if not stage.sets:
            return self.loader.train(**place)
        assert isinstance(self.loader, JointLoader), "a plan of sets without them"
        return self.loader.train(**place, sets=stage.sets)

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
        whole: PlannedStage | RunPlan = self.plan
        if self.config.schedule.at_stage == "restart":
            begin, length, whole = stage.first_sample, stage.num_samples, stage
        return self.config.schedule.rate(
            (self.progress.planned_samples - begin) / length,
            passes=whole.passes_at(self.progress.planned_step),
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

    def _out_of_memory(self, stage: PlannedStage, batch: Batch) -> TrainingError:
        return out_of_memory(
            batch.composite.device,
            size=stage.size,
            batch_size=len(batch),
            accumulate=self.config.accumulate,
            common=self._common_divisor,
            fits=lambda parts: self.learner.fits(batch, parts),
        )

    def _save_if_memory_suffices(self) -> None:
        if self.ranks.size == 1:  # others are still validating, and all save together
            fits(lambda: self.saver.save(LAST))

    @property
    def _common_divisor(self) -> int:
        """Of all stages' batch sizes: what accumulation may divide them by."""
        return gcd(*(stage.batch_size for stage in self.plan.stages))
