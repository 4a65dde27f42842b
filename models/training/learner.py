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
from models.training.ema import MovingAverage
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
    """

    def __init__(
        self, config: TrainConfig, network: nn.Module, loss: TaskLoss, device: torch.device
    ) -> None:
        self.config = config
        self.loss = loss
        self.precision = Precision(config.precision, device)
        self.network = self.precision.place(network)
        self.ema = MovingAverage(self.network, config.ema_decay) if config.ema_decay else None
        self._trained = self.forward = with_tasks(self.network, config.tasks)
        self._average = with_tasks(self.ema.network, config.tasks) if self.ema else None
        self.optimizer = build_optimizer(self.network, config.optimizer)
        self.plateau = Plateau(config.schedule) if config.schedule.name == "plateau" else None
        self.scaler = self.precision.scaler()
        self.window = Window(device)

    def begin_stage(self, number: int) -> None:
        """Compile, where asked to, for another size."""
        self.precision.forget_compiled()
        self.forward = self.precision.compiled(self._trained)
        if self.plateau is not None:
            self.plateau.begin_stage(number)

    def predictor(self) -> nn.Module:
        """The network to validate: the average of the weights where one is kept."""
        return self.forward if self._average is None else self.precision.compiled(self._average)

    def step(self, batch: Batch, *, rate: float, progress: float, number: int) -> None:
        """Learn from one batch; launches, never waits.

        A batch without a sample that counts changes nothing: even a gradient of 0 would move the
        weights, by decay and momentum, and its blank images the running statistics.

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
        if batch.is_void:
            return
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._backward(batch, self.config.schedule.task_weights(progress))
        self.scaler.unscale_(self.optimizer)
        grad_norm = clip_gradients(self.network, self.config.optimizer)
        if self.scaler.is_enabled():  # which leaves out a step whose gradient overflowed
            grad_norm = grad_norm.nan_to_num(0.0, 0.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.network, number)
        self.window.add(losses, grad_norm)

    def _backward(self, batch: Batch, task_weights: Mapping[str, float]) -> Losses:
        """Gradients of a whole batch, part by part; its losses, detached."""
        parts = parts_of(batch, self.config.accumulate)
        total_weight = batch.weight.sum()
        sums: list[Tensor] = []
        for part in parts:
            prediction = self.precision.predict(self.forward, part.background, part.composite)
            losses = self.loss(prediction, part.mask, part.depth, part.weight, **task_weights)
            if len(parts) > 1:  # a mean over each part's weights becomes one over the batch's
                share = part.weight.sum() / total_weight
                losses = Losses(*(loss * share for loss in losses))
            self.scaler.scale(losses.total).backward()
            values = [loss.detach() for loss in losses]
            sums = [a + b for a, b in zip(sums, values, strict=True)] if sums else values
        return Losses(*sums)

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of all this.

        The generators are torch's, of the CPU and of the device: nothing here draws from others.
        """
        device = self.precision.device
        return {
            "model": self.network.state_dict(),
            "ema": None if self.ema is None else self.ema.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {
                "lr": self.lr,
                "window": self.window.state_dict(),
                "plateau": None if self.plateau is None else self.plateau.state_dict(),
            },
            "scaler": self.scaler.state_dict(),
            "rng": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            },
        }

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
        if self.plateau is not None:
            self.plateau.load_state_dict(state["schedule"]["plateau"])
        torch.set_rng_state(state["rng"]["cpu"])
        if self.precision.device.type == "cuda" and state["rng"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["rng"]["cuda"], self.precision.device)


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
