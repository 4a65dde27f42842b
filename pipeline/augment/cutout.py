"""Holes: what is cut from composite, background and mask alike."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.augment.config import AugmentConfig
from pipeline.augment.draws import HOLES, Drawer, Stream


def draw_holes(config: AugmentConfig, drawer: Drawer, size: int) -> npt.NDArray[np.int64]:
    """(N, K, 4) top, bottom, left and right of up to K holes in pixels; empty where there is none.

    A hole is one pixel to `cutout_size` high and wide, and lies wholly within the frame.
    """
    largest = max(1, int(config.cutout_size * size))
    num = 1 + np.floor(drawer.between(0, config.cutout_holes, Stream.CUTOUT_NUM))
    num *= drawer.chosen(config.cutout, Stream.CUTOUT_CHANCE)
    edges = []
    for hole in range(config.cutout_holes):
        for axis in (0, 1):
            stream = HOLES + 4 * hole + 2 * axis
            length = 1 + np.floor(drawer.between(0, largest, stream))
            start = np.floor(drawer.between(0, 1, stream + 1) * (size - length + 1))
            edges += [start, start + length * (hole < num)]
    return np.stack(edges, axis=1).astype(np.int64).reshape(len(drawer), -1, 4)


def shown(holes_NK4: Tensor, size: int) -> Tensor:
    """(N, 1, S, S) float32: 0 in the holes, 1 elsewhere."""
    places = _places(size, holes_NK4.device)
    top, bottom, left, right = holes_NK4.unsqueeze(-1).unbind(2)
    rows = (places >= top) & (places < bottom)
    columns = (places >= left) & (places < right)
    hidden = (rows.unsqueeze(3) & columns.unsqueeze(2)).any(1, keepdim=True)
    return (~hidden).float()


@lru_cache(maxsize=64)
def _places(size: int, device: torch.device) -> Tensor:
    return torch.arange(size, device=device)
