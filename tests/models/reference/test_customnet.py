"""System 003's network, restated layer by layer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from models.reference.customnet import CustomNet

Pictures = Callable[[int, int], tuple[Tensor, Tensor]]
Build = Callable[[str], nn.Module]


def restated_decoder(layers, x: Tensor, skips: list[Tensor]) -> Tensor:
    x = layers.conv_norm_relu(x)
    for skip in skips[::-1]:
        size = tuple(skip.shape[2:])
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        x = torch.cat([x, skip], 1)
        for _ in range(3):
            x = layers.conv_norm_relu(x)
    return x


@pytest.mark.parametrize("size", [(32, 48), (45, 62)])
@pytest.mark.parametrize("tied", [True, False])
def test_both_forms_compute_what_their_system_describes(
    tied: bool, size: tuple[int, int], evaluated: Build, pictures: Pictures, layers: type
) -> None:
    """The committed model runs centre and decoder twice with the same weights, as done here."""
    network = evaluated("003-tied" if tied else "003-untied")
    _, composite = pictures(*size)
    x = composite
    encoder, skips = layers(network.encoder), []
    for _ in range(4):
        skips.append(encoder.conv_norm_relu(encoder.conv_norm_relu(x)))
        x = F.max_pool2d(skips[-1], 2)
    for_mask = restated_decoder(layers(network.decoder), x, skips)
    own = network.decoder if tied else network.depth_decoder
    for_depth = restated_decoder(layers(own), x, skips)
    mask, depth, _ = network(None, composite)
    torch.testing.assert_close(mask, layers(network.mask_head).conv(for_mask))
    torch.testing.assert_close(depth, layers(network.depth_head).conv(for_depth))
    assert depth.shape == (2, 3, *size)


def test_no_convolution_but_the_heads_has_a_bias() -> None:
    parts = dict(CustomNet(tied=False).named_modules())
    with_bias = {
        name
        for name, part in parts.items()
        if isinstance(part, nn.Conv2d) and part.bias is not None
    }
    assert with_bias == {"mask_head", "depth_head"}


def test_tied_tasks_pull_at_the_same_decoder_and_untied_ones_at_their_own() -> None:
    images = torch.randn(2, 3, 32, 32)
    for tied in (True, False):
        network = CustomNet(tied=tied)
        network(None, images).depth_logits.sum().backward()
        assert (network.decoder.centre[0].weight.grad is not None) == tied
