"""System 004's networks (MODEST Museum Dataset): MaskNet3 and DepthMaskNet8.

Both look at background and composite through stems of their own. Shapes: N images, H x W pixels.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from models.prediction import Prediction
from models.reference.inputs import required


class MaskNet3(nn.Module):
    """The mask from 7 x 7 pixels around each: four convolutions at full resolution, any size."""

    def __init__(self) -> None:
        super().__init__()
        self.background_stem = _conv(3, 32)
        self.composite_stem = _conv(3, 32)
        self.mix = nn.Sequential(_conv(64, 64), _conv(64, 64))
        self.head = nn.Conv2d(64, 1, 1)

    def forward(self, background: Tensor | None, composite: Tensor) -> Prediction:
        """Predict the mask.

        Args:
            background: (N, 3, H, W).
            composite: (N, 3, H, W).

        Raises:
            ValueError: There is no background.
        """
        known = required(background, network="004-masknet3")
        stems = (self.background_stem(known), self.composite_stem(composite))
        return Prediction(self.head(self.mix(torch.cat(stems, dim=1))), None)


class DepthMaskNet8(nn.Module):
    """Mask and depth from one encoder; the mask's decoder feeds the depth's.

    H and W are multiples of 32. Levels are named by their resolution: `eighth` is 1/8.
    """

    def __init__(self) -> None:
        super().__init__()
        self.background_stem = nn.Sequential(_conv(3, 16), _conv(16, 16))
        self.composite_stem = nn.Sequential(_conv(3, 16), _conv(16, 16))
        self.background_down = Down(16, 16)
        self.composite_down = Down(16, 16)
        self.quarter_down = Down(32, 64)
        self.eighth_down = Down(64, 128)
        self.sixteenth_down = Down(128, 256)
        self.deepest_down = Down(256, 512)
        self.mask_up = nn.ModuleList([Up(256, 128), Up(128, 64), Up(64, 32), Up(32, 16)])
        self.mask_head = nn.Conv2d(16, 1, 1)
        self.depth_up = nn.ModuleList(
            [Up(512, 256), Up(256, 128), Up(128, 64), Up(64, 32), Up(32, 16)]
        )
        self.depth_head = nn.Conv2d(16, 1, 1)

    def forward(self, background: Tensor | None, composite: Tensor) -> Prediction:
        """Predict both maps.

        Args:
            background: (N, 3, H, W).
            composite: (N, 3, H, W).

        Raises:
            ValueError: There is no background.
        """
        known = required(background, network="004-depthmasknet8")
        full = self.composite_stem(composite)
        half = torch.cat(
            (self.background_down(self.background_stem(known)), self.composite_down(full)), dim=1
        )
        quarter = self.quarter_down(half)
        eighth = self.eighth_down(quarter)
        sixteenth = self.sixteenth_down(eighth)

        mask_eighth = self.mask_up[0](sixteenth, eighth)
        mask_quarter = self.mask_up[1](mask_eighth, quarter)
        mask_half = self.mask_up[2](mask_quarter, half)
        mask = self.mask_head(self.mask_up[3](mask_half, full))

        x = self.depth_up[0](self.deepest_down(sixteenth), sixteenth)
        x = self.depth_up[1](x, eighth) + mask_eighth
        x = self.depth_up[2](x, quarter) + mask_quarter
        x = self.depth_up[3](x, half) + half  # added a second time, as published
        depth = self.depth_head(self.depth_up[4](x, full))
        return Prediction(mask, depth)


class Down(nn.Module):
    """To half the resolution: pooled and convolved twice, beside a strided shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.path = nn.Sequential(nn.MaxPool2d(2), _conv(inputs, outputs), _conv(outputs, outputs))
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / 2, W / 2)."""
        return F.relu(self.path(x) + self.shortcut(x))


class Up(nn.Module):
    """To twice the resolution: narrowed, enlarged, added to the encoder's features, convolved."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(inputs, outputs, 1)
        self.mix = nn.Sequential(_conv(outputs, outputs), _conv(outputs, outputs))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(N, inputs, H / 2, W / 2) and a skip (N, outputs, H, W) to one like the skip."""
        x = F.interpolate(self.narrow(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        mixed: Tensor = self.mix(x + skip)
        return mixed


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
