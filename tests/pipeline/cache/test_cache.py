"""Cached is streamed, bit for bit, whatever lies where; and no cache outlives its use."""

import gc
import mmap
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pipeline.cache.caches
import pipeline.cache.gather as gathering
import pipeline.cache.sample_table
from pipeline.augment import AugmentConfig
from pipeline.batch import Batch
from pipeline.cache.cached_stream import CachedStream
from pipeline.cache.gather import Bytes, Gather
from pipeline.cache.gather_kernel import gather_rows
from pipeline.cache.memory_plan import BYTES_PER_PIXEL, MemoryPlan, Room
from pipeline.cache.sample_table import DeviceTable, Numbers, SampleCache
from pipeline.decoder import DecodedBatch, Request
from pipeline.error import LoaderError
from pipeline.loader import Loader, LoaderConfig
from pipeline.source import BadSample, EncodedSample, SampleSource

CPU = torch.device("cpu")
SIZE = 32
SAMPLES = 240
BAD = [3, 100, 101, 102, 103, 239]
ROW = BYTES_PER_PIXEL * SIZE**2
CONFIG = LoaderConfig(
    decoder="turbojpeg",
    threads=2,
    seed=4,
    augment=AugmentConfig(flip=0.5),
    max_bad_samples=0.1,
    cache="off",
)

Free = Callable[[int], None]
Pixels = tuple[torch.Tensor, ...]
Shown = list[tuple[Pixels, list[int], list[float], list[BadSample]]]


