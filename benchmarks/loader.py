"""How many samples a second does the loader deliver as uint8 batches, and against whom?

    maskdepth bench loader [--quick] [--peers] [--json FILE] [--plot FILE] [--compare FILE]

Method: one set of synthesised triplets at 224 px, page cache warm, global random order, batches of
256. Contenders take turns of some seconds in one run; one that waits takes no processor time. All
deliver the same uint8 arrays (composite RGB, mask, depth). Peers (`--peers`) run in processes and
environments of their own, made by `python -m benchmarks.peers make`, on as many threads or worker
processes as we have cores; the pixels of each are compared with ours first. One that does not run
is a row with its reason.

Streaming, at 224, 96 and 64 px: every sample is decoded again. `turbojpeg` may decode at a reduced
scale, as training does; `turbojpeg exact` may not. It is bound by libjpeg-turbo's decoding, 204 us
a sample on one core of an AMD Zen 5; the ceiling printed first is that decoding alone.

Cached, at 64 and 224 px: the later epochs, gathered from what the first one left (`cached.py`).

With a GPU in addition what `gpu.py` says.

`--quick` takes two short turns of each at 224 and 64 px, on 2,000 triplets: 30 s on two cores, more
with peers that write files and compile first.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch

from benchmarks import gpu
from benchmarks.cached import cached_contenders
from benchmarks.harness import (
    Row,
    base_of,
    print_rows,
    rate_of,
    report,
    result,
    take_turns,
)
from benchmarks.peers.contenders import CACHED, NUM_COMPARED, STREAMING, Images, PeerKind, Peers
from pipeline.decoder import Request
from pipeline.loader import Loader, LoaderConfig
from pipeline.opening import open_set
from pipeline.source import EncodedSample, SampleSource
from shards.convert import convert
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise

BATCH = 256
CPU = torch.device("cpu")
STREAM = LoaderConfig(decoder="turbojpeg", cache="off")
ENDLESS = 1_000_000
"""Steps of a stream that is left when its turn is over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much is measured."""

    count: int
    """Triplets."""
    samples_per_shard: int
    """So that a peer's processes all find a shard."""
    seconds: float
    """Of a turn, at least."""
    turns: int
    """Counted ones of each contender."""
    sizes: tuple[int, ...]
    """Streamed, in pixels."""


FULL = Scale(count=20_000, samples_per_shard=1_500, seconds=1.5, turns=7, sizes=(224, 96, 64))
QUICK = Scale(count=2_000, samples_per_shard=500, seconds=0.15, turns=2, sizes=(224, 64))
CACHED_SIZES = (64, 224)


def run(*, quick: bool, peers: bool, json_path: Path | None) -> dict[str, Any]:
    """Measure and print.

    Returns:
        The result, as it is kept.
    """
    scale = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        set_path = make_set(folder, scale)
        print(
            f"{scale.count:,} triplets at 224 px, batches of {BATCH}, {STREAM.num_threads} "
            f"threads, {scale.turns} turns of {scale.seconds:g} s"
        )
        with Loader(set_path, STREAM, CPU) as loader, Peers(
            set_path, 224, folder / "peers", lambda size: exact_images(loader, size)
        ) as there:  # fmt: skip
            tables, versions = _tables(set_path, folder, scale, there if peers else None)
    settings = {"count": scale.count, "batch": BATCH, "seconds": scale.seconds,
                "turns": scale.turns, "quick": quick}  # fmt: skip
    found = result("loader", settings, tables, "samples/s")
    found["environment"]["peers"] = versions
    report(found, json_path)
    return found


