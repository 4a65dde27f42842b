import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.metrics.depth import DEPTH_VALUES, depth_values
from models.prediction import Prediction


def values(logits: Tensor, depth: Tensor, mean_depth: float = 0.5) -> dict[str, Tensor]:
    predicted = Prediction(None, logits).depth()
    assert predicted is not None
    return depth_values(predicted, logits, depth, torch.full(depth.shape[-2:], mean_depth))


def pair(seed: int, num_channels: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, num_channels, 12, 14, generator=generator)
    return logits, torch.rand(3, 1, 12, 14, generator=generator)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_pixel_values_agree_with_numpy_and_channels_are_averaged(num_channels: int) -> None:
    logits, depth = pair(0, num_channels)
    depth[0, 0, 0] = 0  # black: ratios are taken of one grey level
    found = values(logits, depth, 0.4)
    assert set(found) == set(DEPTH_VALUES)
    p = (1 / (1 + np.exp(-logits.double().numpy()))).mean(1, keepdims=True)
    t = depth.double().numpy()
    floored = np.maximum(t, 1 / 255)
    ratio = np.maximum(p / floored, floored / p)
    expected = {
        "squared": (p - t) ** 2,
        "absolute": np.abs(p - t),
        "relative": np.abs(p - t) / floored,
        "delta1": ratio < 1.25,
        "delta2": ratio < 1.5625,
        "delta3": ratio < 1.953125,
        "mean_image_squared": (0.4 - t) ** 2,
    }
    for name, pixels in expected.items():
        np.testing.assert_allclose(found[name], pixels.mean((1, 2, 3)), rtol=1e-5, err_msg=name)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_wider_deltas_hold_more_pixels(seed: int) -> None:
    found = values(*pair(seed))
    assert (found["delta1"] <= found["delta2"]).all()
    assert (found["delta2"] <= found["delta3"]).all()
    assert (found["delta3"] <= 1).all()


def test_a_ratio_of_13_tenths_is_in_the_second_delta_only() -> None:
    depth = torch.full((1, 1, 12, 12), 0.5)
    for predicted in (0.65, 0.5 / 1.3):
        found = values(torch.logit(torch.full_like(depth, predicted)), depth)
        assert [found[f"delta{k}"].item() for k in (1, 2, 3)] == [0, 1, 1]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_perfect_prediction_has_no_error(seed: int) -> None:
    depth = pair(seed)[1].clamp(0.01, 0.99)
    found = values(torch.logit(depth), depth)
    for name in ("squared", "absolute", "relative", "excess"):
        assert found[name].abs().max() < 1e-5
    for name in ("delta1", "delta2", "delta3", "ssim"):
        np.testing.assert_allclose(found[name], 1, atol=1e-5)