@pytest.fixture(scope="module")
def spoilt(small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small set with six bad samples in three of its shards."""
    out = Path(shutil.copytree(small_set, tmp_path_factory.mktemp("cache") / "set"))
    for number in BAD:
        shard, row = divmod(number, 64)
        tar = out / f"train-{shard:06d}.tar"
        index = np.load(out / f"train-{shard:06d}.npy")
        content = bytearray(tar.read_bytes())
        part = number % 3
        content[int(index["offset"][row, part]) + 200] ^= 0x10
        tar.write_bytes(content)
    return out


def copied(batches: Iterator[DecodedBatch]) -> Shown:
    """What batches show, out of the memory that they share."""
    return [
        (
            (batch.composite.clone(), batch.mask.clone(), batch.depth.clone()),
            batch.numbers.tolist(),
            batch.weights.tolist(),
            list(batch.bad),
        )
        for batch in batches
    ]


def streamed(loader: Loader, start: int, steps: int, batch_size: int) -> Shown:
    with loader.train_pixels(
        size=SIZE, batch_size=batch_size, start=start, num_steps=steps
    ) as batches:
        return copied(batches)


def same(found: Shown, expected: Shown) -> None:
    assert len(found) == len(expected)
    for step, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one[1:] == other[1:], step
        for pixels, right in zip(one[0], other[0], strict=True):
            assert torch.equal(pixels, right), step


@pytest.fixture
def rows_free(monkeypatch: pytest.MonkeyPatch) -> Free:
    """Makes host and disk look as if they had room for so many samples."""

    def limit(num: int) -> None:
        free = num * ROW + ROW // 2
        monkeypatch.setattr(
            pipeline.cache.caches,
            "measure_room",
            lambda *_, **__: Room(device=None, host=free, file=free),
        )

    return limit


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    tier=st.sampled_from(["host", "file"]),
    rows=st.sampled_from([1, 100, 239, 240]),
    batch_size=st.sampled_from([5, 48, 100, 250]),
    start=st.integers(0, 1000),
    data=st.data(),
)
def test_what_is_cached_is_what_is_streamed_bit_for_bit(
    spoilt: Path,
    tmp_path_factory: pytest.TempPathFactory,
    rows_free: Free,
    tier: str,
    rows: int,
    batch_size: int,
    start: int,
    data: st.DataObject,
) -> None:
    """Pixels, numbers, weights and bad samples, over several passes and after a resume."""
    rows_free(rows)
    steps = -(-520 // batch_size)
    cut = data.draw(st.integers(1, steps - 1))
    folder = tmp_path_factory.mktemp("files")
    config = replace(CONFIG, cache=tier, cache_dir=folder)
    with Loader(spoilt, CONFIG, CPU) as plain:
        expected = streamed(plain, start, steps, batch_size)
    with Loader(spoilt, config, CPU) as loader:
        found = streamed(loader, start, cut, batch_size)
        same(found, expected[:cut])
    with Loader(spoilt, config, CPU) as resumed:
        at = start + cut * batch_size
        same(streamed(resumed, at, steps - cut, batch_size), expected[cut:])
        again = streamed(resumed, start, steps, batch_size)
        same(again, expected)
    shutil.rmtree(folder)


@pytest.mark.parametrize("rows", [100, 240])
@pytest.mark.parametrize("decoder", ["turbojpeg", "dali"])
def test_a_table_on_the_device_gives_what_is_streamed(
    spoilt: Path, rows: int, decoder: str
) -> None:
    """The twin on the processor of what runs on a GPU."""
    with Loader(spoilt, replace(CONFIG, decoder=decoder), CPU) as loader:
        requests = [
            Request(numbers=numbers, num_counted=len(numbers))
            for numbers in loader.order.batches(batch_size=50, start=7, num_steps=15)
        ]
        stream = loader.decoder.stream(loader.training, requests, size=SIZE, exact=False)
        with stream as batches:
            expected = copied(batches)
        table = DeviceTable(rows, SIZE, CPU)
        cache = SampleCache(table=table, subset=loader.training.subset())
        cached = CachedStream(
            cache, loader.decoder, loader.training, exact=False, device=CPU, threads=2, ahead=2
        )
        with closing(cached.batches(requests)) as batches:
            same(copied(batches), expected)
        assert cache.table.num_held == sum(number not in BAD for number in range(rows))


@pytest.mark.parametrize("rows", [100, 240])
def test_dali_streams_the_same_from_a_host_cache(spoilt: Path, rows: int, rows_free: Free) -> None:
    rows_free(rows)
    config = replace(CONFIG, decoder="dali")
    with (
        Loader(spoilt, config, CPU) as plain,
        Loader(spoilt, replace(config, cache="host"), CPU) as loader,
    ):
        expected = streamed(plain, 7, 15, 50)
        same(streamed(loader, 7, 15, 50), expected)
        same(streamed(loader, 7, 15, 50), expected)


def test_training_batches_are_the_same_augmented_and_after_a_change_of_size(
    small_set: Path,
) -> None:
    """Flips are drawn by sample and epoch, so they know nothing of caches."""
    with (
        Loader(small_set, CONFIG, CPU) as plain,
        Loader(small_set, replace(CONFIG, cache="host"), CPU) as loader,
    ):
        for size, start in ((32, 0), (48, 600), (32, 1200)):
            stream = {"size": size, "batch_size": 50, "start": start, "num_steps": 12}
            with plain.train(**stream) as expected, loader.train(**stream) as found:
                for one, other in zip(found, expected, strict=True):
                    for name in ("composite", "background", "mask", "depth", "number", "weight"):
                        assert torch.equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("world_size", [1, 3])
def test_validation_is_the_same_from_its_cache_and_needs_no_decoder(
    small_set: Path, world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding too: of three ranks the last has nothing else in the last batch."""
    for rank in range(world_size):
        place = {"rank": rank, "world_size": world_size}
        with (
            Loader(small_set, CONFIG, CPU, **place) as plain,
            Loader(small_set, replace(CONFIG, cache="host"), CPU, **place) as loader,
        ):
            for number in range(3):
                expected = list(validated(plain))
                if number == 2:
                    monkeypatch.setattr(loader.decoder.__class__, "stream", None)
                for one, other in zip(validated(loader), expected, strict=True):
                    for name in ("composite", "background", "mask", "depth", "number", "weight"):
                        assert torch.equal(getattr(one, name), getattr(other, name))
        monkeypatch.undo()


def validated(loader: Loader) -> Iterator[Batch]:
    with loader.validate(size=SIZE, batch_size=36) as batches:
        yield from batches


def test_later_passes_decode_nothing_but_read_what_is_bad_only_once(
    spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = watched_reads(monkeypatch)
    with Loader(spoilt, replace(CONFIG, cache="host"), CPU) as loader:
        streamed(loader, 0, 5, 48)
        assert sorted(read) == list(range(SAMPLES))
        read.clear()
        found = streamed(loader, 240, 10, 48)
        assert read == []
        replaced = [
            number
            for _, numbers, weights, _ in found[:5]
            for number, weight in zip(numbers, weights, strict=True)
            if not weight
        ]
        assert sorted(replaced) == BAD


@pytest.mark.parametrize("tier", ["host", "file"])
@pytest.mark.parametrize("frames_fit", [True, False])
def test_a_stream_tells_the_gather_its_frames_and_shows_the_same_by_its_kernel(
    spoilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: str, frames_fit: bool
) -> None:
    """Two threads gather two batches ahead, while the consumer holds a third."""
    told: list[bool] = []

    def kernel(rows: Bytes, numbers: Numbers, out: Bytes, past_caches: bool) -> None:
        told.append(past_caches)
        gather_rows(rows, numbers, out, past_caches)

    three_frames = 3 * 48 * ROW
    monkeypatch.setattr(gathering, "l3_bytes", lambda: three_frames - (not frames_fit))
    gather = Gather(lambda: kernel)
    gather.compile()
    monkeypatch.setattr(pipeline.cache.sample_table, "gather", gather)
    config = replace(CONFIG, cache=tier, cache_dir=tmp_path)
    with Loader(spoilt, CONFIG, CPU) as plain:
        expected = streamed(plain, 0, 15, 48)
    with Loader(spoilt, config, CPU) as loader:
        same(streamed(loader, 0, 15, 48), expected)
    assert len(told) >= 5, "all of the last epoch at least"
    assert {*told} == {not frames_fit}


@pytest.mark.parametrize(("steps", "is_worth_it"), [(500, True), (499, False)])
def test_the_kernel_is_compiled_when_a_stage_begins_that_will_gather_enough(
    small_set: Path, monkeypatch: pytest.MonkeyPatch, steps: int, is_worth_it: bool
) -> None:
    """Not in its middle, where 120 MB more would look like a leak; 100 passes are enough here."""
    begun: list[bool] = []
    gather = Gather(lambda: gather_rows)
    monkeypatch.setattr(gathering, "WORTH_BYTES", 100 * SAMPLES * ROW)
    monkeypatch.setattr(gather, "_compile_beside", lambda: begun.append(True))
    monkeypatch.setattr(pipeline.cache.caches, "gather", gather)
    with Loader(small_set, replace(CONFIG, cache="host"), CPU) as loader:
        with loader.train(size=SIZE, batch_size=48, start=0, num_steps=steps) as batches:
            next(batches)
        list(validated(loader))
    assert bool(begun) == is_worth_it


def test_a_partial_cache_decodes_what_it_has_no_room_for(
    small_set: Path, rows_free: Free, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_free(180)
    with Loader(small_set, replace(CONFIG, cache="host"), CPU) as loader:
        streamed(loader, 0, 5, 48)
        read = watched_reads(monkeypatch)
        streamed(loader, 240, 5, 48)
    assert sorted(read) == list(range(180, 240))


def plans(small_set: Path, config: LoaderConfig, passes: float) -> list[MemoryPlan]:
    told: list[MemoryPlan] = []
    with Loader(small_set, config, CPU, tell_plan=told.append) as loader:
        steps = round(passes * SAMPLES / 48)
        streamed(loader, 0, steps, 48)
        list(validated(loader))
    return told


def test_the_plan_is_told_before_anything_is_filled_and_auto_caches_what_is_read_again(
    small_set: Path,
) -> None:
    [training, validation] = plans(small_set, replace(CONFIG, cache="auto"), 2)
    assert (training.tier, training.num_cached, training.need.what) == ("host", 240, "training")
    assert (validation.tier, validation.num_cached) == ("host", 80)
    [training] = plans(small_set, replace(CONFIG, cache="auto"), 1)
    assert training.tier == "off"
    assert "no sample is read again" in training.text()
    [training, validation] = plans(small_set, replace(CONFIG, cache="host"), 1)
    assert (training.tier, validation.tier) == ("host", "host")


def test_a_device_cache_without_a_gpu_is_an_error_with_the_next_action(small_set: Path) -> None:
    with (
        Loader(small_set, replace(CONFIG, cache="device"), CPU) as loader,
        pytest.raises(LoaderError, match="the device is the CPU; use --cache host"),
    ):
        streamed(loader, 0, 1, 48)


def test_another_size_makes_room_and_promised_memory_is_not_promised_twice(
    small_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The validation's plan knows of the training cache that is not filled yet."""
    monkeypatch.setattr(
        pipeline.cache.caches,
        "measure_room",
        lambda *_, **__: Room(device=None, host=300 * ROW, file=None),
    )
    told: list[MemoryPlan] = []
    config = replace(CONFIG, cache="host")
    with Loader(small_set, config, CPU, tell_plan=told.append) as loader:
        with loader.train_pixels(size=SIZE, batch_size=48, start=0, num_steps=9) as batches:
            list(validated(loader))
            next(batches)
        assert [plan.num_cached for plan in told] == [240, 60]
        with loader.train_pixels(size=2 * SIZE, batch_size=48, start=0, num_steps=9) as batches:
            next(batches)
        assert told[2].num_cached == 75


def test_closing_a_loader_gives_its_memory_back(small_set: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    streamed_once = replace(CONFIG, cache="host")
    with Loader(small_set, streamed_once, CPU) as loader:
        streamed(loader, 0, 5, 48)
    before = resident()
    with Loader(small_set, streamed_once, CPU) as loader:
        with loader.train_pixels(size=224, batch_size=48, start=0, num_steps=5) as batches:
            for _ in batches:
                pass
        filled = resident()
    assert filled - before > 0.9 * SAMPLES * BYTES_PER_PIXEL * 224**2
    assert resident() - before < 0.5 * SAMPLES * BYTES_PER_PIXEL * 224**2


def test_a_run_killed_while_it_fills_a_file_goes_on_with_what_it_had(
    spoilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The samples flagged before the kill are gathered, the others decoded; all are right."""
    script = f"""
        import time
        from dataclasses import replace
        from pathlib import Path
        from pipeline.cache import cache_file
        from tests.pipeline.cache.test_cache import CONFIG, CPU, SIZE, Loader
        cache_file.COMMIT_EVERY_S = 0.01
        config = replace(CONFIG, cache="file", cache_dir=Path({str(tmp_path)!r}))
        with Loader(Path({str(spoilt)!r}), config, CPU) as loader:
            stream = loader.train_pixels(size=SIZE, batch_size=16, start=0, num_steps=15)
            with stream as batches:
                for number, _ in enumerate(batches):
                    time.sleep(0.02)
                    print(number, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as filling:
        assert filling.stdout is not None
        assert b"6\n" in iter(filling.stdout.readline, b"")
        filling.kill()
    read = watched_reads(monkeypatch)
    with Loader(spoilt, CONFIG, CPU) as plain:
        expected = streamed(plain, 0, 5, 48)
    read.clear()
    config = replace(CONFIG, cache="file", cache_dir=tmp_path)
    with Loader(spoilt, config, CPU) as loader:
        same(streamed(loader, 0, 5, 48), expected)
    assert SAMPLES - 16 * 11 <= len(read) <= SAMPLES - 16


def watched_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the samples that are read, as they are."""
    read: list[int] = []
    original = SampleSource.read_many

    def watched(source: SampleSource, numbers: Numbers) -> list[EncodedSample | BadSample]:
        read.extend(numbers.tolist())
        return original(source, numbers)

    monkeypatch.setattr(SampleSource, "read_many", watched)
    return read


@pytest.mark.parametrize("tier", ["host", "file"])
def test_a_stream_left_early_and_a_closed_loader_leave_no_thread_and_no_file(
    small_set: Path, tmp_path: Path, tier: str
) -> None:
    config = replace(CONFIG, cache=tier, cache_dir=tmp_path)

    def walk() -> None:
        with Loader(small_set, config, CPU) as loader:
            for steps in (3, 9):  # while it fills, and while it gathers
                stream = loader.train_pixels(size=SIZE, batch_size=48, start=0, num_steps=100)
                with stream as batches:
                    for _ in range(steps):
                        next(batches)

    walk()  # starts what torch keeps
    before = (threading.active_count(), num_open_files())
    walk()
    assert (threading.active_count(), num_open_files()) == before


def num_open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- entries vanish while listed
