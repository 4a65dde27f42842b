"""The U-Nets of systems 000, 001 and 002: one family, after milesial's bilinear U-Net.

Ronneberger et al. 2015 (arXiv:1505.04597) with padded convolutions, BatchNorm, and bilinear
enlargement (corners aligned) in place of transposed convolutions. Background and composite are
concatenated at the entrance. A stem at full resolution is followed by one branch per task, encoder
and decoder; the tasks share the stem and nothing else. 1 x 1 heads give raw logits.

Any size goes: an enlarged map that is a pixel short of the encoder's (an odd side was halved) is
padded with zeros. Shapes: N images, H x W pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from models.prediction import Prediction
from models.reference.inputs import BACKGROUND_FIRST, COMPOSITE_FIRST, joined


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The widths of one network."""

    stem: int
    """Channels at full resolution."""

    mask: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    """The mask's branch: channels after each pooling, and after each enlargement."""

    depth: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    """The depth's branch."""

    inputs: str = BACKGROUND_FIRST
    """The order of the images' channels."""

    dropout: float = 0.0
    """Probability of dropping a value after each BatchNorm; 0: there is no such layer."""


_MASK_000 = ((64, 128, 256, 256), (128, 64, 32, 32))
_DEPTH_000 = ((32, 64, 128, 256, 256), (128, 64, 32, 32, 32))
_BOTH_002 = ((32, 64, 128, 128), (64, 32, 16, 16))

SHAPES: dict[str, Shape] = {
    "000-mask": Shape(stem=32, mask=_MASK_000),
    "000-depth": Shape(stem=32, depth=_DEPTH_000),
    "000-both": Shape(stem=32, mask=_MASK_000, depth=_DEPTH_000),
    "001-unet": Shape(
        stem=64,
        mask=((128, 256, 512, 512), (256, 128, 64, 64)),
        inputs=COMPOSITE_FIRST,
    ),
    "002-dual-unet": Shape(stem=16, mask=_BOTH_002, depth=_BOTH_002, dropout=0.2),
}


class MilesialUNet(nn.Module):
    """Background and composite to the logits of the tasks that its shape has.

    Args:
        name: A key of `SHAPES`.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.shape = SHAPES[name]
        stem, dropout = self.shape.stem, self.shape.dropout
        self.stem = pair(6, stem, stem, dropout)
        mask, depth = self.shape.mask, self.shape.depth
        self.mask_branch = None if mask is None else Branch(stem, *mask, dropout)
        self.depth_branch = None if depth is None else Branch(stem, *depth, dropout)

    def forward(self, background: Tensor | None, composite: Tensor) -> Prediction:
        """Predict.

        Args:
            background: (N, 3, H, W).
            composite: (N, 3, H, W).

        Raises:
            ValueError: There is no background.
        """
        images = joined(background, composite, inputs=self.shape.inputs, network=self.name)
        stem = self.stem(images)
        return Prediction(
            None if self.mask_branch is None else self.mask_branch(stem),
            None if self.depth_branch is None else self.depth_branch(stem),
        )


class Branch(nn.Module):
    """One task: from the stem's features down, up again, and to one map of logits.

    Args:
        stem: Channels at full resolution.
        down: Channels after each pooling.
        up: Channels after each enlargement, as many.
        dropout: See `Shape`.
    """

    def __init__(
        self, stem: int, down: tuple[int, ...], up: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__()
        finer = (stem, *down[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), pair(above, width, width, dropout))
            for above, width in zip(finer, down, strict=True)
        )
        coarser = (down[-1], *up[:-1])
        joins = [skip + below for skip, below in zip(reversed(finer), coarser, strict=True)]
        self.up = nn.ModuleList(
            pair(join, join // 2, width, dropout) for join, width in zip(joins, up, strict=True)
        )
        self.head = nn.Conv2d(up[-1], 1, 1)

    def forward(self, stem: Tensor) -> Tensor:
        """The stem's features (N, C, H, W) to logits (N, 1, H, W)."""
        features = [stem]
        for level in self.down:
            features.append(level(features[-1]))
        x = features.pop()
        for level, skip in zip(self.up, reversed(features), strict=True):
            x = level(torch.cat((skip, _enlarged(x, skip)), dim=1))
        logits: Tensor = self.head(x)
        return logits


def pair(inputs: int, middle: int, outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """Two 3 x 3 convolutions, each with bias, BatchNorm, dropout if any, and ReLU."""
    layers: list[nn.Module] = []
    for before, after in ((inputs, middle), (middle, outputs)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _enlarged(x: Tensor, skip: Tensor) -> Tensor:
    """Twice the size, then zeros around it up to the size of `skip`."""
    x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
    rows, columns = (skip.shape[axis] - x.shape[axis] for axis in (2, 3))
    if rows == columns == 0:
        return x
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
