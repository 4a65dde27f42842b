"""Random numbers by (seed, epoch, sample number): no state, so nothing to carry over a resume.

Each decision draws from a stream of its own, so a new one moves none of the others: streams keep
their numbers for ever. What is drawn is worked out on the processor, where the arithmetic is exact,
and sent to the device with the batch.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from pipeline.order import Numbers, Words, mix64

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Stream(IntEnum):
    """The decisions, by stream. `X_CHANCE` decides whether, the others by how much."""

    FLIP = 1
    FLIP_VERTICAL = 2
    ROTATION_CHANCE = 3
    ROTATION = 4
    SCALE_CHANCE = 5
    SCALE = 6
    ASPECT = 7
    POSITION_X = 8
    POSITION_Y = 9
    TRANSLATE_CHANCE = 10
    TRANSLATE_X = 11
    TRANSLATE_Y = 12
    CUTOUT_CHANCE = 13
    CUTOUT_NUM = 14
    BRIGHTNESS_CHANCE = 15
    BRIGHTNESS = 16
    CONTRAST_CHANCE = 17
    CONTRAST = 18
    SATURATION_CHANCE = 19
    SATURATION = 20
    HUE_CHANCE = 21
    HUE = 22
    SHIFT_CHANCE = 23
    SHIFT = 24
    HSV_CHANCE = 25
    HSV_HUE = 26
    HSV_SATURATION = 27
    HSV_VALUE = 28
    BLUR_CHANCE = 29
    BLUR = 30
    NOISE_CHANCE = 31
    NOISE = 32
    NOISE_KEY = 33


BACKGROUND = 100
"""Added to a photometric stream where the background is changed independently."""

HOLES = 1000
"""Hole h of a cutout draws from this + 4 h and the three streams after it."""


def words(seed: int, epochs: Numbers, numbers: Numbers, purpose: int) -> Words:
    """(N,) random 64-bit words, one per sample of an epoch, for one purpose."""
    key = mix64(np.array([seed], np.uint64) * _GOLDEN + np.uint64(purpose))
    return mix64(mix64(key + epochs.astype(np.uint64)) + numbers.astype(np.uint64) * _GOLDEN)


def draws(seed: int, epochs: Numbers, numbers: Numbers, purpose: int) -> Floats:
    """(N,) uniform numbers in [0, 1), one per sample of an epoch, for one purpose."""
    return (words(seed, epochs, numbers, purpose) >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Drawer:
    """What the N samples of a batch draw.

    Args:
        seed: Of the run.
        epochs: (N,) which epoch each belongs to.
        numbers: (N,) sample numbers.
    """

    def __init__(self, seed: int, epochs: Numbers, numbers: Numbers) -> None:
        self._sample = seed, epochs, numbers

    def __len__(self) -> int:
        return len(self._sample[2])

    def chosen(self, chance: float, purpose: int) -> Bools:
        """(N,) True with a probability; nothing is drawn where it is certain."""
        if chance in {0, 1}:
            return np.full(len(self), chance == 1)
        return draws(*self._sample, purpose) < chance

    def between(self, low: float, high: float, purpose: int) -> Floats:
        """(N,) uniform in [low, high)."""
        if low == high:
            return np.full(len(self), float(low))
        return low + (high - low) * draws(*self._sample, purpose)

    def around(self, centre: float, reach: float, purpose: int) -> Floats:
        """(N,) uniform in [centre - reach, centre + reach)."""
        return self.between(centre - reach, centre + reach, purpose)

    def words(self, purpose: int) -> Words:
        """(N,) random 64-bit words."""
        return words(*self._sample, purpose)
