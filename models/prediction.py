"""What every network returns."""

from typing import NamedTuple

from torch import Tensor


class Prediction(NamedTuple):
    """Raw logits at input resolution; a network that lacks a task leaves its part None."""

    mask_logits: Tensor | None
    """(N, 1, H, W); sigmoid gives the probability that a pixel shows the object."""

    depth_logits: Tensor | None
    """(N, 1, H, W); sigmoid gives depth in [0, 1], as stored in the set."""
