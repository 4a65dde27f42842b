"""System 003's network: the composite alone to mask and 3-channel depth, a U-Net of its own.

As committed, centre and decoder run twice with the same weights, once for each task: both tasks see
the same features and differ in the last 1 x 1 convolution only. "Tied" is that network. The second
run has the same input and weights and so the same output (in training it moves BatchNorm's running
statistics a second time by the same batch); here it runs once. The system's listing counts the
weights of both runs, 4,753,252; there are 2,963,300. "Untied" has a centre and a decoder for each
task: as many weights as the listing says.

The 3-channel depth head was made for colour-mapped depth: each channel is trained on the same grey
here, and `Prediction.depth()` averages them. Shapes: N images, H x W pixels, any of at least 16.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from models.prediction import Prediction

WIDTHS = (32, 64, 128, 256)
"""Channels at full, 1/2, 1/4 and 1/8 of the resolution."""

CENTRE_WIDTH = 256
DEPTH_CHANNELS = 3


class CustomNet(nn.Module):
    """Composite to mask and depth logits.

    Args:
        tied: One centre and decoder for both tasks, or one for each.
    """

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            nn.Sequential(_conv(before, width), _conv(width, width))
            for before, width in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.decoder = Decoder()
        self.depth_decoder = None if tied else Decoder()
        self.mask_head = nn.Conv2d(WIDTHS[0], 1, 1)
        self.depth_head = nn.Conv2d(WIDTHS[0], DEPTH_CHANNELS, 1)

    def forward(self, background: Tensor | None, composite: Tensor) -> Prediction:
        """Predict both maps.

        Args:
            background: Ignored.
            composite: (N, 3, H, W).
        """
        skips: list[Tensor] = []
        x = composite
        for level in self.encoder:
            skips.append(level(x))
            x = self.pool(skips[-1])
        features = self.decoder(x, skips)
        for_depth = features if self.depth_decoder is None else self.depth_decoder(x, skips)
        return Prediction(self.mask_head(features), self.depth_head(for_depth))


class Decoder(nn.Module):
    """The centre and the way up from it."""

    def __init__(self) -> None:
        super().__init__()
        self.centre = _conv(WIDTHS[-1], CENTRE_WIDTH)
        below = (CENTRE_WIDTH, WIDTHS[2], WIDTHS[1], WIDTHS[0])
        outputs = (WIDTHS[2], WIDTHS[1], WIDTHS[0], WIDTHS[0])
        self.up = nn.ModuleList(
            nn.Sequential(_conv(before + skip, after), _conv(after, after), _conv(after, after))
            for before, skip, after in zip(below, reversed(WIDTHS), outputs, strict=True)
        )

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """(N, 256, H / 16, W / 16) and the encoder's features, fine to coarse, to (N, 32, H, W)."""
        x = self.centre(x)
        for level, skip in zip(self.up, reversed(skips), strict=True):
            size = (skip.shape[2], skip.shape[3])
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            x = level(torch.cat((x, skip), dim=1))
        return x


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
