"""Losses of the two tasks: a `Prediction` and its targets in, three scalars out.

Each task's loss is a sum of terms written as an expression, "0.85 ssim + 0.15 l1". A term maps
logits and a target in [0, 1] to one value per image, so that a sample's weight scales its whole
contribution, and samples of weight 0 (padding, replaced bad samples) contribute nothing.

Shapes: N images of H x W pixels, C channels. All terms are computed in float32 (float64 stays).
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from pytorch_msssim.ssim import _ssim
from torch import Tensor

from models.prediction import Prediction

SSIM_WINDOW_PX = 11
SSIM_SIGMA_PX = 1.5


def bce(logits_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """Binary cross-entropy, mean over pixels (Ronneberger et al. 2015, arXiv:1505.04597)."""
    loss = F.binary_cross_entropy_with_logits(logits_NCHW, target_NCHW, reduction="none")
    return loss.flatten(1).mean(1)


def dice(logits_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """Soft Dice loss per image (Milletari et al. 2016, V-Net, arXiv:1606.04797).

    The denominator sums values, not squares, and one pixel is added to both sides, so that an
    empty mask predicted empty costs nothing and still has a gradient.
    """
    probability = logits_NCHW.sigmoid().flatten(1)
    target = target_NCHW.flatten(1)
    overlap = (probability * target).sum(1)
    return 1 - (2 * overlap + 1) / (probability.sum(1) + target.sum(1) + 1)


def l1(logits_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """Mean absolute error after the sigmoid (Zhao et al. 2017, arXiv:1511.08861)."""
    return (logits_NCHW.sigmoid() - target_NCHW).abs().flatten(1).mean(1)


def ssim(logits_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """1 - SSIM after the sigmoid (Wang et al. 2004, doi:10.1109/TIP.2003.819861).

    Gaussian window of 11 px (sigma 1.5), data range 1. The images go in as channels of a single
    one: as a batch of one-channel images the same convolutions take 19 times as long on a CPU
    (207 against 11 ms forward and backward, 64 images of 96 px, one core), a third of a whole
    training step. The library's public function would average over channels, hence `_ssim`.

    Raises:
        ValueError: The images are smaller than the window.
    """
    _check_ssim_size(min(logits_NCHW.shape[-2:]))
    num_images, num_channels = logits_NCHW.shape[:2]
    # made on the device: a copy from the host would wait for it at every step
    offsets = torch.arange(SSIM_WINDOW_PX, device=logits_NCHW.device) - SSIM_WINDOW_PX // 2
    window = torch.softmax(-offsets.to(logits_NCHW.dtype).square() / (2 * SSIM_SIGMA_PX**2), 0)
    similarity, _ = _ssim(
        logits_NCHW.sigmoid().flatten(0, 1)[None],
        target_NCHW.flatten(0, 1)[None],
        data_range=1.0,
        win=window.expand(num_images * num_channels, 1, 1, SSIM_WINDOW_PX),
    )
    return 1 - similarity.view(num_images, num_channels).mean(1)


Term = Callable[[Tensor, Tensor], Tensor]
"""(logits (N, C, H, W), target in [0, 1] of the same shape) -> (N,) losses."""

TERMS: dict[str, Term] = {"bce": bce, "dice": dice, "l1": l1, "ssim": ssim}

_WEIGHTED_TERM = re.compile(r"(?:(?P<weight>\d+\.?\d*|\.\d+)\s*\*?\s*)?(?P<name>[a-z]\w*)")


def parse_loss(expression: str) -> tuple[tuple[float, str], ...]:
    """Read "0.85 ssim + 0.15 l1" as ((0.85, "ssim"), (0.15, "l1")).

    Raises:
        ValueError: The expression is no sum of weighted terms, or names an unknown or repeated one.
    """
    terms = []
    for part in expression.split("+"):
        match = _WEIGHTED_TERM.fullmatch(part.strip())
        if match is None:
            msg = (
                f"loss {expression!r} is no sum of weighted terms such as "
                f'"0.85 ssim + 0.15 l1": cannot read {part.strip()!r}'
            )
            raise ValueError(msg)
        name = match["name"]
        if name not in TERMS:
            msg = f"loss {expression!r} has an unknown term {name!r}; known: {', '.join(TERMS)}"
            raise ValueError(msg)
        terms.append((float(match["weight"] or 1), name))
    names = [name for _, name in terms]
    if len(set(names)) < len(names):
        msg = f"loss {expression!r} names a term twice; give it one weight"
        raise ValueError(msg)
    return tuple(terms)


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """What is minimised: mask_weight * mask loss + depth_weight * depth loss."""

    mask: str = "bce + dice"
    """Sum of optionally weighted terms for the mask."""

    depth: str = "l1 + ssim"
    """Sum of optionally weighted terms for the depth."""

    mask_weight: float = 1.0
    """Factor of the mask's loss in the total, not negative."""

    depth_weight: float = 1.0
    """Factor of the depth's loss in the total, not negative."""

    def __post_init__(self) -> None:
        """Check the expressions and the weights."""
        parse_loss(self.mask)
        parse_loss(self.depth)
        for name, weight in (
            ("mask_weight", self.mask_weight),
            ("depth_weight", self.depth_weight),
        ):
            if not (math.isfinite(weight) and weight >= 0):
                msg = f"{name} is {weight}; a task's weight is a number from 0 up"
                raise ValueError(msg)
        if self.mask_weight == self.depth_weight == 0:
            msg = "mask_weight and depth_weight are both 0; nothing would be learned"
            raise ValueError(msg)

    def check_size(self, size: int) -> None:
        """Check that every term can be computed on images of `size` pixels a side.

        Raises:
            ValueError: A term's window is larger than the image; names the largest that fits.
        """
        if any(name == "ssim" for _, name in parse_loss(self.mask) + parse_loss(self.depth)):
            _check_ssim_size(size)


