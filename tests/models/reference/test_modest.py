"""System 004's networks, restated layer by layer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

Pictures = Callable[[int, int], tuple[Tensor, Tensor]]
Build = Callable[[str], nn.Module]


def test_masknet3_computes_what_its_system_describes(
    evaluated: Build, pictures: Pictures, layers: type
) -> None:
    network = evaluated("004-masknet3")
    background, composite = pictures(17, 20)
    rest = layers(network)
    stems = [rest.conv_norm_relu(background), rest.conv_norm_relu(composite)]
    mixed = rest.conv_norm_relu(rest.conv_norm_relu(torch.cat(stems, 1)))
    mask, depth, _ = network(background, composite)
    torch.testing.assert_close(mask, rest.conv(mixed))
    assert rest.is_used_up()
    assert depth is None


def test_masknet3_sees_seven_by_seven_pixels(evaluated: Build, pictures: Pictures) -> None:
    network = evaluated("004-masknet3")
    background, composite = pictures(21, 21)
    composite.requires_grad_()
    with torch.enable_grad():
        network(background, composite).mask_logits[0, 0, 10, 10].backward()
    heard = composite.grad[0].abs().amax(0) > 0
    rows, columns = heard.nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (7, 13, 7, 13)


def test_depthmasknet8_computes_what_its_system_describes(
    evaluated: Build, pictures: Pictures, layers: type
) -> None:
    network = evaluated("004-depthmasknet8")
    background, composite = pictures(64, 96)

    def stem(part: nn.Module, x: Tensor) -> Tensor:
        rest = layers(part)
        return rest.conv_norm_relu(rest.conv_norm_relu(x))

    def down(part: nn.Module, x: Tensor) -> Tensor:
        rest = layers(part)
        path = rest.conv_norm_relu(rest.conv_norm_relu(F.max_pool2d(x, 2)))
        return (path + rest.norm(rest.conv(x, stride=2))).clamp(min=0)

    def up(part: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
        rest = layers(part)
        grown = F.interpolate(rest.conv(x), scale_factor=2, mode="bilinear", align_corners=False)
        return rest.conv_norm_relu(rest.conv_norm_relu(grown + skip))

    of_composite = stem(network.composite_stem, composite)
    a = down(network.background_down, stem(network.background_stem, background))
    b = down(network.composite_down, of_composite)
    x3 = torch.cat([a, b], 1)
    x4 = down(network.quarter_down, x3)
    x5 = down(network.eighth_down, x4)
    x6 = down(network.sixteenth_down, x5)
    m1 = up(network.mask_up[0], x6, x5)
    m2 = up(network.mask_up[1], m1, x4)
    m3 = up(network.mask_up[2], m2, x3)
    m4 = up(network.mask_up[3], m3, of_composite)
    x7 = down(network.deepest_down, x6)
    d1 = up(network.depth_up[0], x7, x6)
    d2 = up(network.depth_up[1], d1, x5) + m1
    d3 = up(network.depth_up[2], d2, x4) + m2
    d4 = up(network.depth_up[3], d3, x3) + x3
    d5 = up(network.depth_up[4], d4, of_composite)
    mask, depth, _ = network(background, composite)
    torch.testing.assert_close(mask, layers(network.mask_head).conv(m4))
    torch.testing.assert_close(depth, layers(network.depth_head).conv(d5))


@pytest.mark.parametrize("name", ["004-masknet3", "004-depthmasknet8"])
def test_each_image_has_a_stem_of_its_own(name: str, evaluated: Build, pictures: Pictures) -> None:
    network = evaluated(name)
    background, composite = pictures(32, 32)
    mask = network(background, composite).mask_logits
    assert not torch.allclose(mask, network(composite, background).mask_logits)
