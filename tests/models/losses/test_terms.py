"""Every term of `TERMS`, whatever is added there: a term without a reference fails to collect."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_msssim import ms_ssim as library_ms_ssim
from pytorch_msssim import ssim as library_ssim
from scipy.ndimage import gaussian_filter, uniform_filter
from torch import Tensor

from models.losses import TERMS, batch_dice, dice, gradient, iou, ms_ssim, parse_loss, silog, ssim

WRITTEN: Mapping[str, tuple[str, ...]] = {
    "rmse": ("rmse", "rmse(eps=0.01)"),
    "batch_rmse": ("batch_rmse", "batch_rmse(eps=0.01)"),
    "charbonnier": ("charbonnier", "charbonnier(eps=0.1)"),
    "ssim": (
        "ssim",
        *(f"ssim(window={w}, kernel={k})" for w in (3, 5, 11) for k in ("gaussian", "box")),
    ),
    "dssim": ("dssim", "dssim(window=5, kernel=box)"),
    "ms_ssim": ("ms_ssim(window=3)", "ms_ssim(window=3, kernel=box)"),
    "silog": ("silog", "silog(invariance=1)", "silog(invariance=0.85, eps=1e-3)"),
}
"""Ways to write a term; without an entry its name alone."""

CASES = [(name, text) for name in TERMS for text in WRITTEN.get(name, (name,))]
OVER_BATCH = [name for name in TERMS if name.startswith("batch_")]
"""By their names, as a user would expect."""

LEAST = {"rmse": 1e-3, "batch_rmse": 1e-3, "charbonnier": 1e-3}
"""What a perfect prediction costs: eps, for those that have one."""


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def side(name: str) -> int:
    """Of images large enough for all ways in which the term is written here."""
    return 48 if name == "ms_ssim" else 12


def images(
    name: str, num: int = 3, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Logits, and targets that resemble them: of unlike images many similarities are 0."""
    shape = (num, 1, side(name), side(name))
    logits = seeded(*shape, seed=seed, dtype=dtype)
    return logits, (logits + seeded(*shape, seed=seed + 1, dtype=dtype)).sigmoid()


def evaluate(text: str, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    ((factor, term),) = parse_loss(text)
    assert factor == 1
    return term(logits, target, logits.new_ones(len(logits)) if weight is None else weight)


# --- the references: one image (H, W) of probabilities and its target, in float64 ---

Image = np.ndarray[Any, np.dtype[np.float64]]


def bce_by_hand(p: Image, t: Image) -> float:
    return float(-(t * np.log(p) + (1 - t) * np.log(1 - p)).mean())


def dice_by_hand(p: Image, t: Image) -> float:
    return float(1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))


def iou_by_hand(p: Image, t: Image) -> float:
    return float(1 - ((p * t).sum() + 1) / ((p + t - p * t).sum() + 1))


def rmse_by_hand(p: Image, t: Image, *, eps: float) -> float:
    return float(np.sqrt(np.mean((p - t) ** 2) + eps))


def charbonnier_by_hand(p: Image, t: Image, *, eps: float) -> float:
    return float(np.hypot(p - t, eps).mean())


def scipy_ssim(
    x: Image, y: Image, *, window: int, kernel: str, contrast_alone: bool = False
) -> float:
    """Wang et al.'s formula with scipy's filters, borders cut off."""
    radius = window // 2

    def blur(image: Image) -> Image:
        if kernel == "box":
            blurred = uniform_filter(image, window)
        else:
            blurred = gaussian_filter(image, 1.5, radius=radius)
        return blurred[radius:-radius, radius:-radius]

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    contrast = (2 * cov + c2) / (vx + vy + c2)
    luminance = 1.0 if contrast_alone else (2 * mx * my + c1) / (mx**2 + my**2 + c1)
    return float((luminance * contrast).mean())


