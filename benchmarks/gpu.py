"""What a GPU adds to `loader.py`; it needs one.

Streaming to the device at 64, 96 and 224 px: DALI with NVJPG engines and CUDA, our processor's
threads and a copy, torchvision's batched nvJPEG as the peer. A sweep of `hw_decoder_load` x threads
at 64 px. The cache on the device: the rate of the epoch that fills it, and of those that gather
from it, against `torch.index_select` of the same rows. Every clock stops after a synchronise.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.cached import fill, gathered
from benchmarks.harness import Row, base_of, print_rows, rate_of, take_turns
from benchmarks.peers.contenders import ON_GPU, Peers
from pipeline.decoder import DecodedBatch
from pipeline.loader import Loader, LoaderConfig

BATCH = 256
SIZES = (224, 96, 64)
LOADS = (0.0, 0.25, 0.5, 0.65, 0.8, 1.0)
_ENDLESS = 1_000_000


def tables(path: Path, seconds: float, turns: int, peers: Peers | None) -> dict[str, list[Row]]:
    """Measure and print all of it.

    Args:
        path: The set.
        seconds: Of a turn.
        turns: Counted ones.
        peers: Those of the run, if there are any.
    """
    found: dict[str, list[Row]] = {}

    def measure(title: str, contenders: dict[str, Callable[[], float]]) -> None:
        rows = take_turns(contenders, turns, peers=[kind.title for kind in ON_GPU])
        print_rows(title, "samples/s", rows, base_of(rows))
        found[title] = rows

    config = LoaderConfig(cache="off")
    for size in SIZES:
        measure(f"{size} px, GPU", _streams(path, config, size, seconds, peers))
    measure("64 px, GPU, load x threads", _sweep(path, config, seconds))
    for size in SIZES:
        with Loader(path, LoaderConfig(cache="device"), torch.device("cuda")) as loader:
            finish = torch.cuda.synchronize
            measure(
                f"{size} px, GPU, cached",
                {
                    "ceiling: index_select": _index_select(loader.num_samples, size, seconds),
                    "filling": _filling(path, size),
                    "cached, device": gathered(loader, size, BATCH, seconds, finish),
                },
            )
        torch.cuda.empty_cache()
    return found


def _streams(
    path: Path, config: LoaderConfig, size: int, seconds: float, peers: Peers | None
) -> dict[str, Callable[[], float]]:
    contenders = {
        "DALI mixed": _stream(path, replace(config, decoder="dali"), size, seconds),
        "turbojpeg": _stream(path, replace(config, decoder="turbojpeg"), size, seconds),
    }
    if peers is not None:
        for kind in ON_GPU:
            contenders[kind.title] = peers.contender(
                kind, size=size, batch_size=BATCH, threads=config.num_threads, seconds=seconds
            )
    return contenders


def _sweep(path: Path, config: LoaderConfig, seconds: float) -> dict[str, Callable[[], float]]:
    most = config.num_threads
    return {
        f"load {load:g}, {threads} threads": _stream(
            path,
            replace(config, decoder="dali", hw_decoder_load=load, threads=threads),
            64,
            seconds,
        )
        for threads in sorted({most, max(1, most // 2), max(1, most // 4)})
        for load in LOADS
    }


def _stream(path: Path, config: LoaderConfig, size: int, seconds: float) -> Callable[[], float]:
    def once() -> float:
        with (
            Loader(path, config, torch.device("cuda")) as loader,
            loader.train_pixels(
                size=size, batch_size=BATCH, start=0, num_steps=_ENDLESS
            ) as batches,
        ):
            return rate_of(map(_on_device, batches), BATCH, seconds, torch.cuda.synchronize)

    return once


def _on_device(batch: DecodedBatch) -> list[torch.Tensor]:
    parts = (batch.composite, batch.mask, batch.depth)
    return [part.to("cuda", non_blocking=True) for part in parts]


def _filling(path: Path, size: int) -> Callable[[], float]:
    def once() -> float:
        with Loader(path, LoaderConfig(cache="device"), torch.device("cuda")) as loader:
            began = time.perf_counter()
            samples = fill(loader, size, BATCH)
            torch.cuda.synchronize()
            return samples / (time.perf_counter() - began)

    return once


def _index_select(num: int, size: int, seconds: float) -> Callable[[], float]:
    def batches() -> Iterator[torch.Tensor]:
        table = torch.zeros((num, 5 * size**2), dtype=torch.uint8, device="cuda")
        orders = torch.randint(0, num, (64, BATCH), device="cuda")
        while True:
            for numbers in orders:
                yield table.index_select(0, numbers)

    return lambda: rate_of(batches(), BATCH, seconds, torch.cuda.synchronize)
