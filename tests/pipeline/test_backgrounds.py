"""The bank holds each background at its number."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.backgrounds import BackgroundBank
from pipeline.error import LoaderError
from pipeline.turbojpeg import TurboJpegDecoder
from shards.manifest import read_manifest
from shards.tar import TarWriter, read_members

DECODER = TurboJpegDecoder(threads=1, prefetch_batches=1)
CPU = torch.device("cpu")


def _open(set_path: Path, size: int) -> BackgroundBank | None:
    manifest = read_manifest(set_path)
    return BackgroundBank.open(set_path, manifest, DECODER, size=size, device=CPU)


def test_gathering_gives_the_backgrounds_of_the_numbers(small_set: Path) -> None:
    bank = _open(small_set, 64)
    assert bank is not None
    expected = [
        np.asarray(
            Image.open(io.BytesIO(content))
            .convert("RGB")
            .resize((64, 64), Image.Resampling.BILINEAR)
        )
        for _, content in read_members(small_set / "backgrounds.tar")
    ]
    numbers = [3, 0, 3, 2]
    found = bank.gather(torch.tensor(numbers))
    np.testing.assert_array_equal(found, np.stack([expected[number] for number in numbers]))


def test_backgrounds_in_another_order_than_the_manifests_are_refused(copied_set: Path) -> None:
    path = copied_set / "backgrounds.tar"
    members = list(read_members(path))
    with TarWriter(path) as tar:
        for name, content in reversed(members):
            tar.add(name, content)
    with pytest.raises(
        LoaderError, match=r"backgrounds.tar does not hold the 4 .*maskdepth verify"
    ):
        _open(copied_set, 64)


def test_a_damaged_background_is_named(copied_set: Path) -> None:
    path = copied_set / "backgrounds.tar"
    members = list(read_members(path))
    with TarWriter(path) as tar:
        for i, (name, content) in enumerate(members):
            tar.add(name, content[:200] if i == 2 else content)
    with pytest.raises(
        LoaderError, match=rf"backgrounds.tar: {members[2][0]}: it cannot be decoded"
    ):
        _open(copied_set, 64)
