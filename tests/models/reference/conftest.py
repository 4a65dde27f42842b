"""What the restatements share: random weights, images, and weights in the order of their layers."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from models.registry import NetworkConfig, build_network


class Layers:
    """The convolutions and BatchNorms of a module, handed out in the order it registers them."""

    def __init__(self, module: nn.Module) -> None:
        parts = list(module.modules())
        self.convolutions = iter([part for part in parts if isinstance(part, nn.Conv2d)])
        self.norms = iter([part for part in parts if isinstance(part, nn.BatchNorm2d)])

    def conv(self, x: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
        """The next convolution; zeros around the image keep its size unless told otherwise."""
        part = next(self.convolutions)
        border = part.weight.shape[2] // 2 if padding is None else padding
        return F.conv2d(x, part.weight, part.bias, stride=stride, padding=border)

    def norm(self, x: Tensor) -> Tensor:
        """The next BatchNorm, as it evaluates."""
        part = next(self.norms)
        shape = (1, -1, 1, 1)
        mean, variance = part.running_mean.view(shape), part.running_var.view(shape)
        scaled = (x - mean) / (variance + 1e-5).sqrt()
        return scaled * part.weight.view(shape) + part.bias.view(shape)

    def conv_norm_relu(self, x: Tensor, stride: int = 1) -> Tensor:
        """The next of both, and what is positive of the outcome."""
        return self.norm(self.conv(x, stride)).clamp(min=0)

    def is_used_up(self) -> bool:
        """Whether every layer had its turn."""
        return next(self.convolutions, None) is None and next(self.norms, None) is None


@pytest.fixture
def layers() -> type[Layers]:
    return Layers


@pytest.fixture
def evaluated() -> Callable[[str], nn.Module]:
    """Builds a network by name: float64, in evaluation, every weight and statistic random."""

    def build(name: str) -> nn.Module:
        torch.manual_seed(0)
        network = build_network(NetworkConfig(name=name)).double().eval()
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                for values, low, high in (
                    (part.weight, 0.5, 1.5),
                    (part.bias, -0.5, 0.5),
                    (part.running_mean, -0.5, 0.5),
                    (part.running_var, 0.5, 1.5),
                ):
                    nn.init.uniform_(values, low, high)
        return network

    return build


@pytest.fixture
def pictures() -> Callable[[int, int], tuple[Tensor, Tensor]]:
    """Makes a background and a composite, (2, 3, H, W) float64 each."""

    def make(height: int, width: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(1)
        both = torch.randn(2, 2, 3, height, width, generator=generator, dtype=torch.float64)
        return both[0], both[1]

    return make


@pytest.fixture(autouse=True)
def _no_gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    """Restatements compare values alone."""
    with torch.set_grad_enabled("evaluated" not in request.fixturenames):
        yield
