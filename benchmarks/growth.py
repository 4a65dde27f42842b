"""Does a long run grow, in memory, open files or threads?

    maskdepth bench growth [--quick] [--json FILE]

Method: 50 epochs of 5,000 samples, 224 to 64 px, each with its validation, in one process per
contender: every epoch opens and closes its streams. Resident size is read after each; growth is
the median of the last five epochs over that of the sixth to the tenth: before, caches and the
allocators' pools fill. At most 2 % are promised.

The loader has glibc give freed memory back (`pipeline/allocator.py`): otherwise it keeps some of
it, now more and now less, and a leak of 2 % would not be seen.
"""

import gc
import os
import statistics
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.harness import environment, report
from benchmarks.memory import measure_memory
from pipeline.batch import Batch
from pipeline.loader import Loader, LoaderConfig
from shards.convert import convert
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise

LIMIT = 0.02
_BATCH, _SIZE = 256, 64
_WARM_UP, _COMPARED = 5, 5
"""Epochs that do not count, and those compared at either end."""

CONTENDERS: Mapping[str, LoaderConfig] = {
    "turbojpeg": LoaderConfig(decoder="turbojpeg", cache="off"),
    "turbojpeg, windowed order": LoaderConfig(decoder="turbojpeg", cache="off", order="windowed"),
    "turbojpeg, cached on the host": LoaderConfig(decoder="turbojpeg", cache="host"),
    "DALI on the CPU": LoaderConfig(decoder="dali", cache="off"),
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """What a process held after each epoch."""

    resident_bytes: tuple[int, ...]
    open_files: tuple[int, ...]
    threads: tuple[int, ...]

    @property
    def growth(self) -> float:
        """Share by which the resident size grew after the warm-up."""
        first = statistics.median(self.resident_bytes[_WARM_UP : _WARM_UP + _COMPARED])
        return statistics.median(self.resident_bytes[-_COMPARED:]) / first - 1

    @property
    def is_steady(self) -> bool:
        """Whether it keeps what is promised."""
        return (
            self.growth < LIMIT
            and self.open_files[-1] <= self.open_files[_WARM_UP]
            and self.threads[-1] <= self.threads[_WARM_UP]
        )


def run(*, quick: bool, json_path: Path | None) -> None:
    """Measure and print."""
    count, epochs = (500, 20) if quick else (5_000, 50)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        # a tenth is held out for validation
        synthesise(path / "source", SynthConfig(count=count * 10 // 9 + 1, processes=2))
        convert(ConvertConfig(sources=(path / "source",), out=path / "set", check="none"))
        print(f"at most {LIMIT:.0%} over {epochs} epochs of {count:,} samples, 224 to {_SIZE} px")
        print(f"{'':<34}{'MB, sixth':>11}{'MB, last':>11}{'growth':>9}{'files':>10}{'threads':>10}")
        for name, config in CONTENDERS.items():
            series = watch(path / "set", config, epochs, size=_SIZE, batch_size=_BATCH)
            found[name] = {"growth": series.growth, "steady": series.is_steady, **asdict(series)}
            _print(name, series)
    settings = {"count": count, "epochs": epochs, "batch": _BATCH, "size": _SIZE, "quick": quick}
    report(
        {"question": "growth", "configuration": settings, "environment": environment(),
         "contenders": found},
        json_path,
    )  # fmt: skip


def watch(
    set_path: Path, config: LoaderConfig, epochs: int, *, size: int, batch_size: int
) -> Series:
    """Stream epochs in a process of their own."""
    return measure_memory(stream, set_path, config, epochs, size, batch_size).value


def stream(set_path: Path, config: LoaderConfig, epochs: int, size: int, batch_size: int) -> Series:
    """Stream epochs with their validation, and look after each."""
    looks = []
    with Loader(set_path, config, torch.device("cpu")) as loader:
        steps = -(-loader.num_samples // batch_size)
        for epoch in range(epochs):
            start = epoch * steps * batch_size
            with loader.train(
                size=size, batch_size=batch_size, start=start, num_steps=steps
            ) as batches:
                _exhaust(batches)
            with loader.validate(size=size, batch_size=batch_size) as batches:
                _exhaust(batches)
            looks.append(_look())
    resident, files, threads = zip(*looks, strict=True)
    return Series(resident_bytes=resident, open_files=files, threads=threads)


def _exhaust(batches: Iterator[Batch]) -> None:
    for _ in batches:
        pass


def _look() -> tuple[int, int, int]:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- entries vanish while listed
    return pages * os.sysconf("SC_PAGE_SIZE"), files, threading.active_count()


def _print(name: str, series: Series) -> None:
    first, last = (series.resident_bytes[at] / 1e6 for at in (_WARM_UP, -1))
    print(f"{name:<34}{first:>11,.1f}{last:>11,.1f}{series.growth:>9.2%}"
          f"{_span(series.open_files):>10}{_span(series.threads):>10}")  # fmt: skip


def _span(counts: Sequence[int]) -> str:
    return f"{counts[0]}-{counts[-1]}"
