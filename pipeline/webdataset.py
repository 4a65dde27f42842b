"""A set as a plain WebDataset, for a loop and a torch DataLoader of the user's own.

    from torch.utils.data import DataLoader
    from pipeline.webdataset import as_webdataset

    samples = as_webdataset("set", "train", size=64, shuffle_shards=True).shuffle(1000)
    for batch in DataLoader(samples, batch_size=32, num_workers=2):
        batch["composite"]  # (32, 64, 64, 3) uint8; also background, mask, depth

The pixels are those that our own loader gives under `--exact-decode`. Everything else is as simple
as the format is: an order of shards, no exact resume, no CRC, and damage is an exception.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from pipeline.error import LoaderError
from pipeline.resize import resize
from pipeline.stills import COLOURS, Colour, DecodeError, Pixels, decode
from shards.block import COMPONENTS
from shards.index import PARTS
from shards.manifest import BACKGROUNDS, read_manifest
from shards.tar import read_members


def as_webdataset(
    set_path: Path | str,
    split: str = "train",
    *,
    size: int | None = None,
    shuffle_shards: bool = False,
    seed: int = 0,
) -> webdataset.WebDataset:
    """Each sample of a split once, in stored order unless its shards are shuffled.

    Ranks and workers share the shards: each takes whole ones, so there should be several for each.

    Args:
        set_path: Folder of the set.
        split: `train`, `val`, or `mixed`.
        size: Side to resize to in pixels; None keeps every image as it is.
        shuffle_shards: Take the shards in an order that differs from epoch to epoch. Stored
            samples are well mixed already; `.shuffle(1000)` on the result mixes neighbours.
        seed: Chooses that order.

    Returns:
        An iterable of dictionaries: `__key__` (text), `composite` and `background` ((H, W, 3) uint8
        RGB), `mask` and `depth` ((H, W) uint8; the mask's target is `>= 128`). A set without
        backgrounds gives none.

    Raises:
        ShardError: There is no sound manifest.
        LoaderError: The split has no samples.
    """
    folder = Path(set_path)
    manifest = read_manifest(folder)
    shards = [str(folder / f"{shard.name}.tar") for shard in manifest.split_shards(split)]
    if not shards:
        msg = f"{folder} has no samples in split {split!r}; choose another, or convert it again"
        raise LoaderError(msg)
    stream = webdataset.WebDataset(
        shards,
        shardshuffle=len(shards) if shuffle_shards else False,
        detshuffle=shuffle_shards,
        seed=seed,
        nodesplitter=webdataset.split_by_node,
        workersplitter=webdataset.split_by_worker,
        empty_check=False,  # there may be more workers than shards
    )
    return stream.decode(only=["json"]).map(
        _Decoding(folder, size, has_backgrounds=bool(manifest.backgrounds))
    )


class _Decoding:
    """Members of one sample to arrays; goes to the workers, and decodes backgrounds there once."""

    def __init__(self, folder: Path, size: int | None, *, has_backgrounds: bool) -> None:
        self._folder, self._size, self._has_backgrounds = folder, size, has_backgrounds

    def __call__(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        where = f"{sample['__url__']}: {sample['__key__']}"
        arrays: dict[str, Any] = {"__key__": sample["__key__"]}
        for part, colour in zip(PARTS, COLOURS, strict=True):
            [content] = [
                value
                for name, value in sample.items()
                if name.partition(".")[0] == COMPONENTS[part]
            ]
            arrays[part] = self._decoded(content, colour, f"{where}.{COMPONENTS[part]}")
        if self._has_backgrounds:
            arrays["background"] = self._backgrounds[sample["json"]["background_number"]]
        return arrays

    @cached_property
    def _backgrounds(self) -> list[Pixels]:
        return [
            self._decoded(content, "RGB", f"{BACKGROUNDS}: {name}")
            for name, content in read_members(self._folder / BACKGROUNDS)
        ]

    def _decoded(self, content: bytes, colour: Colour, where: str) -> Pixels:
        try:
            pixels = decode(content, colour)
        except DecodeError as error:
            msg = f"{where}: {error}; run `maskdepth verify {self._folder}`"
            raise LoaderError(msg) from None
        if self._size is not None:
            pixels = np.ascontiguousarray(resize(pixels[None], self._size)[0])
        return pixels if colour == "RGB" else pixels[..., 0]
