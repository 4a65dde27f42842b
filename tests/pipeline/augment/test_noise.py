"""Noise against the same generator in numpy's unsigned arithmetic, and scipy's statistics."""

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from pipeline.augment.noise import halves, hashed, normal

KEYS = np.random.default_rng(0).integers(-(2**31), 2**31, (5, 2)).astype(np.int32)


def murmur(key: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.uint32]:
    first, second = key.view(np.uint32)
    words = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9) + first
    words = (words ^ words >> np.uint32(16)) * np.uint32(0x85EBCA6B) ^ second
    words = (words ^ words >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    return words ^ words >> np.uint32(16)


def test_words_are_those_of_unsigned_arithmetic() -> None:
    found = hashed(torch.from_numpy(KEYS), 10_001).numpy().view(np.uint32)
    with np.errstate(over="ignore"):
        expected = np.stack([murmur(key, 10_001) for key in KEYS])
    np.testing.assert_array_equal(found, expected)


def test_values_are_box_and_mullers_of_the_words() -> None:
    with np.errstate(over="ignore"):
        words = murmur(KEYS[0], 14).astype(np.float64)
    high, low = np.divmod(words, 2**16)
    radius, angle = np.sqrt(-2 * np.log((high + 0.5) / 2**16)), 2 * np.pi * low / 2**16
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:27]
    found = normal(torch.from_numpy(KEYS[:1]), (3, 3, 3))
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-5)


def test_noise_is_gaussian_white_and_its_own_for_every_key() -> None:
    found = normal(torch.from_numpy(KEYS), (3, 150, 150)).double().numpy()
    for picture in found:
        assert stats.kstest(picture.ravel(), "norm").pvalue > 1e-3
        for other in (np.roll(picture, 1, axis=a) for a in range(3)):
            assert abs(np.corrcoef(picture.ravel(), other.ravel())[0, 1]) < 0.02
    assert np.abs(np.corrcoef(found.reshape(5, -1)) - np.eye(5)).max() < 0.02
    assert (abs(found).max() > 4, abs(found).max() < 5) == (True, True)


def test_keys_are_both_halves_of_a_word() -> None:
    words = np.array([0x0123456789ABCDEF, 5], np.uint64)
    assert halves(words).view(np.uint32).tolist() == [[0x89ABCDEF, 0x01234567], [5, 0]]