class Losses(NamedTuple):
    """Scalars, means over the samples' weights; a task the network lacks is 0."""

    total: Tensor
    mask: Tensor
    depth: Tensor


class TaskLoss:
    """Turns a prediction and its targets into `Losses`."""

    def __init__(self, config: LossConfig) -> None:
        self.config = config
        self._mask_terms = parse_loss(config.mask)
        self._depth_terms = parse_loss(config.depth)

    def __call__(
        self, prediction: Prediction, mask: Tensor, depth: Tensor, weight: Tensor
    ) -> Losses:
        """Compute the losses in float32, also under autocast.

        Args:
            prediction: Logits (N, 1, H, W), of any floating type.
            mask: (N, 1, H, W) targets in [0, 1].
            depth: (N, 1, H, W) targets in [0, 1].
            weight: (N,) weights of the samples, not negative.

        Raises:
            ValueError: The images are too small for a term.
        """
        with torch.autocast(mask.device.type, enabled=False):
            mask_loss = _task_loss(self._mask_terms, prediction.mask_logits, mask, weight)
            depth_loss = _task_loss(self._depth_terms, prediction.depth_logits, depth, weight)
            total = self.config.mask_weight * mask_loss + self.config.depth_weight * depth_loss
        return Losses(total, mask_loss, depth_loss)


def _task_loss(
    terms: tuple[tuple[float, str], ...], logits: Tensor | None, target: Tensor, weight: Tensor
) -> Tensor:
    if logits is None:
        return target.new_zeros(())
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    per_image = sum(factor * TERMS[name](logits, target.to(logits.dtype)) for factor, name in terms)
    assert isinstance(per_image, Tensor)
    weight = weight.to(per_image.dtype)
    # a batch of nothing but weight 0 costs 0, not 0 / 0
    return (per_image * weight).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)


def _check_ssim_size(size: int) -> None:
    if size < SSIM_WINDOW_PX:
        largest = size - 1 + size % 2  # windows are odd
        msg = (
            f"the term ssim has a window of {SSIM_WINDOW_PX} px, but the images have {size} px; "
            f"the largest window that fits is {largest} px: use larger images or another term"
        )
        raise ValueError(msg)
