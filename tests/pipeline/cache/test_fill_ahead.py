"""The next stage's cache is filled beside this stage, and nobody notices."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pipeline.cache.caches
from pipeline.cache.fill_ahead import BATCH_SIZE, Filler
from pipeline.cache.memory_plan import BYTES_PER_PIXEL, MemoryPlan, Room
from pipeline.loader import Loader, LoaderConfig
from pipeline.order import Numbers
from pipeline.source import BadSample, EncodedSample, SampleSource

CPU = torch.device("cpu")
SAMPLES, BATCH = 240, 48
CONFIG = LoaderConfig(decoder="turbojpeg", threads=2, cache="host", fill_ahead=True)
STAGES = [(32, 9.0, ()), (48, 2.0, ())]


class Reads:
    """Counts the samples that are read, by thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num = 0
        original = SampleSource.read_many

        def read(source: SampleSource, numbers: Numbers) -> list[EncodedSample | BadSample]:
            self.num += len(numbers)
            return original(source, numbers)

        monkeypatch.setattr(SampleSource, "read_many", read)


def filling() -> bool:
    return any(thread.name == "maskdepth-fill" for thread in threading.enumerate())


def test_the_next_stage_finds_its_cache_full_and_the_same_pixels(
    small_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[MemoryPlan] = []
    reads = Reads(monkeypatch)
    with Loader(small_set, CONFIG, CPU, tell_plan=told.append) as loader:
        loader.expect(STAGES)
        with loader.train_pixels(size=32, batch_size=BATCH, start=0, num_steps=45) as batches:
            for _ in range(5):
                next(batches)
            assert [plan.need.size for plan in told] == [32, 48]
            give_up = time.monotonic() + 60
            while filling() and time.monotonic() < give_up:
                next(batches)  # it waits until this stage's own cache is full
                time.sleep(0.02)
            # where epochs meet, samples that are still under way are decoded twice
            assert 2 * SAMPLES <= reads.num < 3 * SAMPLES
            filled = reads.num
        with loader.train_pixels(size=48, batch_size=BATCH, start=2160, num_steps=5) as batches:
            found = [(batch.numbers.tolist(), batch.composite.clone()) for batch in batches]
        assert reads.num == filled, "nothing was decoded again"
        assert len(told) == 2
    with (
        Loader(small_set, replace(CONFIG, cache="off"), CPU) as plain,
        plain.train_pixels(size=48, batch_size=BATCH, start=2160, num_steps=5) as batches,
    ):
        for (numbers, composite), expected in zip(found, batches, strict=True):
            assert numbers == expected.numbers.tolist()
            assert torch.equal(composite, expected.composite)


@pytest.mark.parametrize("stop", ["next stage", "close"])
def test_a_filling_that_is_not_done_is_stopped_and_what_it_did_is_kept(
    small_set: Path, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads at the lowest priority, by which it is told apart and held up here."""
    held_up, told_to_stop = threading.Event(), threading.Event()
    read, stop_filling, read_ahead = SampleSource.read_many, Filler.stop, [0]

    def hold_up(source: SampleSource, numbers: Numbers) -> list[EncodedSample | BadSample]:
        if os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == 19:
            read_ahead[0] += len(numbers)
            if read_ahead[0] > BATCH_SIZE:
                held_up.set()
                assert told_to_stop.wait(60)
        return read(source, numbers)

    def stop_and_let_go(filler: Filler) -> None:
        filler._stopped.set()
        told_to_stop.set()
        stop_filling(filler)

    monkeypatch.setattr(SampleSource, "read_many", hold_up)
    monkeypatch.setattr(Filler, "stop", stop_and_let_go)
    with Loader(small_set, CONFIG, CPU) as loader:
        loader.expect(STAGES)
        with loader.train_pixels(size=32, batch_size=BATCH, start=0, num_steps=6) as batches:
            for _ in batches:
                pass
        assert held_up.wait(60)
        assert filling()
        if stop == "next stage":
            reads = Reads(monkeypatch)
            with loader.train_pixels(size=48, batch_size=BATCH, start=0, num_steps=5) as batches:
                assert not filling()
                for _ in batches:
                    pass
            assert 0 < reads.num < SAMPLES
    assert not filling()


@pytest.mark.parametrize(
    ("room", "stages"),
    [
        (SAMPLES * BYTES_PER_PIXEL * 32**2 * 2, STAGES),  # not for both
        (1 << 30, STAGES[:1]),  # there is no next stage
        (1 << 30, [(64, 1.0, ()), *STAGES[1:]]),  # another stage than those told of
    ],
)
def test_nothing_is_filled_ahead_without_room_or_reason(
    small_set: Path,
    room: int,
    stages: list[tuple[int, float, tuple[int, ...]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        pipeline.cache.caches,
        "measure_room",
        lambda *_, **__: Room(device=None, host=room, file=None),
    )
    told: list[MemoryPlan] = []
    with Loader(small_set, CONFIG, CPU, tell_plan=told.append) as loader:
        loader.expect(stages)
        with loader.train_pixels(size=32, batch_size=BATCH, start=0, num_steps=6) as batches:
            next(batches)
            assert not filling()
    assert [plan.need.size for plan in told] == [32]


def test_it_is_only_done_where_it_is_asked_for(small_set: Path) -> None:
    with Loader(small_set, replace(CONFIG, fill_ahead=False), CPU) as loader:
        loader.expect(STAGES)
        with loader.train_pixels(size=32, batch_size=BATCH, start=0, num_steps=6) as batches:
            next(batches)
            assert not filling()
