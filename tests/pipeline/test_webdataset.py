"""The set as a plain WebDataset holds every sample once, with the loader's own pixels."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline.augment import AugmentConfig
from pipeline.error import LoaderError
from pipeline.loader import Loader, LoaderConfig
from pipeline.webdataset import as_webdataset
from shards.manifest import read_manifest
from shards.tar import read_members

pytestmark = pytest.mark.filterwarnings(  # webdataset leaves closing to the interpreter
    "ignore:This DataLoader will create:UserWarning",
    "ignore:unclosed file:ResourceWarning",
    "ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning",
)

EXACT = LoaderConfig(
    decoder="turbojpeg", threads=1, exact_decode=True, cache="off", tune="off",
    augment=AugmentConfig(flip=0),
)  # fmt: skip


def _keys(set_path: Path, split: str) -> list[str]:
    return [
        name.partition(".")[0]
        for shard in read_manifest(set_path).split_shards(split)
        for name, _ in read_members(set_path / f"{shard.name}.tar")
        if name.endswith(".json")
    ]


@pytest.mark.parametrize("size", [64, 224])
def test_arrays_are_those_of_the_loader_under_exact_decoding(small_set: Path, size: int) -> None:
    """Bit for bit; at 224 px also those that nobody resized."""
    with Loader(small_set, EXACT, torch.device("cpu")) as loader:
        bank = loader.backgrounds(size)
        assert bank is not None
        with loader.validate(size=size, batch_size=80) as batches:
            batch = next(batches)
        composites = loader.normalisation.pixels(batch.composite)
        backgrounds = bank.gather(torch.from_numpy(loader.validation.backgrounds))
        keys = [loader.validation_key(number) for number in range(80)]
    samples = [*as_webdataset(small_set, "val", size=None if size == 224 else size)]
    assert [sample["__key__"] for sample in samples] == keys
    for i, sample in enumerate(samples):
        assert np.array_equal(sample["composite"], composites[i])
        assert np.array_equal(sample["background"], backgrounds[i])
        assert np.array_equal(sample["mask"] >= 128, batch.mask[i, 0] == 1)
        assert np.array_equal(sample["depth"], (batch.depth[i, 0] * 255).round().to(torch.uint8))


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("workers", [2, 6])
def test_a_dataloader_with_workers_gives_every_sample_once(
    small_set: Path, workers: int, shuffled: bool
) -> None:
    """Also with more workers than shards."""
    samples = as_webdataset(small_set, size=32, shuffle_shards=shuffled)
    if shuffled:
        samples = samples.shuffle(50)
    batches = [*DataLoader(samples, batch_size=16, num_workers=workers)]
    keys = [key for batch in batches for key in batch["__key__"]]
    assert sorted(keys) == sorted(_keys(small_set, "train"))
    tensors = {name: value for name, value in batches[0].items() if name != "__key__"}
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in tensors.items()}
    assert shapes == {
        "composite": (32, 32, 3), "background": (32, 32, 3), "mask": (32, 32), "depth": (32, 32),
    }  # fmt: skip
    assert {tensor.dtype for tensor in tensors.values()} == {torch.uint8}


def test_ranks_share_the_shards(small_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        found.append([sample["__key__"] for sample in as_webdataset(small_set, size=8)])
    assert len(found[0]) == 128  # two of four shards of 64, the last one shorter
    assert sorted(found[0] + found[1]) == sorted(_keys(small_set, "train"))


def test_shuffled_shards_come_in_another_order_each_epoch_and_again_by_the_seed(
    small_set: Path,
) -> None:
    def epochs(seed: int) -> list[list[str]]:
        samples = as_webdataset(small_set, size=8, shuffle_shards=True, seed=seed)
        return [[sample["__key__"] for sample in samples] for _ in range(4)]

    found = epochs(3)
    assert found == epochs(3)
    assert len({tuple(epoch) for epoch in found}) > 1


def test_a_damaged_image_is_an_error_that_names_it(spoil: Callable[..., Path]) -> None:
    damaged = spoil([3], part=1, hide=True)
    with pytest.raises(LoaderError, match=r"train-000000.tar: .*\.mask: it cannot be .*verify"):
        [*as_webdataset(damaged, size=8)]


def test_a_split_without_samples_is_refused(small_set: Path) -> None:
    with pytest.raises(LoaderError, match="no samples in split 'mixed'"):
        as_webdataset(small_set, "mixed")


def test_a_set_without_backgrounds_gives_none(small_set: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    copy = Path(shutil.copytree(small_set, tmp_path / "set"))
    (copy / "manifest.json").write_text(replace(read_manifest(copy), backgrounds=()).text())
    sample = next(iter(as_webdataset(copy, size=8)))
    assert sorted(sample) == ["__key__", "composite", "depth", "mask"]
