"""Per-sample augmentation on the device: what is drawn depends on (seed, epoch, sample) alone.

So it is the same after a resume, for any number of ranks, and streamed or cached. Geometry moves
composite, background, mask and depth together. Validation never comes here.
Shapes: N samples, H x W pixels, C channels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.order import mix64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FLIP = 1  # one stream of draws per decision, so that a new one moves none of the others


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """What training changes in its images."""

    flip: float = 0.5
    """Probability of mirroring a sample left to right."""

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            msg = f"flip is {self.flip}; it is a probability, 0 to 1"
            raise ValueError(msg)


def draws(
    seed: int, epochs: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64], purpose: int
) -> npt.NDArray[np.float64]:
    """(N,) uniform numbers in [0, 1), one per sample of an epoch, for one purpose."""
    key = mix64(np.array([seed], np.uint64) * _GOLDEN + np.uint64(purpose))
    words = mix64(mix64(key + epochs.astype(np.uint64)) + numbers.astype(np.uint64) * _GOLDEN)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choose_flips(
    config: AugmentConfig,
    *,
    seed: int,
    epochs: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
) -> Tensor:
    """(N,) bool on the CPU: which samples are mirrored."""
    return torch.from_numpy(draws(seed, epochs, numbers, _FLIP) < config.flip)


def flip(pixels_NHWx: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the chosen samples of (N, H, W) or (N, H, W, C) pixels; never waits for the device."""
    shape = (-1, *(1,) * (pixels_NHWx.ndim - 1))
    return torch.where(chosen.view(shape), pixels_NHWx.flip(2), pixels_NHWx)
