"""ResNet-18 without its classifier, from scratch: images to features at five resolutions.

He et al. 2015 (arXiv:1512.03385), weights drawn as the paper's own are (normal, by fan-out).
Shapes: N images, H x W pixels.
"""

from itertools import pairwise

from torch import Tensor, nn

WIDTHS = (64, 64, 128, 256, 512)
"""Channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution."""


class ResNet18(nn.Module):
    """The encoder.

    Args:
        inputs: Channels of the images: 3, or 6 for two of them.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(inputs, WIDTHS[0], 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(
                BasicBlock(before, after, stride=1 if before == after else 2),
                BasicBlock(after, after, stride=1),
            )
            for before, after in pairwise(WIDTHS)
        )
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) to (N, WIDTHS[i], H / 2^(i + 1), W / 2^(i + 1)), halves rounded up."""
        features = [self.stem(images)]
        x = self.pool(features[0])
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, added and rectified."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if stride > 1
            else nn.Identity()
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        rectified: Tensor = self.relu(self.path(x) + self.shortcut(x))
        return rectified
