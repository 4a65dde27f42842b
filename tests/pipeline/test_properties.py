"""What the loader promises, for any number of samples, shards, batch, ranks and either order."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.training.config import differences
from pipeline.batch import Batch
from pipeline.error import LoaderError
from pipeline.loader import Loader, LoaderConfig
from shards.convert import convert
from shards.manifest import NAME, FileRecord, read_manifest
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise

CPU = torch.device("cpu")
PARTS = ("number", "weight", "composite", "background", "mask", "depth")
FEW, MANY = 25, 500
"""Examples per property: in `make test`, and in `make soak`."""

PER_SHARD = 20
SHARDS = st.lists(st.integers(1, PER_SHARD), min_size=1, max_size=6)
ORDERS = st.sampled_from([("global", None), ("windowed", None), ("windowed", 4)])


@dataclass(frozen=True, kw_only=True)
class Case:
    """A set and a way to stream it."""

    train: list[int]
    """Samples of each training shard."""

    val: list[int]
    seed: int
    order: tuple[str, int | None]
    world_size: int
    share: int
    """Samples of a batch per rank."""

    @property
    def batch_size(self) -> int:
        """Samples of a global batch."""
        return self.share * self.world_size

    @property
    def config(self) -> LoaderConfig:
        """Of the loaders that stream it."""
        order, window_shards = self.order
        return LoaderConfig(
            decoder="turbojpeg", threads=1, seed=self.seed, order=order, window_shards=window_shards
        )


CASES = st.builds(
    Case,
    train=SHARDS,
    val=st.lists(st.integers(1, PER_SHARD), min_size=1, max_size=2),
    seed=st.integers(0, 2**63 - 1),
    order=ORDERS,
    world_size=st.integers(1, 4),
    share=st.integers(1, 17),
)


@pytest.fixture(scope="module")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """At least six full shards for training and two for validation, at 32 px."""
    folder = tmp_path_factory.mktemp("tiny")
    config = SynthConfig(count=240, size=32, seed=8, num_backgrounds=3, num_foregrounds=8)
    synthesise(folder / "source", config)
    convert(
        ConvertConfig(
            sources=(folder / "source",),
            out=folder / "set",
            samples_per_shard=PER_SHARD,
            split="random",
            val=0.25,
            processes=1,
        )
    )
    return folder / "set"


@contextmanager
def _cut(tiny_set: Path, case: Case) -> Iterator[Path]:
    """The tiny set with only the first few samples of each shard, and only the first shards."""
    with TemporaryDirectory() as folder:
        path = Path(folder)
        manifest = read_manifest(tiny_set)
        files, shards = dict(manifest.files), []
        for split, lengths in (("train", case.train), ("val", case.val)):
            full = manifest.split_shards(split)
            for shard, length in zip(full[: len(lengths)], lengths, strict=True):
                index = f"{shard.name}.npy"
                np.save(path / index, np.load(tiny_set / index)[:length])
                content = (path / index).read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                files[index] = FileRecord(bytes=len(content), sha256=digest)
                shards.append(replace(shard, samples=length))
        for name in files:
            if not (path / name).exists():
                (path / name).symlink_to(tiny_set / name)
        cut = replace(manifest, files=files, shards=tuple(shards))
        (path / NAME).write_text(cut.text(), encoding="utf-8")
        yield path


@contextmanager
def _ranks(path: Path, config: LoaderConfig, world_size: int) -> Iterator[list[Loader]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(Loader(path, config, CPU, rank=rank, world_size=world_size))
            for rank in range(world_size)
        ]


def _train(loader: Loader, *, batch_size: int, start: int, steps: int) -> list[Batch]:
    with loader.train(size=32, batch_size=batch_size, start=start, num_steps=steps) as batches:
        return list(batches)


def _global(ranks: list[list[Batch]], name: str) -> Tensor:
    """One part of all global batches, put together from the ranks' slices."""
    assert len({len(batches) for batches in ranks}) == 1, "all ranks take equally many steps"
    return torch.cat([getattr(batch, name) for step in zip(*ranks, strict=True) for batch in step])


