"""The loader keeps its promises: order, resume, ranks, padding, bad samples, tidiness."""

import gc
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from pipeline.augment import AugmentConfig
from pipeline.batch import Batch, BatchLoader
from pipeline.error import LoaderError
from pipeline.loader import Loader, LoaderConfig
from pipeline.normalise import Normalisation
from pipeline.order import Order
from shards.manifest import read_manifest
from shards.tar import read_members

CPU = torch.device("cpu")
CONFIG = LoaderConfig(decoder="turbojpeg", threads=2, seed=4, augment=AugmentConfig(flip=0))


@pytest.fixture
def loader(small_set: Path) -> Iterator[Loader]:
    with Loader(small_set, CONFIG, CPU) as opened:
        yield opened


def _train(
    loader: BatchLoader, *, start: int = 0, steps: int = 5, batch_size: int = 48
) -> list[Batch]:
    with loader.train(size=32, batch_size=batch_size, start=start, num_steps=steps) as batches:
        return list(batches)


def _joined(batches: list[Batch], name: str) -> Tensor:
    return torch.cat([getattr(batch, name) for batch in batches])


def test_an_epoch_is_every_sample_once_in_the_keyed_order(loader: Loader) -> None:
    numbers = _joined(_train(loader), "number")
    expected = Order(num_samples=240, seed=4).sample_numbers(0, 240)
    np.testing.assert_array_equal(numbers, expected)
    assert sorted(numbers.tolist()) == list(range(240))


def test_a_batch_is_the_samples_that_its_numbers_name(
    loader: Loader, small_set: Path, reference: Callable[[int, int], npt.NDArray[np.uint8]]
) -> None:
    """Composite, mask, depth and background against Pillow, tarfile and the index."""
    with loader.train(size=224, batch_size=12, start=1000, num_steps=1) as batches:
        [batch] = batches
    assert batch.background is not None
    numbers = batch.number.numpy()
    shards = read_manifest(small_set).split_shards("train")
    rows = np.concatenate([np.load(small_set / f"{shard.name}.npy") for shard in shards])
    bank = loader.backgrounds(224)
    assert bank is not None
    composites, masks, depths = (reference(part, 224)[numbers] for part in range(3))
    for images, pixels in [
        (batch.composite, composites),
        (batch.background, bank.pixels.numpy()[rows["background"][numbers]]),
    ]:
        np.testing.assert_array_equal(loader.normalisation.pixels(images), pixels)
        assert images.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch.mask[:, 0], (masks >= 128).astype(np.float32))
    np.testing.assert_array_equal(batch.depth[:, 0], depths / np.float32(255))
    assert batch.weight.tolist() == [1] * 12


