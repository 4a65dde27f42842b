"""uint8 images to what the network reads: float32, channels-last, on the device they lie on.

The house rules for targets live here: the mask is (uint8 >= 128) after resizing, on every path,
and depth is value / 255 as stored. N images, H = W = the stage's size in pixels.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from shards.manifest import Manifest

MASK_THRESHOLD = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalisation:
    """(value / 255 - mean) / std per channel.

    Composite and background share one, so that their difference keeps its meaning.
    """

    mean: tuple[float, float, float]
    """RGB, of values in [0, 1]."""

    std: tuple[float, float, float]
    """RGB, of values in [0, 1]."""

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            msg = f"mean {self.mean} and std {self.std} must be three numbers each, std above 0"
            raise ValueError(msg)

    @classmethod
    def of_set(cls, manifest: Manifest) -> "Normalisation":
        """From a set's composites; a channel that never varies keeps its scale."""
        statistics = manifest.statistics["composite"]
        red, green, blue = statistics.mean
        std_red, std_green, std_blue = (std if std > 0 else 1.0 for std in statistics.std)
        return cls(mean=(red, green, blue), std=(std_red, std_green, std_blue))

    def images(self, pixels: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 RGB to (N, 3, H, W) float32, channels-last.

        Two kernels: a multiplication that also converts, and an addition in place; over whole rows,
        since a processor's vectors are longer than a pixel's three channels.
        """
        num, height, width, _ = pixels.shape
        scale, bias = self._constants(pixels.device, width)
        rows = torch.mul(pixels.reshape(num * height, width * 3), scale).add_(bias)
        return rows.view(num, height, width, 3).permute(0, 3, 1, 2)

    def planes(self, values: Tensor) -> Tensor:
        """(N, 3, H, W) float32 from 0 to 255, normalised; the same arithmetic."""
        scale, bias = self._constants(values.device)
        return torch.mul(values, scale.view(3, 1, 1)).add_(bias.view(3, 1, 1))

    def clamp_(self, images: Tensor) -> Tensor:
        """Bring normalised (N, 3, H, W) back into the range of colours, in place."""
        # by channel: plain numbers as bounds take a tenth of the time of tensors
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            images[:, channel].clamp_(-mean / std, (1 - mean) / std)
        return images

    def pixels(self, images: Tensor) -> Tensor:
        """The way back, for pictures: (N, 3, H, W) float to (N, H, W, 3) uint8."""
        scale, bias = self._constants(images.device)
        values = (images.permute(0, 2, 3, 1).float() - bias) / scale
        return values.round().clamp(0, 255).to(torch.uint8)

    def _constants(self, device: torch.device, repeats: int = 1) -> tuple[Tensor, Tensor]:
        return _on_device(self.mean, self.std, device, repeats)


@lru_cache(maxsize=64)
def _on_device(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, repeats: int
) -> tuple[Tensor, Tensor]:
    """Scale and bias of one fused step; kept, since a copy to the device would wait for it."""
    mean_, std_ = torch.tensor([mean, std], dtype=torch.float64).repeat(1, repeats)
    scale, bias = 1 / (255 * std_), -mean_ / std_
    return scale.to(device, torch.float32), bias.to(device, torch.float32)


def mask(pixels: Tensor) -> Tensor:
    """(N, H, W) uint8 to (N, 1, H, W) float32, 0 or 1."""
    return (pixels >= MASK_THRESHOLD).unsqueeze(1).float()


def depth(pixels: Tensor) -> Tensor:
    """(N, H, W) uint8 to (N, 1, H, W) float32 in [0, 1]."""
    return torch.div(pixels, 255).unsqueeze(1)
