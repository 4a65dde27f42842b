"""The bank holds each background at its number."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.backgrounds import BackgroundBank
from pipeline.error import LoaderError
from pipeline.opening import OpenedSet
from pipeline.turbojpeg import TurboJpegDecoder
from shards.manifest import read_manifest
from shards.tar import TarWriter, read_members

DECODER = TurboJpegDecoder(threads=1, prefetch_batches=1)
CPU = torch.device("cpu")


def _open(set_path: Path, size: int) -> BackgroundBank | None:
    return BackgroundBank.open([_unchecked(set_path)], DECODER, size=size, device=CPU)


def _unchecked(set_path: Path) -> OpenedSet:
    manifest = read_manifest(set_path)
    return OpenedSet(location=str(set_path), folder=set_path, manifest=manifest)


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


def test_backgrounds_in_another_order_than_the_manifests_are_refused(
    copied_set: Path, reseal: Callable[[Path], None]
) -> None:
    path = copied_set / "backgrounds.tar"
    members = list(read_members(path))
    with TarWriter(path) as tar:
        for name, content in reversed(members):
            tar.add(name, content)
    reseal(copied_set)
    with pytest.raises(
        LoaderError, match=r"backgrounds.tar does not hold the 4 .*maskdepth verify"
    ):
        _open(copied_set, 64)


def test_backgrounds_swapped_since_the_set_was_opened_are_refused(copied_set: Path) -> None:
    """A later stage reads them anew."""
    opened = _unchecked(copied_set)
    path = copied_set / "backgrounds.tar"
    members = list(read_members(path))
    with TarWriter(path) as tar:
        for name, _ in members:
            tar.add(name, members[0][1])
    with pytest.raises(LoaderError, match=r"backgrounds.tar (is|has) .*maskdepth verify"):
        BackgroundBank.open([opened], DECODER, size=64, device=CPU)


def test_a_damaged_background_is_named(copied_set: Path, reseal: Callable[[Path], None]) -> None:
    path = copied_set / "backgrounds.tar"
    members = list(read_members(path))
    with TarWriter(path) as tar:
        for i, (name, content) in enumerate(members):
            tar.add(name, content[:200] if i == 2 else content)
    reseal(copied_set)
    with pytest.raises(
        LoaderError, match=rf"backgrounds.tar: {members[2][0]}: it cannot be decoded"
    ):
        _open(copied_set, 64)