def scipy_ms_ssim(x: Image, y: Image, *, window: int, kernel: str) -> float:
    """Wang et al.'s product over five scales, each half of the one before."""
    product = 1.0
    for scale, exponent in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        found = scipy_ssim(x, y, window=window, kernel=kernel, contrast_alone=scale < 4)
        product *= max(found, 1e-4) ** exponent
        x, y = (i.reshape(len(i) // 2, 2, -1, 2).mean((1, 3)) if scale < 4 else i for i in (x, y))
    return product


def gradient_by_hand(p: Image, t: Image) -> float:
    down = np.abs((p[1:] - p[:-1]) - (t[1:] - t[:-1])).mean()
    return float(down + np.abs((p[:, 1:] - p[:, :-1]) - (t[:, 1:] - t[:, :-1])).mean())


def silog_by_hand(p: Image, t: Image, *, invariance: float, eps: float) -> float:
    """As in the paper: squares, less the square of the sum."""
    d = np.log((p + eps) / (t + eps))
    return float((d**2).sum() / d.size - invariance * d.sum() ** 2 / d.size**2)


REFERENCES: Mapping[str, Callable[..., float]] = {
    "bce": bce_by_hand,
    "dice": dice_by_hand,
    "batch_dice": dice_by_hand,
    "iou": iou_by_hand,
    "l1": lambda p, t: float(np.abs(p - t).mean()),
    "mse": lambda p, t: float(((p - t) ** 2).mean()),
    "rmse": rmse_by_hand,
    "batch_rmse": rmse_by_hand,
    "charbonnier": charbonnier_by_hand,
    "ssim": lambda p, t, **options: 1 - scipy_ssim(p, t, **options),
    "dssim": lambda p, t, **options: (1 - scipy_ssim(p, t, **options)) / 2,
    "ms_ssim": lambda p, t, **options: 1 - scipy_ms_ssim(p, t, **options),
    "gradient": gradient_by_hand,
    "silog": silog_by_hand,
}


@pytest.mark.parametrize(
    ("reference", "name", "text"), [(REFERENCES[name], name, text) for name, text in CASES]
)
def test_a_term_is_what_its_formula_says(
    reference: Callable[..., float], name: str, text: str
) -> None:
    """A term over the batch is the formula on one tall image of all of its images."""
    logits, target = images(name, num=4)
    options = dict(parse_loss(text)[0][1].options)
    p = 1 / (1 + np.exp(-logits[:, 0].double().numpy()))
    t = target[:, 0].double().numpy()
    if name in OVER_BATCH:
        expected = [reference(np.concatenate(p), np.concatenate(t), **options)] * 4
    else:
        expected = [reference(p[i], t[i], **options) for i in range(4)]
    np.testing.assert_allclose(evaluate(text, logits, target).numpy(), expected, atol=1e-5)


def test_dice_and_iou_of_a_half_covered_mask_are_computed_by_hand() -> None:
    """4 pixels predicted, 2 of them and 2 others in the mask: overlap 2, together 8, union 6."""
    logits = torch.full((1, 1, 4, 4), -1e4)
    logits[0, 0, 0] = 1e4
    target = torch.zeros(1, 1, 4, 4)
    target[0, 0, :2, :2] = 1
    assert dice(logits, target).item() == pytest.approx(1 - 5 / 9)
    assert iou(logits, target).item() == pytest.approx(1 - 3 / 7)


def test_dice_over_a_batch_adds_the_pixels_up_before_it_divides() -> None:
    """A full image found in full and one pixel missed: 1 - (2 * 16 + 1) / (16 + 17 + 1)."""
    target = torch.zeros(2, 1, 4, 4)
    target[0] = 1
    logits = 2e4 * target - 1e4
    target[1, 0, 0, 0] = 1
    found = batch_dice(logits, target, torch.ones(2))
    assert found.tolist() == pytest.approx([1 - 33 / 34] * 2)
    assert dice(logits, target).mean().item() == pytest.approx(1 / 4)


@pytest.mark.parametrize("window", [3, 5, 11])
def test_ssim_agrees_with_the_public_function_of_the_library(window: int) -> None:
    """We call an inner function of the library; this is what would notice a change there."""
    logits, target = (torch.cat([part, part.flip(3)], dim=1) for part in images("ms_ssim"))
    expected = library_ssim(
        logits.sigmoid(), target, data_range=1.0, size_average=False, win_size=window
    )
    torch.testing.assert_close(
        ssim(logits, target, window=window), 1 - expected, atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("size", [33, 36, 48])
def test_ms_ssim_agrees_with_the_public_function_of_the_library(size: int) -> None:
    """Also where halving meets odd sides."""
    logits, target = (part[..., :size, :size] for part in images("ms_ssim"))
    expected = library_ms_ssim(
        logits.sigmoid(), target, data_range=1.0, size_average=False, win_size=3
    )
    assert expected.min() > 0.01
    torch.testing.assert_close(
        ms_ssim(logits, target, window=3), 1 - expected, atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize(("name", "text"), CASES)
def test_the_gradient_of_every_term_is_right_in_float64(name: str, text: str) -> None:
    logits, target = images(name, num=2, dtype=torch.float64)
    weight = torch.tensor([1, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: evaluate(text, x, target, weight), (logits.requires_grad_(),), fast_mode=True
    )


@pytest.mark.parametrize(("name", "text"), CASES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0, 50))
def test_no_term_is_ever_negative(name: str, text: str, seed: int, scale: float) -> None:
    logits, target = images(name, num=2, seed=seed)
    assert (evaluate(text, scale * logits, target) >= -1e-6).all()


@pytest.mark.parametrize("name", TERMS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), threshold=st.floats(-4, 4))
def test_a_sure_and_right_mask_costs_nothing(name: str, seed: int, threshold: float) -> None:
    """Also an empty and a full one: dice and IoU of equal masks are 1, and so is SSIM."""
    mask = (images(name, num=2, seed=seed)[0] > threshold).float()
    cost = evaluate(WRITTEN.get(name, (name,))[0], 200 * mask - 100, mask)
    np.testing.assert_allclose(cost.numpy(), LEAST.get(name, 0), atol=1e-5)


@pytest.mark.parametrize("name", [name for name in TERMS if name not in LEAST])
def test_a_wrong_mask_costs_much(name: str) -> None:
    mask = (images(name, num=2)[0] > 0).float()
    assert evaluate(WRITTEN.get(name, (name,))[0], 100 - 200 * mask, mask).min() > 0.2


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(0, 50))
def test_iou_charges_at_least_what_dice_charges(seed: int, scale: float) -> None:
    logits, target = images("iou", seed=seed)
    assert (iou(scale * logits, target) >= dice(scale * logits, target) - 1e-6).all()


@pytest.mark.parametrize(("name", "text"), [case for case in CASES if case[0] != "bce"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_prediction_and_target_may_change_places(name: str, text: str, seed: int) -> None:
    """SSIM is symmetric, and so is all but the entropy."""
    one, other = (part.clamp(-4, 4) for part in (images(name, seed=seed)[0], images(name)[0]))
    torch.testing.assert_close(
        evaluate(text, one, other.sigmoid()),
        evaluate(text, other, one.sigmoid()),
        atol=1e-5,
        rtol=1e-4,
    )


@pytest.mark.parametrize(("name", "text"), [case for case in CASES if case[0] not in OVER_BATCH])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), order=st.permutations(range(4)), num=st.integers(1, 4))
def test_an_image_costs_the_same_in_every_batch(
    name: str, text: str, seed: int, order: list[int], num: int
) -> None:
    logits, target = images(name, num=4, seed=seed)
    chosen = order[:num]
    torch.testing.assert_close(
        evaluate(text, logits[chosen], target[chosen]), evaluate(text, logits, target)[chosen]
    )


@pytest.mark.parametrize("name", OVER_BATCH)
def test_a_term_over_the_batch_does_depend_on_the_batch(name: str) -> None:
    """Or it would not need to be one."""
    logits, target = images(name)
    target[0] = 0
    alone = torch.cat([evaluate(name, logits[i : i + 1], target[i : i + 1]) for i in range(3)])
    assert evaluate(name, logits, target).mean().item() != pytest.approx(alone.mean().item(), 1e-3)


@pytest.mark.parametrize(("name", "text"), CASES)
@pytest.mark.parametrize("logit", [-1e4, 0, 1e4, None])
def test_terms_and_gradients_are_finite_at_the_extremes(
    name: str, text: str, logit: float | None
) -> None:
    """Constant images, empty and full masks, and (None) noise of huge logits or of 0s and 1s."""
    noise = seeded(2, 1, side(name), side(name), seed=5)
    for level in (0.0, 0.5, 1.0, None):
        logits = 1e4 * noise.sign() if logit is None else torch.full_like(noise, logit)
        target = (noise.flip(3) > 0).float() if level is None else torch.full_like(noise, level)
        loss = evaluate(text, logits.requires_grad_(), target)
        loss.sum().backward()
        assert loss.isfinite().all(), level
        assert logits.grad is not None
        assert logits.grad.isfinite().all(), level


def test_a_scale_without_likeness_leaves_the_others_of_ms_ssim_their_gradient() -> None:
    """Blobs much alike under checks that are turned round: a product with 0 would learn nothing."""
    blobs = torch.nn.functional.interpolate(seeded(1, 1, 6, 6), scale_factor=8)
    rows = torch.arange(48)
    checks = (2.0 * ((rows[:, None] + rows) % 2) - 1).expand_as(blobs)
    logits = (blobs / 2 + checks).requires_grad_()
    loss = ms_ssim(logits, (blobs - checks).sigmoid(), window=3)
    assert 0.3 < loss.item() < 1
    loss.sum().backward()
    assert logits.grad is not None
    assert 1e-4 < logits.grad.abs().max() < 1


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), factor=st.floats(0.1, 1))
def test_silog_forgives_a_wrong_scale_as_far_as_it_is_told_to(seed: int, factor: float) -> None:
    """Of an error of the scale alone, mean(d^2) - invariance * mean(d)^2 leaves its share."""
    depth = images("silog", seed=seed)[1].clamp(0.1, 0.9).double()
    logits = torch.logit(factor * depth)
    for invariance in (0.0, 0.5, 1.0):
        expected = torch.full((3,), (1 - invariance) * np.log(factor) ** 2, dtype=torch.float64)
        found = silog(logits, depth, invariance=invariance, eps=1e-8)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_the_gradient_loss_sees_edges_and_no_constant_error() -> None:
    depth = torch.full((1, 1, 8, 8), 0.2)
    depth[..., 4:] = 0.6
    assert gradient(torch.logit(depth + 0.3), depth).item() == pytest.approx(0, abs=1e-6)
    flat = torch.zeros_like(depth)
    assert gradient(flat, depth).item() == pytest.approx(0.4 / 7)  # one column of seven


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("name", "text"), CASES)
def test_no_term_waits_for_the_device_and_all_agree_with_the_cpu(name: str, text: str) -> None:
    logits, target = images(name)
    expected = evaluate(text, logits, target)
    logits, target, weight = logits.cuda().requires_grad_(), target.cuda(), torch.ones(3).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = evaluate(text, logits, target, weight)
        loss.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(loss.detach().cpu(), expected, atol=1e-4, rtol=1e-3)
