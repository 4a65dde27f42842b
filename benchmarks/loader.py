"""How many samples a second does the loader stream to uint8 batches, and against whom?

    maskdepth bench loader [--quick] [--peers] [--json FILE]

Method: one set of synthesised triplets at 224 px, page cache warm, global random order, batches of
256 at 224, 96 and 64 px. Contenders take turns in one process: our two decoders, and with `--peers`
what people write first, a torch DataLoader with Pillow and one worker process per core on the same
shards. All deliver the same uint8 arrays (composite RGB, mask, depth); `turbojpeg` may decode at a
reduced scale, as training does; `turbojpeg exact` may not. Its bound is libjpeg-turbo's decoding,
204 us a sample on one core of an AMD Zen 5; the ceiling printed first is that decoding alone.
"""

import io
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.harness import Row, print_rows, report, result, take_turns
from pipeline.loader import Loader, LoaderConfig
from pipeline.opening import open_set
from pipeline.source import EncodedSample, SampleSource
from shards.convert import convert
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise

SIZES = (224, 96, 64)
BATCH = 256
PEER = "DataLoader + Pillow"
CPU = torch.device("cpu")


def run(*, quick: bool, peers: bool, json_path: Path | None) -> None:
    """Measure and print."""
    count, steps, turns = (2_000, 6, 3) if quick else (20_000, 24, 7)
    with tempfile.TemporaryDirectory() as folder:
        set_path = make_set(Path(folder), count)
        print(f"{count:,} triplets at 224 px, batches of {BATCH}, {turns} turns of {steps} batches")
        base = LoaderConfig(decoder="turbojpeg")
        tables: dict[str, list[Row]] = {}
        for size in SIZES:
            contenders = {
                "ceiling: decoding alone": _decoding_alone(set_path, base.num_threads),
                "turbojpeg": _stream(set_path, base, size, steps),
                "turbojpeg exact": _stream(set_path, replace(base, exact_decode=True), size, steps),
                "DALI on the CPU": _stream(set_path, replace(base, decoder="dali"), size, steps),
            }
            if peers:
                contenders[PEER] = _data_loader(set_path, size, steps, base.num_threads)
            rows = take_turns(contenders, turns)
            tables[f"{size} px"] = rows
            print_rows(f"{size} px", "samples/s", rows, rows[-1])
        settings = {"count": count, "batch": BATCH, "steps": steps, "turns": turns, "quick": quick}
        report(result("loader", settings, tables, "samples/s"), json_path)


def make_set(folder: Path, count: int) -> Path:
    """A synthesised set, its files in the page cache."""
    synthesise(folder / "source", SynthConfig(count=count, processes=2))
    convert(ConvertConfig(sources=(folder / "source",), out=folder / "set", check="none"))
    for path in (folder / "set").iterdir():
        path.read_bytes()
    return folder / "set"


def _stream(path: Path, config: LoaderConfig, size: int, steps: int) -> Callable[[], float]:
    starts = itertools.count(0, steps * BATCH)

    def once() -> float:
        with Loader(path, config, CPU) as loader:
            stream = loader.train_pixels(
                size=size, batch_size=BATCH, start=next(starts), num_steps=steps + 2
            )
            with stream as batches:
                return _rate(batches, steps)

    return once


def _rate(batches: Iterator[object], steps: int) -> float:
    """Samples per second over `steps` batches, after two that fill the queue."""
    next(batches)
    next(batches)
    began = time.perf_counter()
    for _ in range(steps):
        next(batches)
    return steps * BATCH / (time.perf_counter() - began)


class _PillowSamples(Dataset[tuple[torch.Tensor, ...]]):
    """What one writes first: read, Pillow, resize, numpy."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        with SampleSource(path, open_set(path), "train") as source:
            self._length = source.num_samples
        self._source: SampleSource | None = None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> tuple[torch.Tensor, ...]:
        if self._source is None:  # opened in the worker
            self._source = SampleSource(self._path, open_set(self._path), "train")
        sample = self._source.read(number)
        assert isinstance(sample, EncodedSample)
        return tuple(
            torch.from_numpy(self._pixels(part, mode))
            for part, mode in zip(sample, ("RGB", "L", "L"), strict=True)
        )

    def _pixels(self, content: memoryview, mode: str) -> np.ndarray[tuple[int, ...], np.dtype]:
        with Image.open(io.BytesIO(content)) as image:
            converted = image.convert(mode)
        if converted.size != (self._size, self._size):
            converted = converted.resize((self._size, self._size), Image.Resampling.BILINEAR)
        return np.asarray(converted).copy()


def _data_loader(path: Path, size: int, steps: int, workers: int) -> Callable[[], float]:
    def once() -> float:
        samples = _PillowSamples(path, size)
        order = torch.randperm(len(samples)).repeat(2 + (steps + 2) * BATCH // len(samples))
        loader = DataLoader(
            samples,
            batch_size=BATCH,
            sampler=order[: (steps + 2) * BATCH].tolist(),
            num_workers=workers,
            prefetch_factor=3,
        )
        return _rate(iter(loader), steps)

    return once


def _decoding_alone(path: Path, threads: int) -> Callable[[], float]:
    """Decode at full size from bytes in memory, in as many threads: what decoding costs."""
    with SampleSource(path, open_set(path), "train") as source:
        samples = source.read_many(np.arange(min(2_000, source.num_samples)))

    def decode(first: int) -> None:
        for sample in samples[first::threads]:
            assert isinstance(sample, EncodedSample)
            for part, colour in zip(sample, ("RGB", "GRAY", "GRAY"), strict=True):
                simplejpeg.decode_jpeg(part, colour)

    def once() -> float:
        began = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(decode, range(threads)))
        return len(samples) / (time.perf_counter() - began)

    return once