def _tables(
    set_path: Path, folder: Path, scale: Scale, peers: Peers | None
) -> tuple[dict[str, list[Row]], dict[str, str]]:
    """All tables, and the versions of the peers' packages."""
    found: dict[str, list[Row]] = {}
    for size in scale.sizes:
        ours = streams(set_path, size, scale)
        found[f"{size} px"] = _measure(f"{size} px", ours, size, scale, peers, STREAMING)
    if peers is not None:
        peers.close()  # their memory is wanted by the caches
    for size in CACHED_SIZES:
        title = f"{size} px, cached"
        with cached_contenders(set_path, folder, size, BATCH, scale.seconds) as ours:
            found[title] = _measure(title, ours, size, scale, peers, CACHED)
    if torch.cuda.is_available():
        found |= gpu.tables(set_path, scale.seconds, scale.turns, peers)
    return found, {} if peers is None else peers.versions


def _measure(
    title: str,
    ours: Mapping[str, Callable[[], float]],
    size: int,
    scale: Scale,
    peers: Peers | None,
    kinds: tuple[PeerKind, ...],
) -> list[Row]:
    """One table, printed."""
    theirs = {} if peers is None else {
        kind.title: peers.contender(
            kind, size=size, batch_size=BATCH, threads=STREAM.num_threads, seconds=scale.seconds
        )
        for kind in kinds
    }  # fmt: skip
    rows = take_turns({**ours, **theirs}, scale.turns, peers=theirs)
    print_rows(title, "samples/s", rows, base_of(rows))
    return rows


def make_set(folder: Path, scale: Scale) -> Path:
    """A synthesised set, its files in the page cache."""
    synthesise(folder / "source", SynthConfig(count=scale.count, processes=2))
    convert(
        ConvertConfig(
            sources=(folder / "source",),
            out=folder / "set",
            check="none",
            samples_per_shard=scale.samples_per_shard,
        )
    )
    for path in (folder / "set").iterdir():
        path.read_bytes()
    return folder / "set"


def streams(path: Path, size: int, scale: Scale) -> dict[str, Callable[[], float]]:
    """The ceiling and our decoders."""
    exact, dali = replace(STREAM, exact_decode=True), replace(STREAM, decoder="dali")
    return {
        "ceiling: decoding alone": _decoding_alone(path, STREAM.num_threads),
        "turbojpeg": stream(path, STREAM, size, scale.seconds),
        "turbojpeg exact": stream(path, exact, size, scale.seconds),
        "DALI on the CPU": stream(path, dali, size, scale.seconds),
    }


def stream(path: Path, config: LoaderConfig, size: int, seconds: float) -> Callable[[], float]:
    """A loader as a contender; each turn goes on where the last one was left, or nearly."""
    start = 0

    def once() -> float:
        nonlocal start
        with (
            Loader(path, config, CPU) as loader,
            loader.train_pixels(
                size=size, batch_size=BATCH, start=start, num_steps=ENDLESS
            ) as batches,
        ):
            rate = rate_of(batches, BATCH, seconds)
        start += int(rate * seconds)
        return rate

    return once


def exact_images(loader: Loader, size: int) -> Images:
    """Our exact pixels of the first samples, for comparison with the peers'."""
    request = Request(numbers=np.arange(NUM_COMPARED), num_counted=NUM_COMPARED)
    with loader.decoder.stream(loader.training, [request], size=size, exact=True) as decoded:
        batch = next(decoded)
        return {
            "composite": batch.composite.numpy().copy(),
            "mask": batch.mask.numpy().copy(),
            "depth": batch.depth.numpy().copy(),
        }


def _decoding_alone(path: Path, threads: int) -> Callable[[], float]:
    """Decode at full size from bytes in memory, in as many threads: what decoding costs."""
    with SampleSource([open_set(path)], "train") as source:
        samples = source.read_many(np.arange(min(2_000, source.num_samples)))

    def decode(first: int) -> None:
        for sample in samples[first::threads]:
            assert isinstance(sample, EncodedSample)
            for part, colour in zip(sample, ("RGB", "GRAY", "GRAY"), strict=True):
                simplejpeg.decode_jpeg(part, colour)

    def once() -> float:
        with ThreadPoolExecutor(threads) as pool:
            began = time.perf_counter()
            list(pool.map(decode, range(threads)))
            return len(samples) / (time.perf_counter() - began)

    return once
