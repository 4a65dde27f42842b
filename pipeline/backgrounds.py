"""The backgrounds of a set on the device: decoded once per size, gathered by number.

There are about a hundred of them and 400,000 samples: a JPEG per sample would be a third of the
decoding for nothing.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from pipeline.decoder import Decoder
from pipeline.error import LoaderError
from shards.manifest import BACKGROUNDS, Manifest
from shards.tar import read_members


class BackgroundBank:
    """All backgrounds as one tensor.

    Args:
        pixels: (G, H, W, 3) uint8 RGB, background g at position g.
    """

    def __init__(self, pixels: Tensor) -> None:
        self.pixels = pixels

    @classmethod
    def open(
        cls,
        set_path: Path,
        manifest: Manifest,
        decoder: Decoder,
        *,
        size: int,
        device: torch.device,
    ) -> "BackgroundBank | None":
        """Decode a set's backgrounds in full and keep them on `device`; None if it has none.

        Raises:
            LoaderError: `backgrounds.tar` does not hold what the manifest lists.
        """
        if not manifest.backgrounds:
            return None
        names, contents = zip(*read_members(set_path / BACKGROUNDS), strict=True)
        _check_names(names, manifest.backgrounds, set_path)
        told = [f"{BACKGROUNDS}: {name}" for name in names]
        return cls(decoder.decode_images(contents, size=size, names=told).to(device))

    def gather(self, numbers: Tensor) -> Tensor:
        """(N,) int64 background numbers on the bank's device to (N, H, W, 3) uint8."""
        return self.pixels.index_select(0, numbers)


def _check_names(names: Sequence[str], expected: Sequence[str], set_path: Path) -> None:
    found = [PurePosixPath(name).stem for name in names]
    if found != list(expected):
        msg = (
            f"{BACKGROUNDS} does not hold the {len(expected)} backgrounds that the manifest lists; "
            f"run `maskdepth verify {set_path}`, or `maskdepth convert` again to rewrite it"
        )
        raise LoaderError(msg)
