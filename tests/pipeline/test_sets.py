"""Several sets stream as one: every sample once for each repeat, described by one manifest."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.augment import AugmentConfig
from pipeline.batch import Batch
from pipeline.error import LoaderError
from pipeline.loader import Loader, LoaderConfig
from pipeline.sets import open_sets
from pipeline.source import BadSample
from shards.convert import convert
from shards.manifest import BACKGROUNDS, read_manifest
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise
from shards.tar import read_members

CPU = torch.device("cpu")
CONFIG = LoaderConfig(
    decoder="turbojpeg", threads=2, seed=4, cache="off", tune="off",
    exact_decode=True, augment=AugmentConfig(flip=0),
)  # fmt: skip


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another set: 96 triplets at 160 px, 3 backgrounds."""
    folder = tmp_path_factory.mktemp("other")
    config = SynthConfig(count=96, seed=9, size=160, num_backgrounds=3, num_foregrounds=6)
    synthesise(folder / "zips", config)
    convert(
        ConvertConfig(
            sources=(folder / "zips",),
            out=folder / "other",
            samples_per_shard=20,
            val=0.2,
            seed=1,
            processes=1,
        )
    )
    return folder / "other"


def _train(loader: Loader, *, steps: int, start: int = 0) -> list[Batch]:
    with loader.train(size=48, batch_size=16, start=start, num_steps=steps) as batches:
        return [_copied(batch) for batch in batches]


def _validate(loader: Loader) -> list[Batch]:
    with loader.validate(size=48, batch_size=16) as batches:
        return [_copied(batch) for batch in batches]


def _copied(batch: Batch) -> Batch:
    names = ("composite", "background", "mask", "depth", "number", "weight")
    return replace(batch, **{name: getattr(batch, name).clone() for name in names})


def _counted(batches: list[Batch], name: str) -> torch.Tensor:
    return torch.cat([getattr(batch, name)[batch.weight == 1] for batch in batches])


def _pixels(loader: Loader, batches: list[Batch]) -> dict[int, tuple[bytes, ...]]:
    """Sample number -> its four images as bytes."""
    numbers = _counted(batches, "number").tolist()
    images = [
        loader.normalisation.pixels(_counted(batches, name)) for name in ("composite", "background")
    ] + [_counted(batches, name) for name in ("mask", "depth")]
    return {
        number: tuple(image[i].numpy().tobytes() for image in images)
        for i, number in enumerate(numbers)
    }


