"""Systems 000, 001 and 002, restated layer by layer from their published description."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from models.reference.milesial import MilesialUNet

Pictures = Callable[[int, int], tuple[Tensor, Tensor]]
Build = Callable[[str], nn.Module]


def restated_branch(layers, stem: Tensor, num_poolings: int) -> Tensor:
    def two(x: Tensor) -> Tensor:
        return layers.conv_norm_relu(layers.conv_norm_relu(x))

    skips, x = [], stem
    for _ in range(num_poolings):
        skips.append(x)
        height, width = x.shape[2] // 2, x.shape[3] // 2
        blocks = x[:, :, : 2 * height, : 2 * width].unfold(2, 2, 2).unfold(3, 2, 2)
        x = two(blocks.amax((4, 5)))
    for skip in skips[::-1]:
        grown = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        up = skip.new_zeros(*x.shape[:2], *skip.shape[2:])
        up[:, :, : grown.shape[2], : grown.shape[3]] = grown  # at most one pixel is missing
        x = two(torch.cat([skip, up], 1))
    return layers.conv(x)


@pytest.mark.parametrize("size", [(64, 32), (45, 62)])
@pytest.mark.parametrize(
    ("name", "composite_first", "mask_poolings", "depth_poolings"),
    [
        ("000-mask", False, 4, 0),
        ("000-depth", False, 0, 5),
        ("000-both", False, 4, 5),
        ("001-unet", True, 4, 0),
        ("002-dual-unet", False, 4, 4),
    ],
)
def test_each_u_net_computes_what_its_system_describes(
    name: str,
    composite_first: bool,
    mask_poolings: int,
    depth_poolings: int,
    size: tuple[int, int],
    evaluated: Build,
    pictures: Pictures,
    layers: type,
) -> None:
    """Also at sizes that are halved with a rest, where zeros fill the missing row or column."""
    network = evaluated(name)
    background, composite = pictures(*size)
    order = [composite, background] if composite_first else [background, composite]
    rest = layers(network)
    stem = rest.conv_norm_relu(rest.conv_norm_relu(torch.cat(order, 1)))
    found = network(background, composite)
    for logits, poolings in zip(found[:2], (mask_poolings, depth_poolings), strict=True):
        if not poolings:
            assert logits is None
            continue
        torch.testing.assert_close(logits, restated_branch(rest, stem, poolings))
    assert rest.is_used_up()


def test_only_002_drops_values_and_does_so_behind_every_batchnorm() -> None:
    parts = list(MilesialUNet("002-dual-unet").modules())
    drops = [index for index, part in enumerate(parts) if isinstance(part, nn.Dropout)]
    norms = [index for index, part in enumerate(parts) if isinstance(part, nn.BatchNorm2d)]
    assert drops == [index + 1 for index in norms]
    assert {parts[index].p for index in drops} == {0.2}
    assert not any(isinstance(part, nn.Dropout) for part in MilesialUNet("000-both").modules())


def test_the_tasks_of_000_share_the_stem_and_nothing_else() -> None:
    network = MilesialUNet("000-both")
    assert sum(part.numel() for part in network.stem.parameters()) == 11_136
    images = torch.randn(2, 3, 32, 32)
    prediction = network(images, images)
    prediction.mask_logits.sum().backward()
    touched = {
        name.split(".")[0] for name, part in network.named_parameters() if part.grad is not None
    }
    assert touched == {"stem", "mask_branch"}
