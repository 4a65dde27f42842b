"""The house network: a U-Net with one encoder and a light decoder for each task.

In come a background and a composite, normalised alike so that their difference means something;
out come mask and depth logits of the same size. What is particular about it:

* Each pixel carries 11 values: the composite, its difference from the background, how large that
  is, its row and its column. The row tells the depth of a scene and of what stands in it.
* The mask begins as what costs nothing, the thresholded difference, and learns what to add to it;
  both heads begin near zero. With the sizes of the differences this took mask IoU from 0.907 to
  0.926 and depth RMSE from 0.018 to 0.012 after 6,000 samples of 64 px (docs/log.md).
* Six levels, so that the deepest sees the whole of a 96 px frame, and the foot of an object (the
  row that gives its depth) reaches its head.
* The stem and the mask's decoder work at full resolution. Networks of this kind with 2 x 2 pixels
  folded into channels took two thirds of the time a step, but lost 0.03 mask IoU on unseen objects
  (0.908 against 0.936 after 24,000 samples of 96 px). The depth's decoder ends at half the
  resolution and unfolds 2 x 2 outputs from each pixel (Shi et al. 2016, arXiv:1609.05158).
* The decoders add the encoder's features instead of concatenating them (Chaurasia and Culurciello
  2017, LinkNet, arXiv:1707.03718), and enlarge by nearest neighbour before a convolution, which
  leaves no chequerboard.
* Channels are multiples of 16 and BatchNorm follows each convolution: the shapes that tensor cores
  and the CPU's bf16 units want. Shapes are static for a given input.

Shapes: N images, H x W pixels, both multiples of 32; channels-last throughout.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from models.prediction import Prediction

WIDTHS: dict[str, tuple[int, ...]] = {
    "s": (16, 32, 64, 96, 128, 128),
    "m": (32, 64, 128, 192, 256, 256),
    "l": (64, 128, 256, 384, 512, 512),
}
"""Channels at full, 1/2, 1/4, ... 1/32 of the resolution."""

SIZE_MULTIPLE = 32
PIXEL_VALUES = 11
DEPTH_UNFOLD = 2

_DIFFERENCE_SLOPE = 4.0
"""Of the mask's logit, per standard deviation that the composite differs from the background."""
_EVEN_ODDS = 1.0
"""The difference, in standard deviations, at which an untrained network is undecided."""
_HEAD_DEVIATION = 1e-3


class UNet(nn.Module):
    """Background and composite to mask and depth logits.

    Args:
        width: A key of `WIDTHS`.
    """

    def __init__(self, width: str) -> None:
        super().__init__()
        channels = WIDTHS[width]
        self.stem = nn.Sequential(_conv(PIXEL_VALUES, channels[0]), _conv(channels[0], channels[0]))
        self.encoder = nn.ModuleList(
            nn.Sequential(_conv(finer, coarser, stride=2), _conv(coarser, coarser))
            for finer, coarser in pairwise(channels)
        )
        self.mask_decoder = Decoder(channels)
        self.mask_head = _head(channels[0], 1, bias=-_DIFFERENCE_SLOPE * _EVEN_ODDS)
        self.mask_slope = nn.Parameter(torch.tensor(_DIFFERENCE_SLOPE))
        self.depth_decoder = Decoder(channels[1:])
        self.depth_head = _head(channels[1], DEPTH_UNFOLD**2, bias=0.0)

    def forward(self, background: Tensor | None, composite: Tensor) -> Prediction:
        """Predict both maps.

        Args:
            background: (N, 3, H, W), normalised by the composite's mean and deviation.
            composite: (N, 3, H, W), the same way.

        Raises:
            ValueError: There is no background.
        """
        if background is None:
            msg = "network 'unet' compares the composite with its background, and there is none"
            raise ValueError(msg)
        difference = composite - background
        magnitude = difference.abs()
        features = [self.stem(_pixel_values(composite, difference, magnitude))]
        for level in self.encoder:
            features.append(level(features[-1]))
        mask = self.mask_head(self.mask_decoder(features))
        mask = mask + self.mask_slope * magnitude.amax(dim=1, keepdim=True)
        depth = self.depth_head(self.depth_decoder(features[1:]))
        return Prediction(mask, F.pixel_shuffle(depth, DEPTH_UNFOLD))


class Decoder(nn.Module):
    """From the encoder's features of all levels to one map at the finest of them."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        upwards = list(pairwise(channels))[::-1]
        self.narrow = nn.ModuleList(
            nn.Sequential(nn.Conv2d(coarser, finer, 1, bias=False), nn.BatchNorm2d(finer))
            for finer, coarser in upwards
        )
        self.mix = nn.ModuleList(_conv(finer, finer) for finer, _ in upwards)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Features (N, channels[i], H / 2^i, W / 2^i), fine to coarse, to one like the first."""
        x = features[-1]
        for narrow, mix, skip in zip(self.narrow, self.mix, features[-2::-1], strict=True):
            x = mix(F.relu(skip + F.interpolate(narrow(x), scale_factor=2.0, mode="nearest")))
        return x


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _head(inputs: int, outputs: int, *, bias: float) -> nn.Conv2d:
    head = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.normal_(head.weight, std=_HEAD_DEVIATION)
    assert head.bias is not None
    nn.init.constant_(head.bias, bias)
    return head


def _pixel_values(*images: Tensor) -> Tensor:
    """(N, 11, H, W): the images, (N, 3, H, W) each, and row and column from -1 to 1."""
    like = images[0]
    num_images, _, height, width = like.shape
    rows = torch.linspace(-1, 1, height, dtype=like.dtype, device=like.device)
    columns = torch.linspace(-1, 1, width, dtype=like.dtype, device=like.device)
    values = torch.cat(
        (
            *images,
            rows.view(1, 1, -1, 1).expand(num_images, 1, height, width),
            columns.view(1, 1, 1, -1).expand(num_images, 1, height, width),
        ),
        dim=1,
    )
    return values.contiguous(memory_format=torch.channels_last)
