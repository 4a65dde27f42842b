"""uint8 images to what the network reads: float32, channels-last, on the device they lie on.

The house rules for targets live here: the mask is (uint8 >= 128) after resizing, on every path,
and depth is value / 255 as stored. N images, H = W = the stage's size in pixels.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from shards.manifest import Manifest

_MASK_BIT = 7
MASK_THRESHOLD = 1 << _MASK_BIT


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

    def images(self, pixels: Tensor, into: Tensor | None = None) -> Tensor:
        """(N, H, W, 3) uint8 RGB to (N, 3, H, W) float32, channels-last.

        Over whole rows, since a processor's vectors are longer than a pixel's three channels.

        Args:
            pixels: The images.
            into: Memory for the result, of its type, shape and order.
        """
        into = _room_for(pixels, 3) if into is None else into
        scale, bias = self._constants(pixels.device, pixels.shape[2])
        rows, found = pixels.flatten(2), into.permute(0, 2, 3, 1).view(*pixels.shape[:2], -1)
        if pixels.device.type == "cpu":
            # a product of two types would first be converted as a whole, into memory of its own
            found.copy_(rows).mul_(scale).add_(bias)
        else:
            torch.mul(rows, scale, out=found).add_(bias)
        return into

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


def mask(pixels: Tensor, into: Tensor | None = None) -> Tensor:
    """(N, H, W) uint8 to (N, 1, H, W) float32, 0 or 1; `into` as in `Normalisation.images`."""
    into = _room_for(pixels, 1) if into is None else into
    into.squeeze(1).copy_(pixels >> _MASK_BIT)  # a comparison's bool takes longer to convert
    return into


def depth(pixels: Tensor, into: Tensor | None = None) -> Tensor:
    """(N, H, W) uint8 to (N, 1, H, W) float32 in [0, 1]; `into` as in `Normalisation.images`."""
    into = _room_for(pixels, 1) if into is None else into
    torch.div(pixels, 255, out=into.squeeze(1))
    return into


def _room_for(pixels: Tensor, channels: int) -> Tensor:
    shape = (*pixels.shape[:3], channels)
    return torch.empty(shape, device=pixels.device).permute(0, 3, 1, 2)
