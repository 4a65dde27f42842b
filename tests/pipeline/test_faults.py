"""What happens to a stream when one thing happens to its set; `test_fault_campaign.py` does all."""

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.augment import AugmentConfig
from pipeline.batch import Batch
from pipeline.error import LoaderError
from pipeline.loader import Loader, LoaderConfig
from shards.manifest import read_manifest

CPU = torch.device("cpu")
CONFIG = LoaderConfig(
    decoder="turbojpeg", threads=2, seed=4, max_bad_samples=1, augment=AugmentConfig(flip=0)
)
SHARD = range(64)
"""Samples of the first shard of four."""


def _epoch(loader: Loader, *, start: int = 0, batch_size: int = 24) -> list[Batch]:
    with loader.train(size=32, batch_size=batch_size, start=start, num_steps=10) as batches:
        return list(batches)


def _weights(batches: list[Batch]) -> dict[int, float]:
    numbers = torch.cat([batch.number for batch in batches]).tolist()
    return dict(zip(numbers, torch.cat([batch.weight for batch in batches]).tolist(), strict=True))


def _pixels(batches: list[Batch]) -> dict[int, torch.Tensor]:
    return {
        int(number): image
        for batch in batches
        for number, image in zip(batch.number, batch.composite, strict=True)
    }


def _vanish(path: Path) -> None:
    path.unlink()


def _be_replaced(path: Path) -> None:
    new = path.with_name("new")
    shutil.copyfile(path.with_name("train-000001.tar"), new)
    new.replace(path)


@pytest.mark.parametrize("happen", [_vanish, _be_replaced])
@pytest.mark.parametrize("decoder", ["turbojpeg", "dali"])
def test_a_shard_that_vanishes_or_is_replaced_while_open_is_read_to_the_end(
    copied_set: Path, small_set: Path, happen: Callable[[Path], None], decoder: str
) -> None:
    """We hold the file, not its name; opened anew, the set is refused by that name."""
    config = replace(CONFIG, decoder=decoder)
    with Loader(small_set, config, CPU) as loader:
        expected = _pixels(_epoch(loader))
    with Loader(copied_set, config, CPU) as loader:
        happen(copied_set / "train-000000.tar")
        found = _pixels(_epoch(loader))
        assert loader.num_bad_samples == 0
    assert all(torch.equal(found[number], image) for number, image in expected.items())
    with pytest.raises(LoaderError, match=r"train-000000\.tar is .*maskdepth verify"):
        Loader(copied_set, config, CPU)


def _shrink(path: Path) -> None:
    os.truncate(path, 0)


def _be_overwritten(path: Path) -> None:
    """By its neighbour's bytes, in the very file that is open."""
    size = path.stat().st_size
    content = path.with_name("train-000001.tar").read_bytes()[:size].ljust(size, b"\0")
    with path.open("r+b") as file:
        file.write(content)


@pytest.mark.parametrize("happen", [_shrink, _be_overwritten])
@pytest.mark.parametrize("decoder", ["turbojpeg", "dali"])
def test_what_a_changed_shard_held_is_replaced_and_all_else_stays_right(
    copied_set: Path, small_set: Path, happen: Callable[[Path], None], decoder: str
) -> None:
    config = replace(CONFIG, decoder=decoder)
    with Loader(small_set, config, CPU) as loader:
        expected = _pixels(_epoch(loader))
    with Loader(copied_set, config, CPU) as loader:
        happen(copied_set / "train-000000.tar")
        batches = _epoch(loader)
        weights, found = _weights(batches), _pixels(batches)
        assert {bad.shard for bad in loader.bad_samples} == {"train-000000.tar"}
        assert loader.num_bad_samples == len(SHARD)
    assert {number for number, weight in weights.items() if weight == 0} == set(SHARD)
    assert all(torch.equal(found[n], expected[n]) for n in expected.keys() - SHARD)


def test_a_member_of_another_sample_in_its_place_is_not_told_as_its_name(copied_set: Path) -> None:
    """Where the tar tells of another part, or not soundly, the part is named and no key."""
    tar = copied_set / "train-000000.tar"
    with Loader(copied_set, CONFIG, CPU) as loader:
        name = tar.read_bytes()[:100].rstrip(b"\0")
        for damage in (name.replace(b".fgbg.", b".mask."), b"x" + name[1:]):
            content = bytearray(tar.read_bytes())
            content[: len(name)] = damage
            tar.write_bytes(content)
            bad = loader.training.bad(0, 0, "it is spoilt")
            assert (bad.key, bad.member) == ("", "composite")


