"""Some of several sets stream alone: each of their samples once an epoch, and no other's."""

import shutil
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.cache.caches
from pipeline.augment import AugmentConfig
from pipeline.cache.cached_stream import CachedStream
from pipeline.cache.memory_plan import BYTES_PER_PIXEL, MemoryPlan, Room
from pipeline.cache.sample_table import DeviceTable, SampleCache
from pipeline.decoder import DecodedBatch, Request
from pipeline.error import LoaderError
from pipeline.loader import Loader, LoaderConfig
from pipeline.order import Numbers, Order
from pipeline.remote.folder import RemoteConfig
from pipeline.source import BadSample, EncodedSample, SampleSource
from pipeline.subset import Subset
from pipeline.windowed import WindowedOrder
from shards.convert import convert
from shards.manifest import read_manifest
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise

CPU = torch.device("cpu")
SIZE, BATCH = 16, 10
CONFIG = LoaderConfig(
    decoder="turbojpeg", threads=2, seed=4, cache="off", tune="off",
    augment=AugmentConfig(flip=0.5),
)  # fmt: skip
LENGTHS = (24, 36, 60)
"""Training samples of three sets, in shards of 16; the last has as many as the others."""

SHARDS = st.lists(
    st.lists(st.integers(0, 7), max_size=6), min_size=1, max_size=5
).filter(lambda sets: any(map(sum, sets)))  # fmt: skip


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three sets at 32 px, with a quarter more samples for validation."""
    folder = tmp_path_factory.mktemp("sets")
    found = []
    for number, length in enumerate(LENGTHS, 1):
        made = SynthConfig(
            count=length * 4 // 3, size=32, seed=number, num_backgrounds=2, num_foregrounds=4
        )
        synthesise(folder / f"source{number}", made)
        out = folder / f"set{number}"
        convert(
            ConvertConfig(
                sources=(folder / f"source{number}",), out=out, samples_per_shard=16, val=0.25,
                processes=1,
            )
        )  # fmt: skip
        found.append(out)
    assert tuple(read_manifest(path).num_samples("train") for path in found) == LENGTHS
    return found


Shown = list[tuple[list[int], tuple[torch.Tensor, ...]]]


def _shown(loader: Loader, *, steps: int, start: int = 0, **stage: Any) -> Shown:
    """Numbers and pixels of each batch."""
    options = {"size": SIZE, "batch_size": BATCH, **stage}
    with loader.train(start=start, num_steps=steps, **options) as batches:
        return [
            (
                batch.number.tolist(),
                (batch.composite.clone(), batch.mask.clone(), batch.depth.clone()),
            )
            for batch in batches
        ]


def _assert_same(one: Shown, other: Shown) -> None:
    assert [numbers for numbers, _ in one] == [numbers for numbers, _ in other]
    for (_, here), (_, there) in zip(one, other, strict=True):
        assert all(map(torch.equal, here, there))


@given(shards=SHARDS, data=st.data())
@settings(max_examples=150, deadline=None)
def test_each_sample_of_the_sets_comes_once_an_epoch_on_all_ranks_and_no_other(
    shards: list[list[int]], data: st.DataObject
) -> None:
    chosen = tuple(sorted(data.draw(st.sets(st.integers(1, len(shards))))))
    subset = Subset.of(chosen, shards)
    firsts = np.cumsum([0, *map(sum, shards)])
    own = [
        number
        for place in chosen or range(1, len(shards) + 1)
        for number in range(firsts[place - 1], firsts[place])
    ]
    assert subset.num_samples == len(own)
    if not own:
        with pytest.raises(LoaderError, match="no training samples in set"):
            subset.open_order("global", seed=0, window_shards=None)
        return
    name = data.draw(st.sampled_from(["global", "windowed"]))
    window = data.draw(st.integers(4, 8)) if name == "windowed" else None
    seed, world_size = data.draw(st.integers(0, 2**63 - 1)), data.draw(st.integers(1, 3))
    batch_size = world_size * data.draw(st.integers(1, 5))
    epoch = data.draw(st.integers(0, 2**20))
    order = subset.open_order(name, seed=seed, window_shards=window)
    # whole batches that begin before the epoch, at any sample, and end behind it
    before = data.draw(st.integers(0, len(own)))
    start = max(epoch * len(own) - before, 0)
    steps = -(-((epoch + 1) * len(own) - start) // batch_size)

    def read(start: int, steps: int) -> Numbers:
        ranks = [
            list(
                order.batches(
                    batch_size=batch_size, start=start, num_steps=steps, rank=rank,
                    world_size=world_size,
                )
            )
            for rank in range(world_size)
        ]  # fmt: skip
        return np.concatenate([ranks[rank][step] for step in range(steps) for rank in
                               range(world_size)])  # fmt: skip

    stream = read(start, steps)
    skipped = epoch * len(own) - start
    assert sorted(stream[skipped : skipped + len(own)].tolist()) == own
    gone_on = data.draw(st.integers(0, steps - 1))
    assert (
        read(start + gone_on * batch_size, steps - gone_on).tolist()
        == stream[gone_on * batch_size :].tolist()
    )


@given(shards=SHARDS, data=st.data())
@settings(max_examples=60, deadline=None)
def test_places_and_numbers_are_two_ways_of_one_road(
    shards: list[list[int]], data: st.DataObject
) -> None:
    subset = Subset.of(tuple(data.draw(st.sets(st.integers(1, len(shards))))), shards)
    places = np.arange(subset.num_samples)
    assert (subset.places_of(subset.numbers_at(places)) == places).all()


def test_all_sets_together_are_the_stream_there_always_was() -> None:
    shards = [[5, 3], [4]]
    for sets in ((), (1, 2), (2, 1)):
        subset = Subset.of(sets, shards)
        order = subset.open_order("global", seed=6, window_shards=None)
        assert order == Order(num_samples=12, seed=6)
        assert (subset.sets, subset.first_epoch) == ((), 0)
        assert isinstance(subset.open_order("windowed", seed=6, window_shards=4), WindowedOrder)


def test_the_streams_of_two_sets_of_one_length_are_not_alike() -> None:
    orders = [
        Subset.of(sets, [[50], [50], [50]]).open_order("global", seed=1, window_shards=None)
        for sets in ((1,), (2,), (3,))
    ]
    streams = [(order.sample_numbers(0, 100) % 50).tolist() for order in orders]
    assert streams[0] != streams[1] != streams[2] != streams[0]


def test_the_stream_of_some_sets_never_changes() -> None:
    """Golden: a run that began with an earlier version must go on with the same samples."""
    subset = Subset.of((1, 3), [[4, 2], [9], [3, 3]])
    streams = [
        subset.open_order(name, seed=7, window_shards=window).sample_numbers(10, 16).tolist()
        for name, window in (("global", None), ("windowed", 4))
    ]
    assert streams == [
        [15, 17, 0, 19, 1, 5, 3, 18, 20, 17, 16, 4, 2, 15, 19, 3],
        [5, 18, 3, 1, 4, 20, 0, 5, 17, 2, 19, 16, 15, 18, 2, 4],
    ]
    assert subset.first_epoch == 1785294987278155776


@pytest.mark.parametrize("place", [4, 9])
def test_a_set_that_there_is_not_is_refused(sets: list[Path], place: int) -> None:
    with (
        Loader(sets, CONFIG, CPU) as loader,
        pytest.raises(LoaderError, match=f"no set {place} among 3"),
        loader.train(size=SIZE, batch_size=4, start=0, num_steps=1, sets=(1, place)),
    ):
        pass


def test_pixels_are_those_of_each_sample_whatever_stream_it_comes_in(sets: list[Path]) -> None:
    """Repeated sets, too; numbers are those of all sets together."""
    config = replace(CONFIG, augment=AugmentConfig(flip=0), repeats=(1, 2, 1))
    with Loader(sets, config, CPU) as loader:
        assert loader.set_lengths == (24, 72, 60)
        known = {
            number: pixels[:, i]
            for numbers, parts in _shown(loader, steps=16)
            for pixels in [torch.cat(parts, 1).transpose(0, 1)]
            for i, number in enumerate(numbers)
        }
        assert len(known) == 156
        shown = _shown(loader, steps=12, batch_size=8, sets=(1, 3), start=84)
        drawn = [number for numbers, _ in shown for number in numbers]
        assert sorted(drawn[:84]) == [*range(24), *range(96, 156)]
        for numbers, parts in shown:
            for number, pixels in zip(numbers, torch.cat(parts, 1), strict=True):
                assert torch.equal(pixels, known[number])
        drawn = [n for numbers, _ in _shown(loader, steps=9, batch_size=8, sets=(2,))
                 for n in numbers]  # fmt: skip
        assert sorted(drawn) == [*range(24, 96)]


@pytest.mark.parametrize(
    "other",
    [{"sets": (1,), "steps": 3, "start": 24}, {"sets": (1, 2), "steps": 8, "start": 0}],
    ids=["the next epoch", "another stream"],
)
def test_a_sample_is_changed_anew_in_each_pass(sets: list[Path], other: dict[str, Any]) -> None:
    first = {"sets": (1,), "steps": 3, "start": 0}
    with Loader(sets, CONFIG, CPU) as loader:
        one, two = (
            {
                number: parts[0][i]
                for numbers, parts in _shown(loader, batch_size=8, **stage)
                for i, number in enumerate(numbers)
            }
            for stage in (first, other)
        )
    alike = sum(torch.equal(one[number], two[number]) for number in range(24))
    assert 3 < alike < 21, "each flipped by a coin of its own"


STAGES: tuple[dict[str, Any], ...] = (
    {"sets": (2,), "start": 0, "steps": 11},
    {"sets": (1, 3), "start": 0, "steps": 17},
    {"sets": (), "start": 0, "steps": 25},
    {"sets": (2,), "start": 110, "steps": 7},
    {"sets": (1, 2), "start": 0, "steps": 12},
    {"sets": (3,), "start": 0, "steps": 12},
)


def _all_stages(loader: Loader) -> Shown:
    return [shown for stage in STAGES for shown in _shown(loader, **stage)]


@pytest.mark.parametrize("order", ["global", "windowed"])
def test_two_ranks_share_what_one_would_read(sets: list[Path], order: str) -> None:
    config = replace(CONFIG, order=order)
    with Loader(sets, config, CPU) as alone:
        whole = _shown(alone, **STAGES[1])
    shares = []
    for rank in (0, 1):
        with Loader(sets, config, CPU, rank=rank, world_size=2) as loader:
            shares.append(_shown(loader, **STAGES[1]))
    joined = [
        (one + other, tuple(map(lambda *parts: torch.cat(parts), first, second)))
        for (one, first), (other, second) in zip(*shares, strict=True)
    ]
    _assert_same(joined, whole)


@pytest.mark.parametrize(("tier", "share"), [("host", 1.0), ("host", 0.5), ("file", 1.0)])
def test_cached_is_streamed_and_only_what_a_stage_reads_is_kept(
    sets: list[Path],
    tier: str,
    share: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where half of the samples have room, and where a cache file is found again."""
    row = BYTES_PER_PIXEL * SIZE**2
    room = int(share * 36 * row)
    if share < 1:
        monkeypatch.setattr(
            pipeline.cache.caches, "measure_room",
            lambda *_, **__: Room(device=None, host=room, file=None),
        )  # fmt: skip
    with Loader(sets, CONFIG, CPU) as loader:
        streamed = _all_stages(loader)
    config = replace(CONFIG, cache=tier, cache_dir=tmp_path / "cache")
    told: list[MemoryPlan] = []
    with Loader(sets, config, CPU, tell_plan=told.append) as loader:
        _assert_same(_all_stages(loader), streamed)
    assert [plan.need.samples for plan in told] == [36, 84, 120, 36, 60, 60]
    passes = [110 / 36, 170 / 84, 250 / 120, 70 / 36, 2, 2]
    assert [plan.need.passes for plan in told] == passes
    if share < 1:
        assert [plan.num_cached for plan in told] == [18] * 6
    if tier == "file":
        reads = _count_reads(monkeypatch)
        with Loader(sets, config, CPU) as loader:
            _assert_same(_all_stages(loader), streamed)
        assert not reads, "every stage found its file"


