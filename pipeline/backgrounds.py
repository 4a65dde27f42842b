"""The backgrounds of all sets on the device: decoded once per size, gathered by number.

There are about a hundred of them and 400,000 samples: a JPEG per sample would be a third of the
decoding for nothing.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath

import torch
from torch import Tensor

from pipeline.decoder import Decoder
from pipeline.opening import OpenedSet, hash_fault, raise_faults
from shards.manifest import BACKGROUNDS
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
        cls, sets: Sequence[OpenedSet], decoder: Decoder, *, size: int, device: torch.device
    ) -> "BackgroundBank | None":
        """Decode the backgrounds of all sets in full, one set's after another, on `device`.

        None if they have none.

        Raises:
            LoaderError: A `backgrounds.tar` is not the one that its manifest lists.
        """
        decoded = [_decode(opened, decoder, size) for opened in sets if opened.manifest.backgrounds]
        return cls(torch.cat(decoded).to(device)) if decoded else None

    def gather(self, numbers: Tensor, into: Tensor | None = None) -> Tensor:
        """(N,) int64 background numbers on the bank's device to (N, H, W, 3) uint8.

        Args:
            numbers: Which.
            into: Memory for the result.
        """
        return torch.index_select(self.pixels, 0, numbers, out=into)


def _decode(opened: OpenedSet, decoder: Decoder, size: int) -> Tensor:
    path = opened.folder / BACKGROUNDS
    members = list(read_members(path))
    # each stage reads them anew: hashed after that, a file swapped meanwhile is noticed
    if fault := hash_fault(path, opened.manifest.files[BACKGROUNDS]):
        raise_faults(opened.location, [fault])
    names = [name for name, _ in members]
    if [PurePosixPath(name).stem for name in names] != list(opened.manifest.backgrounds):
        num = len(opened.manifest.backgrounds)
        fault = f"{BACKGROUNDS} does not hold the {num} backgrounds that the manifest lists"
        raise_faults(opened.location, [fault])
    where = f"{opened.location}/{BACKGROUNDS}" if opened.label else BACKGROUNDS
    told = [f"{where}: {name}" for name in names]
    return decoder.decode_images([content for _, content in members], size=size, names=told)
