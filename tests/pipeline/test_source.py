"""Samples by number are the tar's members, or a bad sample that is named."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.error import LoaderError
from pipeline.opening import open_set
from pipeline.source import BadSample, EncodedSample, SampleSource
from shards.manifest import read_manifest
from shards.tar import read_members


def _open(set_path: Path, split: str = "train") -> SampleSource:
    return SampleSource([open_set(set_path)], split)


@pytest.fixture
def opened(small_set: Path) -> Iterator[SampleSource]:
    with _open(small_set) as source:
        yield source


def _members(set_path: Path, split: str = "train") -> list[tuple[str, bytes]]:
    return [
        member
        for shard in read_manifest(set_path).split_shards(split)
        for member in read_members(set_path / f"{shard.name}.tar")
    ]


def test_every_sample_is_the_bytes_a_tar_reader_finds(
    small_set: Path, opened: SampleSource
) -> None:
    images = [content for name, content in _members(small_set) if not name.endswith(".json")]
    samples = opened.read_many(np.arange(opened.num_samples))
    found = [
        bytes(part) for sample in samples if isinstance(sample, EncodedSample) for part in sample
    ]
    assert found == images


def test_many_threads_read_the_same(opened: SampleSource) -> None:
    numbers = np.arange(opened.num_samples)
    expected = opened.read_many(numbers)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(opened.read_many, [numbers] * 16):
            assert found == expected


@pytest.mark.parametrize(("part", "suffix"), [(0, "fgbg"), (1, "mask"), (2, "depth")])
def test_a_flipped_byte_is_a_bad_sample_named_by_shard_key_and_member(
    spoil: Callable[..., Path],
    small_set: Path,
    part: int,
    suffix: str,
) -> None:
    names = [name for name, _ in _members(small_set)]
    with _open(spoil([70], part=part)) as source:
        bad = source.read(70)
        assert isinstance(bad, BadSample)
        assert bad.shard == "train-000001.tar"  # of 64 samples each
        assert bad.key == names[4 * 70].partition(".")[0]
        assert bad.member.startswith(f"{bad.key}.{suffix}.")
        assert "CRC-32" in str(bad)
        assert isinstance(source.read(69), EncodedSample)


def test_a_shard_cut_while_open_gives_bad_samples_and_no_crash(copied_set: Path) -> None:
    with _open(copied_set) as source:
        os.truncate(copied_set / "train-000000.tar", 100_000)
        samples = source.read_many(np.arange(64))
    kinds = [type(sample) for sample in samples]
    first_bad = kinds.index(BadSample)
    assert 0 < first_bad < 63
    assert set(kinds[first_bad:]) == {BadSample}
    last = samples[-1]
    assert isinstance(last, BadSample)
    assert (last.key, last.member) == ("", "composite")  # the tar no longer tells
    assert "ends before it" in last.reason


def test_faulty_indices_are_refused_together(copied_set: Path) -> None:
    opened = open_set(copied_set)
    first, second, third = (copied_set / f"train-00000{i}.npy" for i in range(3))
    first.unlink()
    rows = np.load(second)
    rows["offset"] += 1 << 40
    np.save(second, rows)
    rows = np.load(third)
    rows["background"] = 4
    np.save(third, rows)
    with pytest.raises(LoaderError) as caught:
        SampleSource([opened], "train")
    assert "train-000000.npy is missing" in str(caught.value)
    assert "train-000001.npy points outside train-000001.tar" in str(caught.value)
    assert "train-000002.npy names backgrounds that the set does not hold" in str(caught.value)


def test_closing_gives_every_descriptor_back(small_set: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- entries vanish while listed
    with _open(small_set), _open(small_set, "val"):
        assert len(os.listdir("/proc/self/fd")) > before  # noqa: PTH208
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
