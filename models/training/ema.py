"""A running average of the weights: often better to predict with than the last step's own."""

import copy

import torch
from torch import nn


class MovingAverage:
    """An exponential moving average of every floating-point parameter and buffer of a network.

    The decay starts small and grows to its full value ((1 + step) / (10 + step), as in
    `tf.train.ExponentialMovingAverage`), so that a short run does not average its initial
    weights in. It depends on the step alone, which is what makes it resumable.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int, skipped: torch.Tensor | float = 0.0) -> None:
        """Move towards the weights of `network` after `step` steps; launches, never waits.

        Args:
            network: As it is after a step.
            step: How many steps were made before.
            skipped: 1 if that step was skipped, which leaves the average as it is, else 0; ().
        """
        averages: list[torch.Tensor] = []
        values: list[torch.Tensor] = []
        new = network.state_dict()
        for name, average in self.network.state_dict().items():
            if average.is_floating_point():
                averages.append(average)
                values.append(new[name])
            else:
                average.copy_(new[name])  # BatchNorm's count of batches
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        # a lerp, but with a share that the device alone knows
        ways = torch._foreach_sub(values, averages)
        torch._foreach_mul_(ways, share * (1 - skipped))
        torch._foreach_add_(averages, ways)
