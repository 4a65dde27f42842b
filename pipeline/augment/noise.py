"""Gaussian noise from a counter: the same on any device, in any batch, and nothing to store.

Each sample has a key of 64 bits, each pair of values a counter. Both go through the finaliser of
MurmurHash3 in 32-bit arithmetic, with half of the key before and half within; the two halves of the
result are the two uniform numbers of a Box-Muller transform. Values end at 4.9 standard deviations.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.order import Words

_WEYL = 0x9E3779B9
_FIRST, _SECOND = 0x85EBCA6B, 0xC2B2AE35
_HALF = 1 << 16


def halves(words: Words) -> npt.NDArray[np.int32]:
    """(N,) 64-bit words as (N, 2) keys."""
    return words.view(np.int32).reshape(-1, 2)


def normal(keys_N2: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(N, *shape) float32 of mean 0 and variance 1; value i of a sample depends on its key and i.

    Args:
        keys_N2: int32.
        shape: Of one sample.
    """
    num = math.prod(shape)
    words = hashed(keys_N2, -(-num // 2))
    radius = ((words >> 16 & (_HALF - 1)).float().add_(0.5).div_(_HALF)).log_().mul_(-2).sqrt_()
    angle = (words & (_HALF - 1)).float().mul_(2 * math.pi / _HALF)
    pairs = torch.cat([angle.cos().mul_(radius), angle.sin_().mul_(radius)], dim=1)
    return pairs[:, :num].reshape(-1, *shape)


def hashed(keys_N2: Tensor, count: int) -> Tensor:
    """(N, count) int32, each bit of each as good as random."""
    words = _counters(count, keys_N2.device) + keys_N2[:, :1]
    words.bitwise_xor_(_shifted(words, 16)).mul_(_signed(_FIRST))
    words.bitwise_xor_(keys_N2[:, 1:])
    words.bitwise_xor_(_shifted(words, 13)).mul_(_signed(_SECOND))
    return words.bitwise_xor_(_shifted(words, 16))


def _shifted(words: Tensor, bits: int) -> Tensor:
    """Shift right, zeros coming in: torch's own shift repeats the sign."""
    return (words >> bits).bitwise_and_((1 << (32 - bits)) - 1)


def _signed(word: int) -> int:
    return word - (word >> 31 << 32)


@lru_cache(maxsize=64)
def _counters(count: int, device: torch.device) -> Tensor:
    """Multiples of the golden ratio, modulo 2**32."""
    numbers = np.arange(count, dtype=np.uint64) * _WEYL & 0xFFFFFFFF
    return torch.from_numpy(numbers.astype(np.uint32).view(np.int32)).to(device)
