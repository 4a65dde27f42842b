"""What is promised of every network of the registry alike."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.registry import DEPTH, MASK, NETWORKS, NetworkConfig, build_network

REFERENCE = [name for name in NETWORKS if name != "unet"]


def seeded(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network(NetworkConfig(name=name)).to(memory_format=torch.channels_last)


def images(num: int, size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(num, 3, size, size, generator=generator)
    return pixels.contiguous(memory_format=torch.channels_last)


def count(module: nn.Module) -> int:
    return sum(part.numel() for part in module.parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("000-mask", 4_321_473),
        ("000-depth", 4_367_937),
        ("000-both", 8_678_274),
        ("001-unet", 17_269_121),
        ("001-resnet18", 11_176_512 + 3_152_724),
        ("001-resnet18-6ch", 11_185_920 + 3_152_724),
        ("002-dual-unet", 2_161_666),
        ("003-tied", 2_963_300),
        ("003-untied", 4_753_252),
        ("004-masknet3", 76_097),
        ("004-depthmasknet8", 7_083_874),
    ],
)
def test_each_network_has_the_published_number_of_parameters(name: str, expected: int) -> None:
    assert count(seeded(name)) == expected


def test_every_reference_network_is_counted_above() -> None:
    assert len(REFERENCE) == 11


@pytest.mark.parametrize(
    ("name", "encoder"), [("001-resnet18", 11_176_512), ("001-resnet18-6ch", 11_185_920)]
)
def test_encoder_and_decoder_of_001_have_their_published_numbers(name: str, encoder: int) -> None:
    network = seeded(name)
    assert count(network.encoder) == encoder
    assert count(network.decoder) == 3_152_724


@pytest.mark.parametrize("size", [64, 96, 224])
@pytest.mark.parametrize("name", REFERENCE)
def test_a_bf16_channels_last_step_reaches_every_parameter(name: str, size: int) -> None:
    network, kind = seeded(name), NETWORKS[name]
    num = 1 if size == 224 else 2
    background = images(num, size, 1) if kind.needs_background else None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prediction = network(background, images(num, size, 2))
    assert [prediction.mask_logits is not None, prediction.depth_logits is not None] == [
        MASK in kind.tasks, DEPTH in kind.tasks,
    ]  # fmt: skip
    loss = torch.zeros(())
    for scale, (mask, depth, _) in zip(
        (1, *kind.scales), (prediction, *prediction.scales), strict=True
    ):
        side = size // scale
        for logits, channels in ((mask, 1), (depth, kind.depth_channels)):
            if logits is not None:
                assert logits.shape == (num, channels, side, side)
                target = torch.linspace(0, 1, side).expand(logits.shape)
                loss = loss + (logits.float().sigmoid() - target).square().mean()
    loss.backward()
    silenced = set()  # a BatchNorm takes away what a bias before it adds
    for sequence in network.modules():
        if isinstance(sequence, nn.Sequential):
            for first, second in zip(sequence, [*sequence][1:], strict=False):
                if isinstance(first, nn.Conv2d) and isinstance(second, _BatchNorm):
                    silenced.add(id(first.bias))
    for part_name, part in network.named_parameters():
        assert part.grad is not None, part_name
        assert part.grad.isfinite().all(), part_name
        assert id(part) in silenced or part.grad.abs().max() > 0, part_name


@pytest.mark.parametrize("name", REFERENCE)
def test_the_background_counts_where_it_is_an_input_and_nowhere_else(name: str) -> None:
    network, composite = seeded(name).eval(), images(1, 64, 1)
    with torch.no_grad():
        one, other = (network(images(1, 64, seed), composite) for seed in (2, 3))
        if NETWORKS[name].needs_background:
            with pytest.raises(ValueError, match=f"network '{name}' needs the composite's backg"):
                network(None, composite)
        else:
            one = network(None, composite)
    for first, second in zip(one[:2], other[:2], strict=True):
        if first is not None:
            assert torch.equal(first, second) != NETWORKS[name].needs_background


@pytest.mark.parametrize("name", REFERENCE)
def test_bf16_and_float32_agree_on_the_logits(name: str) -> None:
    network = seeded(name).eval()
    pair = images(2, 64, 1), images(2, 64, 2)
    with torch.inference_mode():
        exact = network(*pair)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            narrow = network(*pair)
    for one, other in zip(exact[:2], narrow[:2], strict=True):
        if one is not None:
            assert one.dtype == torch.float32
            spread = one.std() + 0.01
            assert (one - other.float()).abs().mean() < 0.1 * spread


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[pytest.mark.soak] * (name not in ("001-resnet18", "002-dual-unet"))
        )
        for name in REFERENCE
    ],
)
def test_each_network_is_one_graph_to_the_compiler(name: str) -> None:
    """No break for Python, and the same values in channels-last."""
    network = seeded(name).eval()
    pair = images(1, 64, 1), images(1, 64, 2)
    torch.compiler.reset()
    whole = torch.compile(network, fullgraph=True, dynamic=False, backend="eager")
    with torch.no_grad():
        for one, other in zip(whole(*pair)[:2], network(*pair)[:2], strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other)
