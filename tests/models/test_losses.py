import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_msssim import ssim as library_ssim
from scipy.ndimage import gaussian_filter
from torch import Tensor

from models.losses import TERMS, LossConfig, Losses, TaskLoss, bce, dice, l1, parse_loss, ssim
from models.prediction import Prediction


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def images(num: int = 3, size: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    logits = seeded(num, 1, size, size, seed=seed)
    return logits, seeded(num, 1, size, size, seed=seed + 1).sigmoid()


def batch(num: int, size: int = 16) -> tuple[Prediction, Tensor, Tensor]:
    mask = (seeded(num, 1, size, size, seed=3) > 0).float()
    depth = seeded(num, 1, size, size, seed=4).sigmoid()
    logits = (seeded(num, 1, size, size, seed=seed) for seed in (1, 2))
    return Prediction(*logits), mask, depth


def test_bce_is_the_entropy_written_out_by_hand() -> None:
    logits, target = images()
    p, t = 1 / (1 + np.exp(-logits.double().numpy())), target.double().numpy()
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean((1, 2, 3))
    np.testing.assert_allclose(bce(logits, target).numpy(), expected, rtol=1e-5)


def test_dice_of_a_half_covered_mask_is_computed_by_hand() -> None:
    """4 pixels predicted, 2 of them and 2 others in the mask: 1 - (2 * 2 + 1) / (4 + 4 + 1)."""
    logits = torch.full((1, 1, 4, 4), -1e4)
    logits[0, 0, 0] = 1e4
    target = torch.zeros(1, 1, 4, 4)
    target[0, 0, :2, :2] = 1
    assert dice(logits, target).item() == pytest.approx(1 - 5 / 9)


def test_dice_is_taken_per_image_and_not_over_the_batch() -> None:
    logits, target = images(num=2)
    alone = torch.cat([dice(logits[i : i + 1], target[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(dice(logits, target), alone)


def test_l1_is_the_mean_absolute_error_of_the_sigmoid() -> None:
    logits, target = images()
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    expected = np.abs(p - target.double().numpy()).mean((1, 2, 3))
    np.testing.assert_allclose(l1(logits, target).numpy(), expected, rtol=1e-5)


def scipy_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al.'s formula with scipy's Gaussian of radius 5, borders cut off."""

    def blur(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, 1.5, radius=5)[5:-5, 5:-5]

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return float(
        ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    )


def test_ssim_agrees_with_scipy_image_by_image() -> None:
    logits, target = images(num=4)
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    expected = [1 - scipy_ssim(p[i, 0], target[i, 0].double().numpy()) for i in range(4)]
    np.testing.assert_allclose(ssim(logits, target).numpy(), expected, atol=1e-5)


def test_ssim_agrees_with_the_public_function_of_the_library() -> None:
    """`ssim` calls an inner function of the library; this is what would notice a change there."""
    logits, target = (torch.cat([part, part.flip(3)], dim=1) for part in images(num=4, size=32))
    expected = 1 - library_ssim(logits.sigmoid(), target, data_range=1.0, size_average=False)
    torch.testing.assert_close(ssim(logits, target), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_the_gradient_of_every_term_is_right_in_float64(name: str) -> None:
    logits = seeded(2, 1, 12, 12, dtype=torch.float64).requires_grad_()
    target = seeded(2, 1, 12, 12, seed=1, dtype=torch.float64).sigmoid()
    assert torch.autograd.gradcheck(lambda x: TERMS[name](x, target), (logits,))


@pytest.mark.parametrize("name", TERMS)
@given(seed=st.integers(0, 2**31), scale=st.floats(0, 50))
def test_no_term_is_ever_negative(name: str, seed: int, scale: float) -> None:
    logits, target = images(num=2, size=12, seed=seed)
    assert (TERMS[name](scale * logits, target) >= -1e-6).all()


@pytest.mark.parametrize("name", TERMS)
@given(seed=st.integers(0, 2**31))
def test_a_sure_and_right_mask_costs_nothing(name: str, seed: int) -> None:
    mask = (seeded(2, 1, 12, 12, seed=seed) > 0).float()
    assert TERMS[name](200 * mask - 100, mask).abs().max() < 1e-5


@pytest.mark.parametrize("sign", [-1, 1])
def test_losses_and_gradients_are_finite_at_huge_logits(sign: int) -> None:
    _, mask, depth = batch(2)
    logits = [torch.full_like(mask, sign * 1e4).requires_grad_() for _ in range(2)]
    loss = TaskLoss(LossConfig(mask="bce + dice + l1 + ssim", depth="bce + dice + l1 + ssim"))
    total = loss(Prediction(*logits), mask, depth, torch.ones(2)).total
    total.backward()
    assert total.isfinite()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in logits)


def test_the_total_is_the_weighted_sum_of_both_tasks() -> None:
    prediction, mask, depth = batch(3)
    config = LossConfig(
        mask="2 bce + dice", depth="0.85 ssim + 0.15*l1", mask_weight=0.5, depth_weight=2
    )
    losses = TaskLoss(config)(prediction, mask, depth, torch.ones(3))
    assert prediction.mask_logits is not None
    assert prediction.depth_logits is not None
    mask_loss = (2 * bce(prediction.mask_logits, mask) + dice(prediction.mask_logits, mask)).mean()
    terms = (ssim(prediction.depth_logits, depth), l1(prediction.depth_logits, depth))
    depth_loss = (0.85 * terms[0] + 0.15 * terms[1]).mean()
    expected = Losses(0.5 * mask_loss + 2 * depth_loss, mask_loss, depth_loss)
    torch.testing.assert_close(losses, expected)


def test_samples_of_weight_0_change_neither_losses_nor_gradients() -> None:
    prediction, mask, depth = batch(5)
    leaves = [part.clone().requires_grad_() for part in prediction[:2] if part is not None]
    loss = TaskLoss(LossConfig())
    all_five = loss(Prediction(*leaves), mask, depth, torch.tensor([1.0, 1, 1, 0, 0]))
    three = prediction.apply(lambda part: part[:3])
    torch.testing.assert_close(all_five, loss(three, mask[:3], depth[:3], torch.ones(3)))
    all_five.total.backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert leaf.grad[3:].abs().max() == 0
        assert leaf.grad[:3].abs().max() > 0


def test_a_sample_of_weight_2_counts_like_two_samples() -> None:
    prediction, mask, depth = batch(2)
    twice = torch.tensor([0, 1, 1])
    doubled = prediction.apply(lambda part: part[twice])
    loss = TaskLoss(LossConfig())
    torch.testing.assert_close(
        loss(prediction, mask, depth, torch.tensor([1.0, 2.0])),
        loss(doubled, mask[twice], depth[twice], torch.ones(3)),
    )


def test_a_batch_of_nothing_but_padding_costs_exactly_0() -> None:
    prediction, mask, depth = batch(2)
    assert TaskLoss(LossConfig())(prediction, mask, depth, torch.zeros(2)).total == 0


def test_a_network_without_depth_is_charged_for_its_mask_alone() -> None:
    prediction, mask, depth = batch(2)
    losses = TaskLoss(LossConfig())(
        prediction._replace(depth_logits=None), mask, depth, torch.ones(2)
    )
    assert losses.depth == 0
    assert losses.total == losses.mask > 0


def test_the_losses_are_float32_under_autocast() -> None:
    prediction, mask, depth = batch(2)
    half = prediction.apply(Tensor.bfloat16)
    as_float = half.apply(Tensor.float)
    loss = TaskLoss(LossConfig())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = loss(half, mask, depth, torch.ones(2))
    assert {part.dtype for part in losses} == {torch.float32}
    torch.testing.assert_close(losses, loss(as_float, mask, depth, torch.ones(2)), atol=0, rtol=0)


def test_a_stage_smaller_than_the_ssim_window_names_the_largest_that_fits() -> None:
    prediction, mask, depth = batch(1, size=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="largest window that fits is 7 px"):
            TaskLoss(LossConfig())(prediction, mask, depth, torch.ones(1))
    with pytest.raises(ValueError, match="largest window that fits is 9 px"):
        LossConfig().check_size(10)
    LossConfig().check_size(11)
    LossConfig(depth="l1").check_size(4)


def test_expressions_are_read_with_and_without_weights() -> None:
    assert parse_loss("0.85 ssim + .15*l1+bce") == ((0.85, "ssim"), (0.15, "l1"), (1.0, "bce"))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("bce + huber", "unknown term 'huber'; known: bce, dice, l1, ssim"),
        ("bce + bce", "names a term twice"),
        ("bce - dice", "cannot read 'bce - dice'"),
        ("", "cannot read ''"),
        ("bce +", "cannot read ''"),
        ("-1 bce", "cannot read '-1 bce'"),
        ("nan bce", "cannot read 'nan bce'"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_reason(expression: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        LossConfig(mask=expression)
    with pytest.raises(ValueError, match=message):
        LossConfig(depth=expression)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"mask_weight": -1.0}, "mask_weight is -1"),
        ({"depth_weight": float("nan")}, "depth_weight is nan"),
        ({"mask_weight": 0.0, "depth_weight": 0.0}, "nothing would be learned"),
    ],
)
def test_wrong_task_weights_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossConfig(**weights)