def _count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The training samples that are read from now on."""
    found: list[int] = []
    original = SampleSource.read_many

    def read(source: SampleSource, numbers: Numbers) -> list[EncodedSample | BadSample]:
        if source.split == "train":
            found.extend(numbers.tolist())
        return original(source, numbers)

    monkeypatch.setattr(SampleSource, "read_many", read)
    return found


@pytest.mark.parametrize("rows", [30, 84])
def test_a_table_on_the_device_gives_what_is_streamed(sets: list[Path], rows: int) -> None:
    """The twin on the processor of what runs on a GPU; also where not all have a row."""
    with Loader(sets, CONFIG, CPU) as loader:
        subset = loader.training.subset((1, 3))
        order = subset.open_order("global", seed=4, window_shards=None)
        requests = [
            Request(numbers=numbers, num_counted=len(numbers))
            for numbers in order.batches(batch_size=BATCH, start=5, num_steps=20)
        ]
        with loader.decoder.stream(loader.training, requests, size=SIZE, exact=False) as batches:
            expected = [(batch.numbers.tolist(), _copied(batch)) for batch in batches]
        table = DeviceTable(rows, SIZE, CPU)
        cache = SampleCache(table=table, subset=subset)
        stream = CachedStream(
            cache, loader.decoder, loader.training, exact=False, device=CPU, threads=2, ahead=2
        )
        with closing(stream.batches(requests)) as batches:
            found = [(batch.numbers.tolist(), _copied(batch)) for batch in batches]
        _assert_same(found, expected)
        assert cache.is_filled
        assert table.num_held == rows


def _copied(batch: DecodedBatch) -> tuple[torch.Tensor, ...]:
    return batch.composite.clone(), batch.mask.clone(), batch.depth.clone()


def test_a_stage_reads_its_own_samples_once_and_no_other(
    sets: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = _count_reads(monkeypatch)
    with Loader(sets, replace(CONFIG, cache="host"), CPU) as loader:
        _shown(loader, sets=(2,), steps=40, batch_size=8)
    assert {*reads} == {*range(24, 60)}
    # where epochs meet, samples that are still under way are decoded twice
    assert len(reads) < 2 * 36


def test_the_next_stages_sets_are_filled_ahead_and_nothing_else(
    sets: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the same size: only the sets differ."""
    told: list[MemoryPlan] = []
    config = replace(CONFIG, cache="host", fill_ahead=True)
    with Loader(sets, CONFIG, CPU) as loader:
        expected = _shown(loader, sets=(3,), steps=8)
    with Loader(sets, config, CPU, tell_plan=told.append) as loader:
        loader.expect([(SIZE, 9.0, (1,)), (SIZE, 2.0, (3,)), (SIZE, 5.0, ())])
        reads = _count_reads(monkeypatch)
        with loader.train(
            size=SIZE, batch_size=8, start=0, num_steps=100_000, sets=(1,)
        ) as batches:
            give_up = time.monotonic() + 60
            while not {*reads} >= {*range(60, 120)} and time.monotonic() < give_up:
                next(batches)
                time.sleep(0.01)
            filler = loader._caches._filler
            assert filler is not None
            filler._thread.join(60)
        assert [plan.need.samples for plan in told] == [24, 60]
        assert {*reads} == {*range(24), *range(60, 120)}
        reads.clear()
        monkeypatch.setattr(loader._caches, "_fill_next", lambda *_, **__: None)
        _assert_same(_shown(loader, sets=(3,), steps=8), expected)
        assert not reads


@pytest.mark.parametrize("order", ["global", "windowed"])
def test_only_the_shards_of_the_sets_are_fetched(
    sets: list[Path], web: Any, tmp_path: Path, order: str
) -> None:
    for path in sets:
        shutil.copytree(path, web.folder / path.name)
    config = replace(
        CONFIG, order=order,
        remote=RemoteConfig(cache_dir=tmp_path / "fetched", cache_gb=1, backoff_s=0.01),
    )  # fmt: skip
    with Loader(sets, replace(CONFIG, order=order), CPU) as loader:
        expected = _shown(loader, sets=(1, 3), steps=13)
    with Loader([f"{web.url}/{path.name}" for path in sets], config, CPU) as loader:
        _assert_same(_shown(loader, sets=(1, 3), steps=13), expected)
    fetched = [name for name in web.fetched if name.startswith("train-") and name.endswith(".tar")]
    assert len(fetched) == 2 + 4, "each shard of the first and the third, once"