def test_away_from_the_object_composite_and_background_show_the_same(loader: Loader) -> None:
    """The background belongs to the composite: a mix-up of numbers would differ everywhere."""
    with loader.validate(size=224, batch_size=16) as batches:
        batch = next(batches)
    assert batch.background is not None
    difference = (batch.composite - batch.background).abs().mean(dim=1, keepdim=True)
    assert difference[batch.mask == 0].mean() < 0.2 * difference[batch.mask == 1].mean()


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_resuming_at_any_step_gives_the_undisturbed_stream_bit_for_bit(
    loader: Loader, small_set: Path, cut: int
) -> None:
    whole = _train(loader, steps=6, batch_size=50)
    with Loader(small_set, CONFIG, CPU) as again:
        rest = _train(again, start=cut * 50, steps=6 - cut, batch_size=50)
    for name in ("number", "composite", "background", "mask", "depth", "weight"):
        assert torch.equal(_joined(whole[cut:], name), _joined(rest, name))


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_slices_concatenate_to_the_global_batch(
    loader: Loader, small_set: Path, world_size: int
) -> None:
    whole = _train(loader, steps=2, start=7)
    whole_validation = list(_validate(loader))
    ranks, validations = [], []
    for rank in range(world_size):
        with Loader(small_set, CONFIG, CPU, rank=rank, world_size=world_size) as part:
            ranks.append(_train(part, steps=2, start=7))
            validations.append(_validate(part))
    for parts, batches in ((ranks, whole), (validations, whole_validation)):
        for step, batch in enumerate(batches):
            slices = [steps[step] for steps in parts]
            assert {len(one) for one in slices} == {len(batch) // world_size}
            for name in ("number", "weight"):
                assert torch.equal(_joined(slices, name), getattr(batch, name))
            counted = batch.weight == 1
            assert torch.equal(_joined(slices, "composite")[counted], batch.composite[counted])


def _validate(loader: BatchLoader, batch_size: int = 36) -> list[Batch]:
    with loader.validate(size=32, batch_size=batch_size) as batches:
        return list(batches)


@pytest.mark.parametrize("batch_size", [1, 36, 80, 200])
def test_validation_is_every_sample_once_in_stored_order_padded_at_weight_0(
    loader: Loader, batch_size: int
) -> None:
    batches = _validate(loader, batch_size)
    assert {len(batch) for batch in batches} == {batch_size}
    numbers, weights = _joined(batches, "number"), _joined(batches, "weight")
    assert numbers[weights == 1].tolist() == list(range(80))
    assert (weights[80:] == 0).all()
    assert len(batches) == -(-80 // batch_size)


def test_validation_is_exact_where_training_may_be_scaled(small_set: Path) -> None:
    exact = replace(CONFIG, exact_decode=True)
    with Loader(small_set, CONFIG, CPU) as scaled, Loader(small_set, exact, CPU) as full:
        assert scaled.decoding["scaled"]
        assert not full.decoding["scaled"]
        for name in ("composite", "depth"):
            validation = [_joined(_validate(one), name) for one in (scaled, full)]
            training = [_joined(_train(one, steps=1), name) for one in (scaled, full)]
            assert torch.equal(*validation)
            assert not torch.equal(*training)


def test_dali_streams_the_same_numbers_and_nearly_the_same_pixels(
    loader: Loader, small_set: Path
) -> None:
    with Loader(small_set, replace(CONFIG, decoder="dali"), CPU) as other:
        ours, theirs = _validate(loader), _validate(other)
    assert torch.equal(_joined(ours, "number"), _joined(theirs, "number"))
    assert torch.equal(_joined(ours, "weight"), _joined(theirs, "weight"))
    depth = [_joined(batches, "depth")[:80] for batches in (ours, theirs)]
    assert (depth[0] - depth[1]).abs().mean() < 1 / 255


def test_a_bad_sample_is_replaced_at_weight_0_logged_and_counted_once(
    spoil: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with Loader(spoil([100], part=1), CONFIG, CPU) as loader:
        batches = _train(loader, steps=10)  # two epochs
        numbers, weights = _joined(batches, "number"), _joined(batches, "weight")
        assert numbers[weights == 0].tolist() == [100, 100]
        assert [bad.number for bad in loader.bad_samples] == [100]
    assert caplog.text.count("sample 100 (train-000001.tar, ") == 1


def test_more_bad_samples_than_tolerated_are_an_error_that_names_the_last(
    spoil: Callable[..., Path],
) -> None:
    damaged = spoil([3, 50, 120])
    with Loader(damaged, replace(CONFIG, max_bad_samples=3 / 240), CPU) as tolerant:
        assert len(_train(tolerant)) == 5
        assert len(tolerant.bad_samples) == 3
    with Loader(damaged, replace(CONFIG, max_bad_samples=2 / 240), CPU) as strict:
        with pytest.raises(LoaderError) as caught:
            _train(strict)
        last = strict.bad_samples[-1]
    assert f"{last.shard}, {last.member}" in str(caught.value)
    assert f"run `maskdepth verify {damaged}`" in str(caught.value)


def test_a_bad_sample_counts_when_its_batch_is_handed_out(
    spoil: Callable[..., Path],
) -> None:
    """Not sooner, though later batches are ready: a checkpoint knows of what was trained on."""
    damaged = spoil([100])
    at = Order(num_samples=240, seed=4).sample_numbers(0, 240).tolist().index(100) // 24
    assert at > 1
    for config in (CONFIG, replace(CONFIG, max_bad_samples=0)):
        with (
            Loader(damaged, config, CPU) as loader,
            loader.train(size=32, batch_size=24, start=0, num_steps=10) as batches,
        ):
            for _ in range(at):
                next(batches)
                assert loader.num_bad_samples == 0
            if config.max_bad_samples:
                assert (next(batches).weight == 0).sum() == 1
            else:
                with pytest.raises(LoaderError, match="sample 100"):
                    next(batches)
            assert loader.num_bad_samples == 1


def test_batches_are_finished_by_one_thread_of_their_own(
    loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no more of them than are asked for."""
    names, normalise = [], Normalisation.images

    def images(self: Normalisation, *given: Tensor) -> Tensor:
        names.append(threading.current_thread().name)
        return normalise(self, *given)

    monkeypatch.setattr(Normalisation, "images", images)
    assert len(_train(loader, steps=3)) == 3
    assert len(names) == 2 * 3, "composite and background of three batches"
    assert len(set(names)) == 1
    assert names[0].startswith("maskdepth-finish")


def test_a_limit_of_0_tolerates_none(spoil: Callable[..., Path]) -> None:
    damaged = spoil([3])
    with (
        Loader(damaged, replace(CONFIG, max_bad_samples=0), CPU) as strict,
        pytest.raises(LoaderError, match="1 of 240 samples"),
    ):
        _train(strict)


def test_validation_keys_are_the_names_of_the_samples_in_the_tar(
    loader: Loader, small_set: Path
) -> None:
    shards = read_manifest(small_set).split_shards("val")
    names = [n for s in shards for n, _ in read_members(small_set / f"{s.name}.tar")]
    keys = [name.partition(".")[0] for name in names if ".fgbg." in name]
    assert [loader.validation_key(number) for number in range(80)] == keys


def test_a_key_that_could_leave_the_folder_gives_way_to_the_number(
    loader: Loader, copied_set: Path
) -> None:
    tar = copied_set / "val-000000.tar"
    content = bytearray(tar.read_bytes())
    key = loader.validation_key(0).encode()
    content[: len(key)] = b"../" + key[3:]
    tar.write_bytes(content)
    with Loader(copied_set, CONFIG, CPU) as damaged:
        assert damaged.validation_key(0) == "000000"
        assert damaged.validation_key(1) == loader.validation_key(1)


def test_a_truncated_shard_is_refused_before_anything_is_streamed(copied_set: Path) -> None:
    os.truncate(copied_set / "train-000003.tar", 1000)
    with pytest.raises(
        LoaderError, match=r"train-000003.tar is \d+ bytes shorter.*maskdepth verify"
    ):
        Loader(copied_set, CONFIG, CPU)


def _threads_and_files() -> tuple[int, int, int]:
    gc.collect()
    return (
        threading.active_count(),
        len(os.listdir("/proc/self/task")),  # noqa: PTH208 -- entries vanish while listed
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
    )


def test_breaking_out_and_closing_leave_no_thread_and_no_file(small_set: Path) -> None:
    with Loader(small_set, CONFIG, CPU) as loader:
        _train(loader)  # starts what torch keeps
    before = _threads_and_files()
    with Loader(small_set, CONFIG, CPU) as loader:
        with loader.train(size=32, batch_size=8, start=0, num_steps=100) as batches:
            for step, _ in enumerate(batches):
                if step == 3:
                    break
        assert threading.active_count() == before[0]
    assert _threads_and_files() == before


def test_closing_the_loader_ends_a_stream_that_is_still_open(small_set: Path) -> None:
    before = threading.active_count()
    loader = Loader(small_set, CONFIG, CPU)
    with loader.train(size=32, batch_size=8, start=0, num_steps=100) as batches:
        next(batches)
        loader.close()
        assert threading.active_count() == before
        assert next(batches, None) is None


def test_two_streams_of_one_loader_may_be_open_at_once(loader: Loader) -> None:
    """The trainer validates in the middle of a stage."""
    expected = _joined(_train(loader, steps=4), "composite")
    with loader.train(size=32, batch_size=48, start=0, num_steps=4) as batches:
        found = [next(batches), next(batches)]
        assert len(_validate(loader)) == 3
        found += list(batches)
    assert torch.equal(_joined(found, "composite"), expected)


def test_a_set_without_backgrounds_streams_none(
    small_set: Path, tmp_path: Path, reseal: Callable[[Path], None]
) -> None:
    copy = Path(shutil.copytree(small_set, tmp_path / "set"))
    manifest = replace(read_manifest(copy), backgrounds=())
    files = dict(manifest.files)
    for shard in manifest.shards:
        path = copy / f"{shard.name}.npy"
        rows = np.load(path)
        rows["background"] = -1
        np.save(path, rows)
    del files["backgrounds.tar"]
    (copy / "manifest.json").write_text(replace(manifest, files=files).text())
    reseal(copy)
    with Loader(copy, CONFIG, CPU) as loader:
        assert _train(loader, steps=1)[0].background is None
        assert _validate(loader)[0].background is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("decoder", "opencv"),
        ("threads", 0),
        ("prefetch_batches", 0),
        ("max_bad_samples", 1.5),
        ("hw_decoder_load", -0.1),
    ],
)
def test_an_impossible_configuration_is_refused_naming_the_value(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value!r}; it must be"):
        replace(CONFIG, **{name: value})  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("decoder", ["auto", "turbojpeg"])
def test_on_a_gpu_batches_arrive_there_and_agree_with_the_processors(
    loader: Loader, small_set: Path, decoder: str
) -> None:
    device = torch.device("cuda")
    with Loader(small_set, replace(CONFIG, decoder=decoder), device) as other:
        assert other.decoding["decoder"] == ("dali" if decoder == "auto" else "turbojpeg")
        ours, theirs = _validate(loader), _validate(other)
    for name in ("composite", "background", "mask", "depth", "number", "weight"):
        assert _joined(theirs, name).device.type == "cuda"
    assert torch.equal(_joined(ours, "number"), _joined(theirs, "number").cpu())
    difference = _joined(ours, "depth")[:80] - _joined(theirs, "depth")[:80].cpu()
    assert difference.abs().mean() < 1 / 255