@pytest.mark.parametrize("code", [errno.EIO, errno.ETIMEDOUT, errno.ESTALE])
def test_a_disk_or_server_that_fails_for_a_while_costs_the_samples_it_failed_on(
    small_set: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """And nothing more: the next time they are read they count again."""
    read = os.pread

    def failing(file: int, size: int, offset: int) -> bytes:
        if Path(f"/proc/self/fd/{file}").readlink().name == "train-000002.tar":
            raise OSError(code, os.strerror(code))
        return read(file, size, offset)

    with Loader(small_set, CONFIG, CPU) as loader:
        monkeypatch.setattr(os, "pread", failing)
        first = _weights(_epoch(loader))
        monkeypatch.undo()
        second = _weights(_epoch(loader, start=240))
        lost = {number for number, weight in first.items() if weight == 0}
        assert lost == set(range(128, 192))
        assert {bad.reason for bad in loader.bad_samples} == {
            f"it cannot be read ({os.strerror(code)})"
        }
        assert set(second.values()) == {1}
        assert loader.num_bad_samples == 64


@pytest.mark.parametrize("decoder", ["turbojpeg", "dali"])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_batches_of_bad_samples_alone_are_void_and_the_stream_goes_on(
    spoil: Callable[..., Path], decoder: str, batch_size: int
) -> None:
    with Loader(spoil([3, 50]), replace(CONFIG, decoder=decoder), CPU) as loader:
        numbers = loader.order.sample_numbers(0, 240).tolist()
        at = numbers.index(50) // batch_size * batch_size
        batches = _epoch(loader, start=max(0, at - 4 * batch_size), batch_size=batch_size)
        void = [batch for batch in batches if batch.is_void]
        assert loader.num_bad_samples == 1
    assert len(batches) == 10
    assert len(void) == (batch_size == 1)
    for batch in void:
        assert batch.number.tolist() == [50]
        assert batch.weight.tolist() == [0]
        assert not loader.normalisation.pixels(batch.composite).any()
        assert not batch.mask.any()
        assert not batch.depth.any()


def test_a_resumed_stream_starts_with_the_checkpoints_ledger(
    spoil: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Numbers and reasons, training's and validation's; not told again, but counted."""
    config = replace(CONFIG, max_bad_samples=2 / 240)
    damaged = spoil([3, 50])
    spoil([7], split="val")
    with Loader(damaged, config, CPU) as first:
        _epoch(first)
        with first.validate(size=32, batch_size=24) as batches:
            list(batches)
        state, found = first.state_dict(), first.bad_samples
    assert caplog.text.count("replaced at weight 0") == 3
    caplog.clear()
    with Loader(damaged, config, CPU) as again:
        again.load_state_dict(state)
        assert again.bad_samples == found
        _epoch(again, start=240)
        assert again.num_bad_samples == 3
        assert "replaced" not in caplog.text
        spoil([120])
        with pytest.raises(LoaderError, match=r"^3 of 240 samples .*sample 120 "):
            _epoch(again, start=480)


def test_an_index_swapped_for_another_of_its_size_is_refused_when_opened(copied_set: Path) -> None:
    first, second = (copied_set / f"train-00000{i}.npy" for i in (0, 1))
    assert first.stat().st_size == second.stat().st_size
    shutil.copyfile(second, first)
    with pytest.raises(LoaderError, match=r"train-000000\.npy has another SHA-256"):
        Loader(copied_set, CONFIG, CPU)


def test_a_shard_swapped_for_another_of_its_size_gives_no_sample_of_it(copied_set: Path) -> None:
    """The sizes agree when the set is opened; every CRC-32 then tells."""
    _be_overwritten(copied_set / "train-000000.tar")
    assert (copied_set / "train-000000.tar").stat().st_size == read_manifest(copied_set).files[
        "train-000000.tar"
    ].bytes
    with Loader(copied_set, CONFIG, CPU) as loader:
        weights = _weights(_epoch(loader))
    np.testing.assert_array_equal(sorted(n for n, w in weights.items() if w == 0), SHARD)
