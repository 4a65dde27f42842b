from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.losses import LossConfig, TaskLoss
from models.prediction import Prediction
from models.unet import WIDTHS, UNet


def seeded(width: str = "s") -> UNet:
    torch.manual_seed(0)
    return UNet(width).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def images(num: int, height: int, width: int | None = None, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(num, 3, height, width or height, generator=generator)
    return pixels.contiguous(memory_format=torch.channels_last)


def logits_of(prediction: Prediction) -> tuple[Tensor, Tensor]:
    mask, depth, _ = prediction
    assert mask is not None
    assert depth is not None
    return mask, depth


@pytest.mark.parametrize(
    ("width", "expected"), [("s", 1_399_494), ("m", 5_583_238), ("l", 22_303_494)]
)
def test_each_width_has_its_documented_number_of_parameters(width: str, expected: int) -> None:
    assert sum(part.numel() for part in UNet(width).parameters()) == expected


def test_all_widths_are_multiples_of_16() -> None:
    """Tensor cores and the CPU's bf16 units work on such blocks."""
    assert all(channels % 16 == 0 for width in WIDTHS.values() for channels in width)


@pytest.mark.parametrize("size", [64, 96, 224])
def test_a_bf16_channels_last_step_works_at_every_size_of_the_recipe(size: int) -> None:
    network = seeded()
    background, composite = images(2, size), images(2, size, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = network(background, composite)
    mask, depth = logits_of(prediction)
    assert mask.shape == depth.shape == (2, 1, size, size)
    target = torch.full((2, 1, size, size), 0.25)
    TaskLoss(LossConfig())(prediction, target, target, torch.ones(2)).total.backward()
    for name, part in network.named_parameters():
        assert part.grad is not None, name
        assert part.grad.isfinite().all(), name
        assert part.grad.abs().max() > 0, name


def test_bf16_and_float32_agree_on_the_logits() -> None:
    network = seeded().eval()
    background, composite = images(2, 64), images(2, 64, seed=1)
    with torch.inference_mode():
        exact = network(background, composite)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            narrow = network(background, composite)
    for one, other in zip(logits_of(exact), logits_of(narrow), strict=True):
        assert (one - other.float()).abs().mean() < 0.05 * one.abs().mean() + 0.01


def test_images_need_not_be_square() -> None:
    mask, depth = logits_of(seeded()(images(1, 64, 96), images(1, 64, 96, seed=1)))
    assert mask.shape == depth.shape == (1, 1, 64, 96)


def test_a_set_without_backgrounds_is_refused() -> None:
    with pytest.raises(ValueError, match="with its background, and there is none"):
        seeded()(None, images(1, 64))


def test_every_convolution_before_a_batchnorm_is_without_bias() -> None:
    parts = list(seeded().modules())
    sequences = [list(part) for part in parts if isinstance(part, nn.Sequential)]
    pairs = [pair for parts in sequences for pair in pairwise(parts)]
    checked = [
        first.bias is None
        for first, second in pairs
        if isinstance(first, nn.Conv2d) and isinstance(second, _BatchNorm)
    ]
    assert checked
    assert all(checked)


@pytest.mark.parametrize("task", [0, 1])
def test_the_answer_in_one_corner_of_a_96_px_frame_hears_of_the_opposite_edges(task: int) -> None:
    """Depth is the depth of the row where an object stands: far from most of its pixels."""
    network = seeded().eval()
    background, composite = images(1, 96), images(1, 96, seed=1).requires_grad_()
    logits_of(network(background, composite))[task][0, 0, 0, 0].backward()
    assert composite.grad is not None
    heard = composite.grad.abs().amax((0, 1)) > 0
    assert heard[:, :64].any(1).all()
    assert heard[:64].any(0).all()


def test_the_outline_depends_on_single_pixels() -> None:
    """The finest level is not pooled: moving a pixel's colour moves its own logit the most."""
    network = seeded().eval()
    background = images(1, 64)
    composite = images(1, 64, seed=1).requires_grad_()
    logits_of(network(background, composite))[0][0, 0, 33, 30].backward()
    assert composite.grad is not None
    influence = composite.grad.abs().amax((0, 1))
    near = influence[33 - 3 : 33 + 4, 30 - 3 : 30 + 4].sum()
    assert near > 0.5 * influence.sum()


def test_the_network_learns_a_square_by_its_difference_in_a_few_steps() -> None:
    """The whole path learns: after 40 steps on 4 samples the outline is right to 95 %."""
    network = seeded().train()
    generator = torch.Generator().manual_seed(0)
    background = images(4, 64)
    mask = torch.zeros(4, 1, 64, 64)
    for row in range(4):
        top, left = torch.randint(4, 36, (2,), generator=generator).tolist()
        mask[row, :, top : top + 24, left : left + 20] = 1
    composite = torch.where(mask > 0, images(4, 64, seed=1), background)
    depth = 0.2 + 0.5 * mask
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    loss = TaskLoss(LossConfig())
    for _ in range(40):
        losses = loss(network(background, composite), mask, depth, torch.ones(4))
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
    predicted = logits_of(network(background, composite))
    found, truth = predicted[0] > 0, mask > 0
    assert (found & truth).sum() / (found | truth).sum() > 0.95
    assert (predicted[1].sigmoid() - depth).square().mean().sqrt() < 0.1
