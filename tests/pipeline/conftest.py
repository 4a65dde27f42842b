"""Sets to stream, whole and damaged, and an independent reading of them."""

import hashlib
import io
import shutil
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from shards.index import Rows
from shards.manifest import FileRecord, read_manifest
from shards.tar import read_members

Reference = Callable[[int, int], npt.NDArray[np.uint8]]
Spoil = Callable[..., Path]
Reseal = Callable[[Path], None]


def split_rows(set_path: Path, split: str) -> list[tuple[str, int, np.void]]:
    """Shard, row in the shard and index row of each sample of a split, in stored order."""
    return [
        (shard.name, i, row)
        for shard in read_manifest(set_path).split_shards(split)
        for i, row in enumerate(np.load(set_path / f"{shard.name}.npy"))
    ]


@pytest.fixture(scope="session")
def reference(small_set: Path) -> Reference:
    """`reference(part, size)`: that part of every training sample by tarfile and Pillow alone."""
    images: list[Image.Image] = []
    for shard in read_manifest(small_set).split_shards("train"):
        images += [
            Image.open(io.BytesIO(content)).convert("RGB" if ".fgbg." in name else "L")
            for name, content in read_members(small_set / f"{shard.name}.tar")
            if not name.endswith(".json")
        ]

    def at_size(part: int, size: int) -> npt.NDArray[np.uint8]:
        bilinear = Image.Resampling.BILINEAR
        return np.stack([np.asarray(i.resize((size, size), bilinear)) for i in images[part::3]])

    return at_size


@pytest.fixture
def copied_set(small_set: Path, tmp_path: Path) -> Path:
    """A copy of the small set, to be damaged."""
    return Path(shutil.copytree(small_set, tmp_path / "set"))


@pytest.fixture
def reseal() -> Reseal:
    """Makes a set's manifest vouch for the indices as they are now."""

    def vouch(set_path: Path) -> None:
        manifest = read_manifest(set_path)
        files = dict(manifest.files)
        for path in set_path.glob("*.npy"):
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            files[path.name] = FileRecord(bytes=len(content), sha256=digest)
        (set_path / "manifest.json").write_text(replace(manifest, files=files).text())

    return vouch


@pytest.fixture
def spoil(copied_set: Path, reseal: Reseal) -> Spoil:
    """Damages samples of the copied set: `spoil(numbers, part=, split=, hide=)`.

    `hide` makes the CRC fit the damage, so that only the decoder can find it.
    """

    def damage(
        numbers: list[int], *, part: int = 0, split: str = "train", hide: bool = False
    ) -> Path:
        for number in numbers:
            name, i, row = split_rows(copied_set, split)[number]
            tar, index = copied_set / f"{name}.tar", copied_set / f"{name}.npy"
            content = bytearray(tar.read_bytes())
            begin, size = int(row["offset"][part]), int(row["size"][part])
            if hide:
                content[begin + 4 : begin + size] = bytes(size - 4)
                table: Rows = np.load(index)
                table["crc"][i, part] = zlib.crc32(content[begin : begin + size])
                np.save(index, table)
            else:
                content[begin + size // 2] ^= 0x10
            tar.write_bytes(content)
        reseal(copied_set)
        return copied_set

    return damage
