"""System 001's depth network: ResNet-18 and a decoder that predicts at four resolutions.

The decoder is Monodepth2's (Godard et al. 2019, arXiv:1806.01260): reflection padding, ELU, nearest
enlargement. As published it ends in a sigmoid; here the logits come out, and `Prediction.depth()`
or the loss applies it. Shapes: N images, H x W pixels, both multiples of 32 and at least 64
(a reflection needs two pixels, and the coarsest features have 1/32 of the side).
"""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from models.prediction import Prediction
from models.reference.inputs import COMPOSITE_ALONE, COMPOSITE_FIRST, joined
from models.reference.resnet18 import WIDTHS as ENCODER_WIDTHS
from models.reference.resnet18 import ResNet18

DECODER_WIDTHS = (16, 32, 64, 128, 256)
"""Channels at full, 1/2, 1/4, 1/8 and 1/16 of the resolution."""

NUM_SCALES = 4
IMAGE_MEAN, IMAGE_STD = 0.45, 0.225

INPUTS: dict[str, str] = {
    "001-resnet18": COMPOSITE_ALONE,
    "001-resnet18-6ch": COMPOSITE_FIRST,
}


class MultiScaleResNet(nn.Module):
    """Images to depth logits at the full, 1/2, 1/4 and 1/8 of their resolution.

    The encoder shifts what it is given by 0.45 and divides by 0.225, as the original does with
    images that were normalised before.

    Args:
        name: A key of `INPUTS`: 001's code looks at the composite alone, its text at both.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.encoder = ResNet18(3 if INPUTS[name] == COMPOSITE_ALONE else 6)
        self.decoder = MultiScaleDecoder()

    def forward(self, background: Tensor | None, composite: Tensor) -> Prediction:
        """Predict depth.

        Args:
            background: (N, 3, H, W); the 3-channel network does without.
            composite: (N, 3, H, W).

        Raises:
            ValueError: The network needs a background and there is none.
        """
        images = joined(background, composite, inputs=INPUTS[self.name], network=self.name)
        finest, *coarser = self.decoder(self.encoder((images - IMAGE_MEAN) / IMAGE_STD))
        return Prediction(None, finest, tuple(Prediction(None, depth) for depth in coarser))


class MultiScaleDecoder(nn.Module):
    """From features at 1/2 ... 1/32 of the resolution to one map of logits at each of four."""

    def __init__(self) -> None:
        super().__init__()
        below = (*DECODER_WIDTHS[1:], ENCODER_WIDTHS[-1])
        skips = (0, *ENCODER_WIDTHS[:-1])
        self.narrow = nn.ModuleList(
            ReflectConv(before, width) for before, width in zip(below, DECODER_WIDTHS, strict=True)
        )
        self.mix = nn.ModuleList(
            ReflectConv(width + skip, width)
            for width, skip in zip(DECODER_WIDTHS, skips, strict=True)
        )
        self.heads = nn.ModuleList(ReflectConv(width, 1) for width in DECODER_WIDTHS[:NUM_SCALES])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """The encoder's features, fine to coarse, to logits (N, 1, H / 2^i, W / 2^i), i = 0 to 3.

        Levels are counted as in the lists: 0 is the full resolution.
        """
        logits: list[Tensor] = []
        x = features[-1]
        for level in reversed(range(len(DECODER_WIDTHS))):
            x = F.elu(self.narrow[level](x))
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            if level > 0:
                x = torch.cat((x, features[level - 1]), dim=1)
            x = F.elu(self.mix[level](x))
            if level < NUM_SCALES:
                logits.insert(0, self.heads[level](x))
        return logits


class ReflectConv(nn.Module):
    """A 3 x 3 convolution with bias, behind a border of one mirrored pixel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        convolved: Tensor = self.conv(_mirrored(x))
        return convolved


def _mirrored(x: Tensor) -> Tensor:
    if not torch.are_deterministic_algorithms_enabled():
        return F.pad(x, (1, 1, 1, 1), mode="reflect")
    # the same, slower: on a GPU the gradient of torch's own has no deterministic kernel
    x = torch.cat((x[..., 1:2, :], x, x[..., -2:-1, :]), dim=-2)
    return torch.cat((x[..., 1:2], x, x[..., -2:-1]), dim=-1)
