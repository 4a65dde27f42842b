import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import kl_div

from models.metrics.entropy import bce_excess


def logits_and_target(seed: int, num_channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(3, num_channels, 6, 7, generator=generator)
    return logits, torch.rand(3, 1, 6, 7, generator=generator)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_it_is_the_divergence_that_scipy_computes(num_channels: int) -> None:
    """Each channel against the same target."""
    logits, target = logits_and_target(0, num_channels)
    p, t = 1 / (1 + np.exp(-logits.double().numpy())), target.double().numpy()
    expected = (kl_div(t, p) + kl_div(1 - t, 1 - p)).mean((1, 2, 3))
    np.testing.assert_allclose(bce_excess(logits, target).numpy(), expected, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_it_is_never_negative_and_0_for_a_perfect_prediction(seed: int) -> None:
    logits, target = logits_and_target(seed)
    assert (bce_excess(logits, target) > 0).all()
    assert bce_excess(torch.logit(target, eps=1e-7), target).abs().max() < 1e-6


def test_a_binary_target_has_no_floor() -> None:
    """2 nats by hand: log(1 + e^2) - 2 = 0.1269 where it is right, 2.1269 where it is wrong."""
    target = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    found = bce_excess(torch.full((1, 1, 1, 2), 2.0), target)
    assert found.item() == pytest.approx((0.126928 + 2.126928) / 2, abs=1e-6)


def test_huge_logits_are_finite() -> None:
    target = torch.tensor([1.0, 0.0, 0.25]).view(1, 1, 1, 3)
    logits = torch.tensor([1e4, -1e4, 1e4]).view(1, 1, 1, 3)
    # log(4/3) and log 4 weighted by the target, and 1e4 for each unit that is missed
    entropy = 0.25 * np.log(4) + 0.75 * np.log(4 / 3)
    assert bce_excess(logits, target).item() == pytest.approx((7500 - entropy) / 3, rel=1e-6)
