"""What every network returns."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Prediction(NamedTuple):
    """Raw logits at input resolution; a network that lacks a task leaves its part None."""

    mask_logits: Tensor | None
    """(N, 1, H, W); sigmoid gives the probability that a pixel shows the object."""

    depth_logits: Tensor | None
    """(N, C, H, W); sigmoid gives depth in [0, 1], as stored in the set. C is 1, or 3 for networks
    that were made for coloured depth: each channel is trained on the same grey target."""

    scales: tuple["Prediction", ...] = ()
    """The same at 1/2, 1/4, ... of the resolution, of networks that are trained at several."""

    def mask(self) -> Tensor | None:
        """(N, 1, H, W) probability that a pixel shows the object."""
        return None if self.mask_logits is None else self.mask_logits.float().sigmoid()

    def depth(self) -> Tensor | None:
        """(N, 1, H, W) depth in [0, 1]; channels are averaged."""
        if self.depth_logits is None:
            return None
        return self.depth_logits.float().sigmoid().mean(1, keepdim=True)

    def apply(self, function: Callable[[Tensor], Tensor]) -> "Prediction":
        """The same with a function applied to every tensor."""
        mask, depth = (None if logits is None else function(logits) for logits in self[:2])
        return Prediction(mask, depth, tuple(scale.apply(function) for scale in self.scales))
