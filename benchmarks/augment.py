"""What does augmentation cost, operation by operation and preset by preset?

    maskdepth bench augment [--quick] [--json FILE]

Method: the loader's last hop alone (uint8 pixels that lie on the device, with their backgrounds, to
a normalised float32 batch), on the GPU if there is one, at 64, 96 and 224 px. The ceiling, first in
each table, is the hop without augmentation: 5 bytes of composite, mask and depth and 3 of
background are read for each pixel, and 32 written. Then each operation alone, meeting every sample,
and the presets, where operations meet the samples they are drawn for. All take turns in one
process. On a processor three passes over memory that goes round bound the ceiling; a warp is
bounded by `grid_sample`, blur and noise by their passes over memory.
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Row, print_rows, report, result, take_turns
from pipeline.augment import read_augment
from pipeline.augment.augmenter import Pixels
from pipeline.finish import Finisher
from pipeline.normalise import Normalisation

SIZES = (64, 96, 224)
CEILING = "ceiling: normalisation alone"
OPERATIONS = {
    "flips, both ways": "flip,flip_vertical=0.5",
    "warp: flip, turn, scale, move": "flip,rotation=30,scale_min=0.8,scale_max=1.5,translate=0.1",
    "colour: all five at once": (
        "none,brightness=0.2,contrast=0.2,saturation=0.2,hue=0.1,shift=0.1"
    ),
    "HSV": "none,hsv_hue=0.1,hsv_saturation=0.1,hsv_value=0.1",
    "blur, up to 1 px": "none,blur=1",
    "noise": "none,noise=0.1",
    "cutout, 2 holes": "none,cutout=1,cutout_holes=2",
}
PRESETS = ("flip", "001", "003", "004", "strong")
_PIXELS = 1 << 22  # of a batch, at most: 83 samples at 224 px
_NORMALISATION = Normalisation(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def run(*, quick: bool, json_path: Path | None) -> None:
    """Measure and print."""
    turns, seconds = (3, 0.15) if quick else (7, 0.5)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tables: dict[str, list[Row]] = {}
    for size in SIZES:
        batch = min(256, _PIXELS // size**2)
        texts = {CEILING: "none", **OPERATIONS, **{f"preset {name}": name for name in PRESETS}}
        contenders = {
            name: _finishing(text, size, batch, device, seconds) for name, text in texts.items()
        }
        title = f"{size} px, batches of {batch}, {device.type}"
        tables[title] = take_turns(contenders, turns)
        print_rows(title, "samples/s", tables[title], tables[title][0])
    settings = {"device": device.type, "turns": turns, "seconds": seconds, "quick": quick,
                "operations": OPERATIONS}  # fmt: skip
    report(result("augment", settings, tables, "samples/s"), json_path)


def _finishing(
    text: str, size: int, batch: int, device: torch.device, seconds: float
) -> Callable[[], float]:
    """Finish batch after batch, for so long."""
    finisher = Finisher(_NORMALISATION, read_augment(text), seed=0, device=device)
    pixels = _pixels(size, batch, device)
    epochs = itertools.count()

    def once() -> float:
        numbers, done, began = np.arange(batch), 0, time.perf_counter()
        while time.perf_counter() - began < seconds or not done:
            finisher.planes(pixels, numbers, np.full(batch, next(epochs)))
            done += batch
        if device.type == "cuda":
            torch.cuda.synchronize()
        return done / (time.perf_counter() - began)

    return once


def _pixels(size: int, batch: int, device: torch.device) -> Pixels:
    def some(*shape: int) -> Tensor:
        return torch.randint(0, 256, (batch, size, size, *shape), dtype=torch.uint8, device=device)

    return Pixels(background=some(3), composite=some(3), mask=some(), depth=some())
