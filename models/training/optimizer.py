"""The optimiser: which weights decay, and how far a step may go."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101)."""

    lr: float = 4e-3
    """Peak learning rate; the schedule says which share of it a step gets. Found with batches of 32
    (docs/log.md)."""

    weight_decay: float = 0.05
    """Decay of convolution weights; biases and norms are never decayed."""

    clip_norm: float = 1.0
    """Largest norm of all gradients together; 0 does not clip."""

    def __post_init__(self) -> None:
        if not self.lr > 0:
            msg = f"learning rate {self.lr} must be above 0"
            raise ValueError(msg)
        for name in ("weight_decay", "clip_norm"):
            if not getattr(self, name) >= 0:
                msg = f"{name} {getattr(self, name)} must be 0 (off) or more"
                raise ValueError(msg)


def build_optimizer(network: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the network's weights where they lie now.

    Fused: one kernel instead of dozens on a GPU; on a CPU 0.7 instead of 2.9 ms for 2 M weights.
    """
    weights = list(network.parameters())
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, fused=True)
