"""The best and the worst predictions of a validation, as pictures.

One pass over the batches; of each sample four numbers are kept, and the pictures of those alone
that lead one of the lists. Shapes: N samples, S x S pixels.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.metrics.mask import overlap_union_iou
from models.predict import Maps, PixelPredictor, SetBatch, restore_pixels

Pixels = npt.NDArray[np.uint8]

DEPTH_ERROR_WHITE = 0.1
"""A depth error of this much, or more, has the brightest colour."""

_RIGHT, _TOO_MUCH, _MISSED, _NOTHING = (116, 116, 122), (240, 128, 32), (56, 128, 240), (22, 22, 26)
_HEAT = np.array([(12, 10, 30), (94, 24, 110), (200, 60, 72), (246, 150, 50), (252, 252, 190)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One sample with what was predicted."""

    name: str
    """Its key in the set."""

    mask_iou: float | None
    """At 0.5; None of a network without masks."""

    depth_rmse: float | None
    """None of a network without depth."""

    tiles: dict[str, Pixels]
    """(S, S, 3) pictures by what they show."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extremes:
    """What a validation ranks first and last."""

    lists: dict[str, list[Example]]
    """By title, such as "Worst masks"; of those the network predicts."""

    num_samples: int
    """How many were looked at."""

    size: int
    """S."""

    note: str = ""
    """What else the reader must know."""


@dataclass(slots=True)
class _Leaders:
    """The few samples with the largest values; an earlier sample wins a tie."""

    most: int
    heap: list[tuple[float, int, Example]] = field(default_factory=list)

    def offer(self, value: float, order: int, make: Callable[[], Example]) -> None:
        if len(self.heap) < self.most:
            heapq.heappush(self.heap, (value, -order, make()))
        elif (value, -order) > self.heap[0][:2]:
            heapq.heapreplace(self.heap, (value, -order, make()))

    def ranked(self) -> list[Example]:
        return [example for _, _, example in sorted(self.heap, key=lambda row: row[:2])[::-1]]


def find_extremes(
    predictor: PixelPredictor,
    batches: Iterable[SetBatch],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    name: Callable[[int], str] = "{:06d}".format,
    count: int = 4,
    note: str = "",
) -> Extremes:
    """Predict validation samples, and keep the best and the worst.

    Args:
        predictor: What predicts.
        batches: Normalised batches at the predictor's size.
        mean: What was subtracted from each RGB channel of the batches.
        std: What each channel was divided by after that.
        name: Names a sample by its number in the split.
        count: Samples in each list.
        note: What else the reader must know.
    """
    titles = ("Worst masks", "Best masks", "Worst depth", "Best depth")
    leaders = {title: _Leaders(count) for title in titles}
    seen = 0
    for batch in batches:
        scored = _score(predictor, batch, mean, std, name)
        for row, weight in enumerate(batch.weight.tolist()):
            if weight <= 0:
                continue
            make = partial(scored.example, row)
            if scored.ious is not None:
                leaders["Worst masks"].offer(-float(scored.ious[row]), seen, make)
                leaders["Best masks"].offer(float(scored.ious[row]), seen, make)
            if scored.errors is not None:
                leaders["Worst depth"].offer(float(scored.errors[row]), seen, make)
                leaders["Best depth"].offer(-float(scored.errors[row]), seen, make)
            seen += 1
    return Extremes(
        lists={title: found for title in titles if (found := leaders[title].ranked())},
        num_samples=seen,
        size=predictor.size,
        note=note,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scored:
    """A batch with its predictions, on the CPU."""

    names: list[str]
    background: Tensor | None
    composite: Tensor
    mask: Tensor
    depth: Tensor
    maps: Maps
    ious: Tensor | None
    errors: Tensor | None

    def example(self, row: int) -> Example:
        return Example(
            name=self.names[row],
            mask_iou=None if self.ious is None else float(self.ious[row]),
            depth_rmse=None if self.errors is None else float(self.errors[row]),
            tiles=self._tiles(row),
        )

    def _tiles(self, row: int) -> dict[str, Pixels]:
        found: dict[str, Pixels] = {}
        if self.background is not None:
            found["background"] = _colour(self.background[row])
        found["composite"] = _colour(self.composite[row])
        if (mask := self.maps.mask) is not None:
            found["mask"] = _grey(self.mask[row])
            found["predicted mask"] = _grey(mask[row])
            found["mask error"] = _mask_error(mask[row, 0] > 0.5, self.mask[row, 0] >= 0.5)
        if (depth := self.maps.depth) is not None:
            found["depth"] = _grey(self.depth[row])
            found["predicted depth"] = _grey(depth[row])
            found["depth error"] = _heat((depth[row, 0] - self.depth[row, 0]).abs())
        return found


def _score(
    predictor: PixelPredictor,
    batch: SetBatch,
    mean: Sequence[float],
    std: Sequence[float],
    name: Callable[[int], str],
) -> _Scored:
    background, composite = (
        None if images is None else restore_pixels(images, mean, std).cpu()
        for images in (batch.background, batch.composite)
    )
    assert composite is not None
    maps = predictor.from_pixels(background, composite)
    mask, depth = batch.mask.float().cpu(), batch.depth.float().cpu()
    return _Scored(
        names=[name(number) for number in batch.number.tolist()],
        background=background,
        composite=composite,
        mask=mask,
        depth=depth,
        maps=maps,
        ious=None if maps.mask is None else overlap_union_iou(maps.mask > 0.5, mask >= 0.5)[2],
        errors=None if maps.depth is None else (maps.depth - depth).square().mean((1, 2, 3)).sqrt(),
    )


def _colour(pixels_3SS: Tensor) -> Pixels:
    return pixels_3SS.permute(1, 2, 0).contiguous().numpy()


def _grey(values_1SS: Tensor) -> Pixels:
    levels = values_1SS.clamp(0, 1).mul(255).round().to(torch.uint8)
    return levels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()


def _mask_error(predicted_SS: Tensor, truth_SS: Tensor) -> Pixels:
    kinds = np.array([_NOTHING, _TOO_MUCH, _MISSED, _RIGHT], dtype=np.uint8)
    return kinds[(predicted_SS.int() + 2 * truth_SS.int()).numpy()]


def _heat(error_SS: Tensor) -> Pixels:
    place = (error_SS / DEPTH_ERROR_WHITE).clamp(0, 1).numpy() * (len(_HEAT) - 1)
    steps = np.arange(len(_HEAT))
    channels = [np.interp(place, steps, _HEAT[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