def _exactly_once_per_epoch(tiny_set: Path, case: Case) -> None:
    num = sum(case.train)
    steps = -(-2 * num // case.batch_size)
    with (
        _cut(tiny_set, case) as path,
        _ranks(path, case.config, case.world_size) as loaders,
    ):
        assert loaders[0].num_samples == num
        ranks = [_train(one, batch_size=case.batch_size, start=0, steps=steps) for one in loaders]
    assert {len(batch) for batches in ranks for batch in batches} == {case.share}
    assert (_global(ranks, "weight") == 1).all()
    numbers = _global(ranks, "number").tolist()
    for epoch in (numbers[:num], numbers[num : 2 * num]):
        assert sorted(epoch) == list(range(num))


@given(case=CASES)
@settings(max_examples=FEW, deadline=None)
def test_every_sample_comes_exactly_once_per_epoch(tiny_set: Path, case: Case) -> None:
    _exactly_once_per_epoch(tiny_set, case)


@pytest.mark.soak
@given(case=CASES)
@settings(max_examples=MANY, deadline=None)
def test_every_sample_comes_exactly_once_per_epoch_in_many_cases(
    tiny_set: Path, case: Case
) -> None:
    _exactly_once_per_epoch(tiny_set, case)


def _resumed_equals_undisturbed(tiny_set: Path, case: Case, start: int, cut: int) -> None:
    """Numbers, weights and pixels, augmented, by a loader that is opened anew."""
    steps, batch_size = 6, case.share
    with _cut(tiny_set, case) as path:
        with Loader(path, case.config, CPU) as loader:
            whole = _train(loader, batch_size=batch_size, start=start, steps=steps)
        with Loader(path, case.config, CPU) as again:
            consumed = start + cut * batch_size
            rest = _train(again, batch_size=batch_size, start=consumed, steps=steps - cut)
    for name in PARTS:
        assert torch.equal(_global([whole[cut:]], name), _global([rest], name))


@given(case=CASES, start=st.integers(0, 2**40), cut=st.integers(0, 5))
@settings(max_examples=FEW, deadline=None)
def test_resuming_at_any_step_equals_the_undisturbed_run(
    tiny_set: Path, case: Case, start: int, cut: int
) -> None:
    _resumed_equals_undisturbed(tiny_set, case, start, cut)


@pytest.mark.soak
@given(case=CASES, start=st.integers(0, 2**40), cut=st.integers(0, 5))
@settings(max_examples=MANY, deadline=None)
def test_resuming_at_any_step_equals_the_undisturbed_run_in_many_cases(
    tiny_set: Path, case: Case, start: int, cut: int
) -> None:
    _resumed_equals_undisturbed(tiny_set, case, start, cut)


def _same_for_any_world_size(tiny_set: Path, case: Case, start: int) -> None:
    """Also where a run goes on with another number of ranks than it began with."""
    steps = 4
    with _cut(tiny_set, case) as path:
        with Loader(path, case.config, CPU) as loader:
            alone = _train(loader, batch_size=case.batch_size, start=start, steps=steps)
        with _ranks(path, case.config, case.world_size) as loaders:
            later = start + 2 * case.batch_size
            ranks = [
                _train(one, batch_size=case.batch_size, start=later, steps=steps - 2)
                for one in loaders
            ]
    for name in PARTS:
        assert torch.equal(_global([alone[2:]], name), _global(ranks, name))


@given(case=CASES, start=st.integers(0, 2**40))
@settings(max_examples=FEW, deadline=None)
def test_any_two_world_sizes_give_the_same_global_batches(
    tiny_set: Path, case: Case, start: int
) -> None:
    _same_for_any_world_size(tiny_set, case, start)


@pytest.mark.soak
@given(case=CASES, start=st.integers(0, 2**40))
@settings(max_examples=MANY, deadline=None)
def test_any_two_world_sizes_give_the_same_global_batches_in_many_cases(
    tiny_set: Path, case: Case, start: int
) -> None:
    _same_for_any_world_size(tiny_set, case, start)


@given(case=CASES)
@settings(max_examples=FEW, deadline=None)
def test_validation_counts_every_sample_once_in_equally_many_steps_on_all_ranks(
    tiny_set: Path, case: Case
) -> None:
    """The last batch is padded at weight 0, down to ranks that get nothing but padding."""
    with (
        _cut(tiny_set, case) as path,
        _ranks(path, case.config, case.world_size) as loaders,
    ):
        ranks = []
        for loader in loaders:
            with loader.validate(size=32, batch_size=case.batch_size) as batches:
                ranks.append(list(batches))
    num = sum(case.val)
    numbers, weights = _global(ranks, "number"), _global(ranks, "weight")
    assert len(ranks[0]) == -(-num // case.batch_size)
    assert numbers[weights == 1].tolist() == list(range(num))
    assert len(numbers) - num == (weights == 0).sum()


@pytest.mark.parametrize("lengths", [[20] * 6, [20, 1, 7]])
def test_the_windowed_order_is_another_one_and_the_checkpoint_knows(
    tiny_set: Path, lengths: list[int]
) -> None:
    case = Case(train=lengths, val=[4], seed=3, order=("global", None), world_size=1, share=8)
    windowed = replace(case, order=("windowed", 4))
    with (
        _cut(tiny_set, case) as path,
        Loader(path, case.config, CPU) as one,
        Loader(path, windowed.config, CPU) as other,
    ):
        numbers = [
            _global([_train(loader, batch_size=sum(lengths), start=0, steps=1)], "number")
            for loader in (one, other)
        ]
        assert not torch.equal(*numbers)
        assert differences(one.record, other.record) == [
            "order: 'global' there, 'windowed' here",
            "window_shards: None there, 4 here",
        ]


def test_a_set_without_training_samples_is_refused_when_its_order_is_asked_for(
    tiny_set: Path,
) -> None:
    case = Case(train=[], val=[4], seed=3, order=("windowed", 4), world_size=1, share=8)
    with (
        _cut(tiny_set, case) as path,
        Loader(path, case.config, CPU) as loader,
        pytest.raises(LoaderError, match=r"has no training samples; convert it"),
    ):
        _train(loader, batch_size=4, start=0, steps=1)


@pytest.mark.parametrize(
    ("order", "window_shards", "told"),
    [
        ("shuffled", None, "order is 'shuffled'; it must be one of global, windowed"),
        ("global", 8, "window_shards is of no use to the global order; ask for 'windowed'"),
        ("windowed", 3, "window_shards is 3; it must be at least 4"),
    ],
)
def test_an_order_that_cannot_be_is_refused(
    order: str, window_shards: int | None, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        LoaderConfig(order=order, window_shards=window_shards)