def test_samples_backgrounds_and_validation_are_those_of_each_set_alone(
    small_set: Path, other: Path
) -> None:
    """Though they differ in native size: numbers of the second go on where the first ends."""
    alone = []
    for path in (small_set, other):
        with Loader(path, CONFIG, CPU) as loader:
            steps = -(-loader.num_samples // 16)
            alone.append((
                _pixels(loader, _train(loader, steps=steps)), _pixels(loader, _validate(loader))
            ))  # fmt: skip
    with Loader([small_set, str(other)], CONFIG, CPU) as loader:
        steps = -(-loader.num_samples // 16)
        together = [_pixels(loader, batches) for batches in (
            _train(loader, steps=steps), _validate(loader)
        )]  # fmt: skip
    for split in (0, 1):
        first, second = alone[0][split], alone[1][split]
        expected = first | {number + len(first): image for number, image in second.items()}
        assert together[split] == expected


def test_an_epoch_holds_each_sample_once_for_each_repeat(small_set: Path, other: Path) -> None:
    config = replace(CONFIG, repeats=(1, 3))
    with Loader([small_set, other], config, CPU) as loader:
        num = loader.num_samples
        own = [read_manifest(path).num_samples("train") for path in (small_set, other)]
        assert num == own[0] + 3 * own[1]
        batches = _train(loader, steps=-(-num // 16))
        numbers = torch.cat([batch.number for batch in batches])[:num]
        assert sorted(numbers.tolist()) == [*range(num)]
        pixels = _pixels(loader, batches)
        copies = [[pixels[own[0] + copy * own[1] + i] for copy in range(3)] for i in range(own[1])]
        assert all(one == two == three for one, two, three in copies)
        assert len({one for one, _, _ in copies}) == own[1]
        assert sum(map(len, (batch.number[batch.weight == 1] for batch in _validate(loader)))) == (
            loader.num_validation_samples
        )


@settings(max_examples=25, deadline=None)
@given(
    repeats=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    order=st.sampled_from(["global", "windowed"]),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 1000),
)
def test_exactly_once_per_repeat_whatever_the_repeats_order_and_seed(
    small_set: Path, other: Path, repeats: tuple[int, int], order: str, seed: int, epoch: int
) -> None:
    """Counted by the bytes that are read, not by the numbers."""
    config = replace(
        CONFIG, repeats=repeats, order=order, seed=seed,
        window_shards=4 if order == "windowed" else None,
    )  # fmt: skip
    with Loader([small_set, other], config, CPU) as loader:
        num = loader.num_samples
        numbers = loader.order.sample_numbers(epoch * num, num)
        read = [
            bytes(sample.composite)
            for sample in loader.training.read_many(numbers)
            if not isinstance(sample, BadSample)
        ]
    expected: dict[bytes, int] = {}
    for path, times in zip((small_set, other), repeats, strict=True):
        for shard in read_manifest(path).split_shards("train"):
            for name, content in read_members(path / f"{shard.name}.tar"):
                if ".fgbg." in name:
                    expected[content] = expected.get(content, 0) + times
    found: dict[bytes, int] = {}
    for content in read:
        found[content] = found.get(content, 0) + 1
    assert found == expected


def test_repeats_are_augmented_on_their_own(other: Path) -> None:
    config = replace(CONFIG, repeats=(2,), augment=AugmentConfig(flip=0.5))
    with Loader(other, config, CPU) as loader:
        num = loader.num_samples // 2
        pixels = _pixels(loader, _train(loader, steps=-(-2 * num // 16)))
    differing = sum(pixels[i] != pixels[i + num] for i in range(num))
    assert 0.25 * num < differing < 0.75 * num


def test_the_statistics_are_those_of_all_samples_as_they_are_drawn(
    small_set: Path, other: Path
) -> None:
    """Against moments that count every sample of the second set three times.

    Both sets' own statistics are over every sample of every split; drawn are those of training, so
    the weights are of these, and the sets' means as they stand.
    """
    opened = open_sets([small_set, other], repeats=(1, 3))
    manifests = [read_manifest(path) for path in (small_set, other)]
    weights = [manifests[0].num_samples("train"), 3 * manifests[1].num_samples("train")]
    for part in ("composite", "mask", "depth"):
        channels = len(manifests[0].statistics[part].mean)
        for channel in range(channels):
            total = squares = 0.0
            for manifest, weight in zip(manifests, weights, strict=True):
                statistics = manifest.statistics[part]
                mean, std = statistics.mean[channel], statistics.std[channel]
                total += weight * mean
                squares += weight * (mean**2 + std**2)
            mean = total / sum(weights)
            found = opened.manifest.statistics[part]
            assert found.mean[channel] == pytest.approx(mean, abs=1e-8)
            std = (squares / sum(weights) - mean**2) ** 0.5
            assert found.std[channel] == pytest.approx(std, abs=1e-7)
    expected = np.average([m.mean_depth(32) for m in manifests], axis=0, weights=weights)
    assert np.abs(opened.manifest.mean_depth(32) - expected).max() < 2 / 255


def test_one_set_alone_keeps_its_own_manifest_and_fingerprint(small_set: Path) -> None:
    assert open_sets([small_set]).manifest == read_manifest(small_set)


def test_other_sets_orders_and_repeats_have_other_fingerprints(
    small_set: Path, other: Path
) -> None:
    combinations: list[tuple[list[Path], tuple[int, ...]]] = [
        ([small_set], (1,)), ([small_set], (2,)), ([small_set, other], (1, 1)),
        ([other, small_set], (1, 1)), ([small_set, other], (1, 2)), ([small_set, other], (2, 1)),
    ]  # fmt: skip
    found = {open_sets(paths, repeats=times).manifest.fingerprint for paths, times in combinations}
    assert len(found) == len(combinations)


def _without_backgrounds(path: Path, reseal: Callable[[Path], None]) -> Path:
    manifest = replace(read_manifest(path), backgrounds=())
    files = dict(manifest.files)
    for shard in manifest.shards:
        rows = np.load(path / f"{shard.name}.npy")
        rows["background"] = -1
        np.save(path / f"{shard.name}.npy", rows)
    del files[BACKGROUNDS]
    (path / "manifest.json").write_text(replace(manifest, files=files).text())
    reseal(path)
    return path


def test_a_set_without_backgrounds_beside_one_with_is_refused_and_named(
    copied_set: Path, other: Path, reseal: Callable[[Path], None]
) -> None:
    path = _without_backgrounds(copied_set, reseal)
    for data in ([path, other], [other, path]):
        with pytest.raises(LoaderError, match=rf"^{path} has no backgrounds, and {other} has"):
            Loader(data, CONFIG, CPU)


@pytest.mark.parametrize(("what", "value"), [("polarity", "near-bright"), ("scaling", "stretched")])
def test_sets_that_mean_different_things_by_depth_are_refused(
    copied_set: Path, other: Path, what: str, value: str
) -> None:
    manifest = read_manifest(copied_set)
    depth = {**manifest.depth, what: value}
    if depth == manifest.depth:
        depth[what] = "absolute"
    (copied_set / "manifest.json").write_text(replace(manifest, depth=depth).text())
    with pytest.raises(LoaderError, match=rf"depth is .* in {other} and .* in {copied_set}"):
        open_sets([copied_set, other])


def test_a_set_given_twice_is_refused_for_repeat(small_set: Path, copied_set: Path) -> None:
    with pytest.raises(LoaderError, match=f"{small_set} and {copied_set} are the same set; use"):
        open_sets([small_set, copied_set])


@pytest.mark.parametrize("repeats", [(1,), (1, 2, 3), (0, 1), (1, -1)])
def test_repeats_that_do_not_fit_are_refused(
    small_set: Path, other: Path, repeats: tuple[int, ...]
) -> None:
    with pytest.raises(LoaderError, match=r"--repeat .* does not fit 2 sets"):
        open_sets([small_set, other], repeats=repeats)


def test_a_bad_sample_is_named_with_its_set(spoil: Callable[..., Path], other: Path) -> None:
    damaged = spoil([70])
    offset = read_manifest(other).num_samples("train")
    with Loader([other, damaged], replace(CONFIG, max_bad_samples=0.1), CPU) as loader:
        _train(loader, steps=-(-loader.num_samples // 16))
        [bad] = loader.bad_samples
    assert bad.number == offset + 70
    assert bad.shard == f"{damaged}/train-000001.tar"


def test_names_of_samples_tell_their_set_and_never_collide(small_set: Path, other: Path) -> None:
    with Loader([small_set, other], CONFIG, CPU) as loader:
        keys = [loader.validation_key(i) for i in range(loader.num_validation_samples)]
    assert len(set(keys)) == len(keys)
    assert keys[0].startswith("small-")
    assert keys[-1].startswith("other-")


def test_sets_of_one_name_are_told_apart(small_set: Path, other: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "1/set", tmp_path / "2/set"
    shutil.copytree(small_set, one)
    shutil.copytree(other, two)
    assert [opened.label for opened in open_sets([one, two]).sets] == ["set-1", "set-2"]


def test_a_set_on_disk_and_one_at_a_url_are_streamed_as_one(
    small_set: Path, other: Path, web: Any, tmp_path: Path
) -> None:
    shutil.copytree(other, web.folder / "other")
    remote = replace(CONFIG.remote, cache_dir=tmp_path / "fetched", backoff_s=0.01)
    config = replace(CONFIG, remote=remote)
    found = []
    for data in ([small_set, other], [small_set, f"{web.url}/other"]):
        with Loader(data, config, CPU) as loader:
            batches = _train(loader, steps=8) + _validate(loader)
            found.append([(b.number.tolist(), b.composite.sum().item()) for b in batches])
            fingerprint = loader.manifest.fingerprint
    assert found[0] == found[1]
    assert fingerprint == open_sets([small_set, other]).manifest.fingerprint


def test_the_joint_manifest_can_be_shown_like_any(small_set: Path, other: Path) -> None:
    manifest = open_sets([small_set, other]).manifest
    assert json.loads(manifest.text())["sha256"] == manifest.fingerprint
    samples = sum(read_manifest(path).num_samples("train") for path in (small_set, other))
    assert manifest.num_samples("train") == samples
