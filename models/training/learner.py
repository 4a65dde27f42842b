"""The step: forward, loss, backward, optimiser; and everything that a step changes."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoint import load_weights
from models.losses import Losses, TaskLoss
from models.training.config import TrainConfig
from models.training.distributed import ALONE, Ranks
from models.training.ema import MovingAverage
from models.training.guards import SkippedSteps, StepGuard, is_bad
from models.training.memory import fits
from models.training.optimizer import build_optimizer, clip_gradients
from models.training.plateau import Plateau
from models.training.precision import Precision
from models.training.tasks import with_tasks
from models.training.window import Window
from pipeline.batch import Batch


class Learner:
    """A network on its device with its optimiser, loss scaler and average.

    Args:
        config: How to train.
        network: Moved to the device where it is.
        loss: What is minimised.
        device: Where to train.
        ranks: Who trains the same network, and where this process is among them.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        loss: TaskLoss,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config = config
        self.loss = loss
        self.ranks = ranks
        alone = config.accumulate == 1 and ranks.size == 1
        self.precision = Precision(config.precision, device, allow_graphs=alone)
        if config.sync_batchnorm and ranks.size > 1:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.network = self.precision.place(network)
        self.ema = MovingAverage(self.network, config.ema_decay) if config.ema_decay else None
        self._alone = with_tasks(self.network, config.tasks)
        has_idle_weights = self._alone is not self.network
        self._trained = ranks.wrapped(self._alone, has_idle_weights=has_idle_weights)
        self.forward = self._trained
        self._average = with_tasks(self.ema.network, config.tasks) if self.ema else None
        self.optimizer = build_optimizer(self.network, config.optimizer)
        self.plateau = Plateau(config.schedule) if config.schedule.name == "plateau" else None
        self.scaler = self.precision.scaler()
        self.guard = StepGuard(self.network, self.optimizer)
        self.window = Window(device)
        self.skipped = SkippedSteps(ranks)

    def begin_stage(self, number: int) -> None:
        """Compile, where asked to, for another size."""
        self.precision.forget_compiled()
        self.forward = self.precision.compiled(self._trained)
        if self.plateau is not None:
            self.plateau.begin_stage(number)

    def predictor(self) -> nn.Module:
        """The network to validate: the average of the weights where one is kept."""
        if self._average is not None:
            self.ranks.equalise(self._average)
            return self.precision.compiled(self._average)
        if self._trained is self._alone:
            return self.forward
        self.ranks.equalise(self._alone)
        return self.precision.compiled(self._alone)

    def step(self, batch: Batch, *, rate: float, progress: float, number: int) -> None:
        """Learn from one batch; launches, never waits.

        A batch without a sample that counts changes nothing: even a gradient of 0 would move the
        weights, by decay and momentum, and its blank images the running statistics. Nor does one
        whose loss or gradient is not finite; the device finds that out by itself.

        Args:
            batch: On the device.
            rate: The schedule's learning rate, as a share of the peak.
            progress: Share of the run that lies behind, which may decide the tasks' weights.
            number: Steps made before.
        """
        if self.plateau is not None:
            rate *= self.plateau.share
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optimizer.lr * rate
        (anything_counts,) = self.ranks.highest(not batch.is_void)
        if not anything_counts:
            return
        self.guard.remember()
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._backward(batch, self.config.schedule.task_weights(progress))
        self.scaler.unscale_(self.optimizer)
        grad_norm = clip_gradients(self.network, self.config.optimizer)
        bad = is_bad(losses.total, grad_norm)
        self.guard.step(bad)
        if self.ema is not None:
            self.ema.update(self.network, number, bad)
        self.window.add(losses, grad_norm, bad)
        self.skipped.add(number + 1, self._to_be_told(losses.total, bad), batch.number)
        self.scaler.update()

    def fits(self, batch: Batch, parts: int) -> bool:
        """Whether a batch can be computed in so many parts; spoils running statistics.

        Args:
            batch: On the device.
            parts: The first of them is tried, alone also where there are several ranks.
        """

        def attempt() -> None:
            part = parts_of(batch, parts)[0]
            prediction = self.precision.predict(self._alone, part.background, part.composite)
            losses = self.loss(prediction, part.mask, part.depth, part.weight)
            self.scaler.scale(losses.total).backward()

        self.optimizer.zero_grad(set_to_none=True)
        try:
            return fits(attempt)
        except ValueError:  # a single value per channel, which BatchNorm refuses
            return False

    def _to_be_told(self, loss: Tensor, bad: Tensor) -> Tensor:
        """Whether a skipped step is a fault: a gradient that overflows fp16 is none.

        The scaler halves its scale then, until it cannot be the scale's fault any more.
        """
        if not self.scaler.is_enabled():
            return bad
        scale = self.scaler.scale(torch.ones((), device=bad.device))
        return is_bad(loss).maximum(bad * (scale < 1))

    def _backward(self, batch: Batch, task_weights: Mapping[str, float]) -> Losses:
        """Gradients of a whole batch, part by part; its losses, detached."""
        parts = parts_of(batch, self.config.accumulate)
        num_ranks = self.ranks.size
        total_weight = self.ranks.total(batch.weight.sum())
        sums = torch.zeros(len(Losses._fields), device=batch.weight.device)
        for place, part in enumerate(parts, 1):
            with self.ranks.keeping_gradients(self._trained, apart=place < len(parts)):
                prediction = self.precision.predict(self.forward, part.background, part.composite)
                losses = self.loss(prediction, part.mask, part.depth, part.weight, **task_weights)
                if len(parts) * num_ranks > 1:
                    # a mean over each part's weights becomes one over the whole batch's; the
                    # gradients of ranks are averaged, so each counts as often as there are ranks
                    share = part.weight.sum() * num_ranks / total_weight
                    losses = Losses(*(loss * share for loss in losses))
                self.scaler.scale(losses.total).backward()
            sums += torch.stack(losses).detach()
        return Losses(*(self.ranks.total(sums) / num_ranks))

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of all this; all ranks ask together."""
        return {
            "model": self.network.state_dict(),
            "ema": None if self.ema is None else self.ema.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {
                "lr": self.lr,
                "window": self.window.state_dict(),
                "skipped": self.skipped.state_dict(),
                "plateau": None if self.plateau is None else self.plateau.state_dict(),
            },
            "scaler": self.scaler.state_dict(),
            "rng": self.ranks.random_state(self.precision.device),
        }

    def load_weights(self, found: Mapping[str, Tensor], path: Path) -> None:
        """Begin with the weights of a checkpoint, and with nothing else of it.

        Raises:
            CheckpointError: They are another network's.
        """
        load_weights(self.network, found, path)
        if self.ema is not None:
            load_weights(self.ema.network, found, path)

    def load_state_dict(self, state: Mapping[str, Any], path: Path) -> None:
        """Take up where `state_dict` was called.

        Args:
            state: A checkpoint of a run with the same configuration.
            path: Where it was read, for messages.

        Raises:
            CheckpointError: It holds another network's weights.
        """
        load_weights(self.network, state["model"], path)
        if self.ema is not None:
            load_weights(self.ema.network, state["ema"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.window.load_state_dict(state["schedule"]["window"])
        self.skipped.load_state_dict(state["schedule"].get("skipped", []))
        if self.plateau is not None:
            self.plateau.load_state_dict(state["schedule"]["plateau"])
        self.ranks.load_random_state(state["rng"], self.precision.device)


def parts_of(batch: Batch, number: int) -> list[Batch]:
    """A batch in `number` parts of one size, or as many as it has samples for; views, no copies."""
    if number == 1:
        return [batch]
    pieces: dict[str, Any] = {
        field.name: value.chunk(number)
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), Tensor)
    }
    return [
        replace(batch, **{name: values[place] for name, values in pieces.items()})
        for place in range(len(pieces["number"]))
    ]
