"""A step whose loss or gradient is not a finite number changes nothing, and is counted.

The device decides and undoes by itself: nothing here waits for it until `SkippedSteps.settle`.

- Weights and the optimiser's state: the fused optimisers leave out a step whose `found_inf` is 1,
  as they do for `torch.amp.GradScaler`. RMSprop has no fused form, and is put back from copies.
- BatchNorm's running statistics, which the forward pass has moved by then: from copies. They go
  through one flat tensor, so that hundreds of small buffers cost a handful of launches.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.training.distributed import ALONE, Ranks

SETTLED_EVERY = 1000
"""Steps after which the device is asked at the latest, so that what is remembered stays small."""


class StepGuard:
    """Around a step: undoes it on the device where it was bad.

    Args:
        network: On its device; its buffers are put back.
        optimizer: Over the network's weights.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._network = network
        self._optimizer = optimizer
        self._kept: list[tuple[list[Tensor], Tensor]] = []
        if isinstance(optimizer, torch.optim.SGD):
            _begin_momentum(optimizer)

    def remember(self) -> None:
        """Copy what the forward pass will change."""
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for buffer in self._network.buffers():
            by_type.setdefault(buffer.dtype, []).append(buffer)
        self._kept = [(buffers, _flat(buffers)) for buffers in by_type.values()]

    def step(self, bad: Tensor) -> None:
        """Make the optimiser's step, or none.

        Args:
            bad: () float32 on the device, 1 where the step must change nothing, else 0.
        """
        if getattr(self._optimizer, "_step_supports_amp_scaling", False):
            # mypy: what GradScaler sets, and torch declares nowhere
            self._optimizer.found_inf = bad  # type: ignore[attr-defined]
            self._optimizer.step()
            del self._optimizer.found_inf  # type: ignore[attr-defined]
        else:
            self._step_and_undo(bad.bool())
        self._restore(bad.bool())

    @torch.no_grad()
    def _restore(self, bad: Tensor) -> None:
        for buffers, before in self._kept:
            chosen = torch.where(bad, before, _flat(buffers))
            pieces = chosen.split([buffer.numel() for buffer in buffers])
            torch._foreach_copy_(
                buffers, [piece.view(b.shape) for piece, b in zip(pieces, buffers, strict=True)]
            )
        self._kept = []

    @torch.no_grad()
    def _step_and_undo(self, bad: Tensor) -> None:
        weights = [w for group in self._optimizer.param_groups for w in group["params"]]
        before = {weight: weight.clone() for weight in weights if weight.grad is not None}
        states = {weight: _copies(self._optimizer.state.get(weight, {})) for weight in before}
        self._optimizer.step()
        for weight, old in before.items():
            weight.copy_(torch.where(bad, old, weight))
            for name, value in self._optimizer.state[weight].items():
                # the count of steps lies with the processor, and RMSprop does not read it
                if isinstance(value, Tensor) and value.device == bad.device:
                    start = states[weight].get(name, torch.zeros_like(value))
                    value.copy_(torch.where(bad, start, value))


class Skipped(NamedTuple):
    """A step that changed nothing."""

    step: int
    """Its number, 1 for the run's first."""

    numbers: list[int]
    """The samples of its batch, on all ranks."""


class SkippedSteps:
    """Which of the latest steps were skipped; the device is asked only by `settle`."""

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self._pending: list[tuple[int, Tensor, Tensor]] = []
        self._found: list[Skipped] = []

    def add(self, step: int, bad: Tensor, numbers: Tensor) -> None:
        """Remember a step.

        Args:
            step: Its number.
            bad: () 1 or 0, the same on all ranks.
            numbers: (N,) its samples on this rank.
        """
        self._pending.append((step, bad, numbers))
        if len(self._pending) >= SETTLED_EVERY:
            self.settle()

    def settle(self) -> int:
        """Ask the device; returns how many skipped steps have not been taken yet."""
        if self._pending:
            flags = torch.stack([bad for _, bad, _ in self._pending]).tolist()
            for (step, _, numbers), bad in zip(self._pending, flags, strict=True):
                if bad:
                    everyone = self._ranks.gather(numbers.tolist())
                    self._found.append(Skipped(step, [n for own in everyone for n in own]))
            self._pending = []
        return len(self._found)

    def take(self) -> list[Skipped]:
        """The skipped steps since it was last called."""
        self.settle()
        found, self._found = self._found, []
        return found

    def state_dict(self) -> list[tuple[int, list[int]]]:
        """What a checkpoint keeps: those that no record has told of yet."""
        self.settle()
        return [(step, numbers) for step, numbers in self._found]

    def load_state_dict(self, state: list[tuple[int, list[int]]]) -> None:
        """Take up where `state_dict` was called."""
        self._pending = []
        self._found = [Skipped(*skipped) for skipped in state]


def is_bad(*values: Tensor) -> Tensor:
    """() float32 on the device: 1 where any value is not a finite number, else 0.

    Args:
        values: () each.
    """
    return (
        (~torch.isfinite(torch.stack([value.detach().float() for value in values]))).any().float()
    )


def all_finite(network: nn.Module) -> bool:
    """Whether every weight is a finite number; waits for the device."""
    return bool(torch.isfinite(nn.utils.get_total_norm(list(network.parameters()))))


def _begin_momentum(optimizer: torch.optim.SGD) -> None:
    """Momentum from 0, which is what torch begins with; made by a skipped step it holds anything.

    The fused form allocates the buffer in the first step, and relies on that step to fill it.
    """
    for group in optimizer.param_groups:
        if group["momentum"]:
            for weight in group["params"]:
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _copies(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}
