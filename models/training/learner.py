"""The step: forward, loss, backward, optimiser; and everything that a step changes."""

from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.checkpoint import load_weights
from models.losses import TaskLoss
from models.training.config import TrainConfig
from models.training.ema import MovingAverage
from models.training.optimizer import build_optimizer
from models.training.precision import Precision
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
        self.network = self.forward = self.precision.place(network)
        self.ema = MovingAverage(self.network, config.ema_decay) if config.ema_decay else None
        self.optimizer = build_optimizer(self.network, config.optimizer)
        self.scaler = self.precision.scaler()
        self.window = Window(device)

    def begin_stage(self) -> None:
        """Compile, where asked to, for another size."""
        self.precision.forget_compiled()
        self.forward = self.precision.compiled(self.network)

    def predictor(self) -> nn.Module:
        """The network to validate: the average of the weights where one is kept."""
        return self.forward if self.ema is None else self.precision.compiled(self.ema.network)

    def step(self, batch: Batch, *, progress: float, number: int) -> None:
        """Learn from one batch; launches, never waits.

        A batch without a sample that counts changes nothing: even a gradient of 0 would move the
        weights, by decay and momentum, and its blank images the running statistics.

        Args:
            batch: On the device.
            progress: Share of the run that lies behind, which decides the learning rate.
            number: Steps made before.
        """
        rate = self.config.schedule.rate(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optimizer.lr * rate
        if batch.is_void:
            return
        prediction = self.precision.predict(self.forward, batch.background, batch.composite)
        losses = self.loss(prediction, batch.mask, batch.depth, batch.weight)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(losses.total).backward()
        self.scaler.unscale_(self.optimizer)
        grad_norm = nn.utils.clip_grad_norm_(
            self.network.parameters(), self.config.optimizer.clip_norm or inf
        )
        if self.scaler.is_enabled():  # which leaves out a step whose gradient overflowed
            grad_norm = grad_norm.nan_to_num(0.0, 0.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.network, number)
        self.window.add(losses, grad_norm)

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
            "schedule": {"lr": self.lr, "window": self.window.state_dict()},
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
        torch.set_rng_state(state["rng"]["cpu"])
        if self.precision.device.type == "cuda" and state["rng"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["rng"]["cuda"], self.precision.device)
