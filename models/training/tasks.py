"""Training one task of a network that could do both."""

from collections.abc import Collection

import torch
from torch import nn

from models.prediction import Prediction

TASKS = ("auto", "mask", "depth", "both")


class OneTask(nn.Module):
    """A network that says nothing of one of its tasks, whose own layers are then left alone.

    Args:
        network: Shares its weights; its own state is what a checkpoint keeps.
        tasks: `mask` or `depth`: the one that stays.
    """

    def __init__(self, network: nn.Module, tasks: str) -> None:
        super().__init__()
        self.network = network
        self.tasks = tasks

    def forward(self, background: torch.Tensor | None, composite: torch.Tensor) -> Prediction:
        """As every network: (N, 3, H, W) images in, logits out."""
        return _only(self.network(background, composite), self.tasks)


def with_tasks(network: nn.Module, tasks: str) -> nn.Module:
    """The network as it is to be trained and validated."""
    return OneTask(network, tasks) if tasks in {"mask", "depth"} else network


def check_tasks(tasks: str, has: Collection[str], name: str) -> None:
    """Check what is asked for against what a network predicts.

    Raises:
        ValueError: It lacks a task that is asked for.
    """
    wanted = {"auto": (), "both": ("mask", "depth")}.get(tasks, (tasks,))
    lacking = [task for task in wanted if task not in has]
    if lacking:
        msg = (
            f"tasks {tasks!r} cannot be trained: network {name!r} predicts no {lacking[0]}; "
            "leave --tasks out, or choose another network"
        )
        raise ValueError(msg)


def _only(prediction: Prediction, task: str) -> Prediction:
    return Prediction(
        mask_logits=prediction.mask_logits if task == "mask" else None,
        depth_logits=prediction.depth_logits if task == "depth" else None,
        scales=tuple(_only(scale, task) for scale in prediction.scales),
    )
