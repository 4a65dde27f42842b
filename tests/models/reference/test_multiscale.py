"""System 001's depth network, restated layer by layer."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.reference.multiscale import ReflectConv

Pictures = Callable[[int, int], tuple[Tensor, Tensor]]
Build = Callable[[str], nn.Module]


def mirrored(x: Tensor) -> Tensor:
    border = ((0, 0), (0, 0), (1, 1), (1, 1))
    return torch.from_numpy(np.pad(x.numpy(), border, mode="reflect"))


def restated_encoder(layers, images: Tensor) -> list[Tensor]:
    x = layers.conv_norm_relu((images - 0.45) / 0.225, stride=2)
    features = [x]
    border = torch.full((*x.shape[:2], x.shape[2] + 2, x.shape[3] + 2), -torch.inf).double()
    border[:, :, 1:-1, 1:-1] = x
    x = border.unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))
    for layer in range(4):
        for block in range(2):
            stride = 2 if layer and not block else 1
            path = layers.norm(layers.conv(layers.conv_norm_relu(x, stride)))
            x = (path + (layers.norm(layers.conv(x, stride)) if stride == 2 else x)).clamp(min=0)
        features.append(x)
    return features


def elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.expm1(x))


@pytest.mark.parametrize("name", ["001-resnet18", "001-resnet18-6ch"])
def test_the_multi_scale_network_computes_what_its_system_describes(
    name: str, evaluated: Build, pictures: Pictures, layers: type
) -> None:
    network = evaluated(name)
    background, composite = pictures(64, 96)
    images = torch.cat([composite, background], 1) if name.endswith("6ch") else composite
    encoder = layers(network.encoder)
    features = restated_encoder(encoder, images)
    assert encoder.is_used_up()
    decoder = network.decoder
    x, expected = features[4], []
    for level in (4, 3, 2, 1, 0):
        x = elu(layers(decoder.narrow[level]).conv(mirrored(x), padding=0))
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        if level:
            x = torch.cat([x, features[level - 1]], 1)
        x = elu(layers(decoder.mix[level]).conv(mirrored(x), padding=0))
        if level < 4:
            expected.append(layers(decoder.heads[level]).conv(mirrored(x), padding=0))
    found = network(background, composite)
    assert found.mask_logits is None
    assert [scale.mask_logits for scale in found.scales] == [None] * 3
    scales = [found.depth_logits, *(scale.depth_logits for scale in found.scales)]
    assert [tuple(logits.shape) for logits in scales] == [
        (2, 1, 64, 96), (2, 1, 32, 48), (2, 1, 16, 24), (2, 1, 8, 12),
    ]  # fmt: skip
    for logits, other in zip(scales, expected[::-1], strict=True):
        torch.testing.assert_close(logits, other)


@pytest.fixture
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(mode=True)
    yield
    torch.use_deterministic_algorithms(mode=False)


@pytest.mark.usefixtures("_deterministic")
def test_the_deterministic_border_is_the_same_and_so_is_its_gradient() -> None:
    torch.manual_seed(0)
    conv = ReflectConv(3, 4).double()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    exact = conv(x)
    (gradient,) = torch.autograd.grad(exact.square().sum(), x)
    torch.use_deterministic_algorithms(mode=False)
    other = conv(x)
    assert torch.equal(exact, other)
    torch.testing.assert_close(gradient, torch.autograd.grad(other.square().sum(), x)[0])
