"""How fast do zips become shards, against what is physically possible and what people would write?

    maskdepth bench convert [--quick] [--peers] [--json FILE]

Method: one zip of synthesised triplets at 224 px, page cache warm, the disk at rest, two processes
on every side, contenders in turns. Ours is the whole of `convert`: listing, matching, the pairing
check, starting its processes, fsync, statistics and manifest. The peer is a loop of `zipfile` and
`webdataset.ShardWriter` in two processes that are already there, each with half of the triplets,
shuffled, without fsync, hashes, index, checks or statistics; as people write it, and with the
option (mtime=0) that turns its PAX headers into smaller USTAR ones. Copying's ceiling reads every
byte of the zip and writes as many as the shards have, in large blocks, and syncs them. Strict
checking's ceiling is simplejpeg's decoding of every image from memory; strict checking reads every
code of every JPEG and makes pixels of 2,000 samples, or a sixteenth if that is more.

The full run also converts 1.2 million tiny members and adds up the memory (PSS) of all processes.

What bounds it, in microseconds a sample on one core of an AMD Zen 5. In one process, before any
writing: listing and matching 6, planning, the pairing check and backgrounds 3. In every process:
reading and CRC-32 9, SHA-256 9, headers of JPEGs and tars, names and `KEY.json` 6, the rest 6;
statistics 300 for each of the 2,000 samples that are counted, which is half of copying so small a
set; strict checking 131 more.
"""

import os
import random
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import simplejpeg

from benchmarks.harness import Row, print_rows, report, result, take_turns
from benchmarks.many_members import ROOT, measure, member_names
from benchmarks.memory import SPAWN
from shards.convert import convert
from shards.options import ConvertConfig
from shards.reading import read_sources
from shards.synth import SynthConfig, synthesise

PROCESSES = 2
CEILING = "ceiling: read and write"
PEER = "zipfile + ShardWriter"
TUNED_PEER = "the same, USTAR by mtime=0"
_BLOCK_BYTES = 4 << 20


def run(*, quick: bool, peers: bool, json_path: Path | None) -> dict[str, Any]:
    """Measure and print.

    Returns:
        The result, as it is kept.
    """
    count, turns = (4_000, 3) if quick else (20_000, 7)
    shard = 500 if quick else 4_000  # so that either count keeps both processes busy
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(
        PROCESSES, mp_context=SPAWN
    ) as pool:  # fmt: skip
        folder = Path(name)
        synthesise(folder / "source", SynthConfig(count=count, processes=PROCESSES))
        (zip_path,) = (folder / "source").glob("*.zip")
        print(f"{count:,} triplets at 224 px, {PROCESSES} processes, {turns} turns")
        tables = {
            "copying": _copying(zip_path, folder, pool, turns, count, shard, peers=peers),
            "strict": _strict(zip_path, folder, pool, turns, count, shard),
        }
        settings: dict[str, Any] = {"count": count, "processes": PROCESSES, "turns": turns,
                                    "quick": quick}  # fmt: skip
        found = result("convert", settings, tables, "samples/s")
        if not quick:
            found["many_members"] = measure(folder, PROCESSES)
    report(found, json_path)
    return found


def _copying(
    zip_path: Path,
    folder: Path,
    pool: ProcessPoolExecutor,
    turns: int,
    count: int,
    shard: int,
    *,
    peers: bool,
) -> list[Row]:
    contenders = {
        CEILING: _raw(zip_path, folder, pool, count),
        "of ours, listing and matching": _names(zip_path, folder / "set", count),
        "copying, check none": _convert(zip_path, folder / "set", "none", count, shard),
        "copying, check headers": _convert(zip_path, folder / "set", "headers", count, shard),
    }
    if peers:
        contenders[TUNED_PEER] = _shard_writer(zip_path, folder, pool, count, shard, {"mtime": 0})
        contenders[PEER] = _shard_writer(zip_path, folder, pool, count, shard, {})
    rows = take_turns(contenders, turns, peers=(PEER, TUNED_PEER))
    print_rows("copying", "samples/s", rows, rows[-1] if peers else rows[0])
    print(f"{'':<34}check none: {rows[2].ratio(rows[0]):.0%} of the ceiling")
    return rows


def _strict(
    zip_path: Path, folder: Path, pool: ProcessPoolExecutor, turns: int, count: int, shard: int
) -> list[Row]:
    contenders = {
        "ceiling: simplejpeg": _decoding(zip_path, pool),
        "check strict": _convert(zip_path, folder / "set", "strict", count, shard),
    }
    rows = take_turns(contenders, turns)
    print_rows("strict checking", "samples/s", rows, rows[0])
    return rows


def _convert(zip_path: Path, out: Path, check: str, count: int, shard: int) -> Callable[[], float]:
    def once() -> float:
        shutil.rmtree(out, ignore_errors=True)
        os.sync()  # the disk is at rest when a clock starts
        config = ConvertConfig(
            sources=(zip_path,), out=out, check=check, processes=PROCESSES, samples_per_shard=shard
        )
        began = time.perf_counter()
        convert(config)
        return count / (time.perf_counter() - began)

    return once


def _names(zip_path: Path, out: Path, count: int) -> Callable[[], float]:
    """What `convert` does in one process before it writes."""

    def once() -> float:
        began = time.perf_counter()
        read_sources(ConvertConfig(sources=(zip_path,), out=out))
        return count / (time.perf_counter() - began)

    return once


def _raw(
    zip_path: Path, folder: Path, pool: ProcessPoolExecutor, count: int
) -> Callable[[], float]:
    """As many bytes as a set of these triplets has: four headers and their padding in addition."""

    def once() -> float:
        bytes_out = zip_path.stat().st_size + 3_000 * count
        work = partial(_read_and_write, zip_path, folder, bytes_out // PROCESSES)
        os.sync()
        began = time.perf_counter()
        list(pool.map(work, range(PROCESSES)))
        return count / (time.perf_counter() - began)

    return once


def _read_and_write(zip_path: Path, folder: Path, bytes_out: int, number: int) -> None:
    share = zip_path.stat().st_size // PROCESSES
    block = memoryview(bytearray(_BLOCK_BYTES))
    path = folder / f"raw-{number}"
    with zip_path.open("rb", buffering=0) as source, path.open("wb", buffering=0) as target:
        source.seek(number * share)
        bytes_read = bytes_written = 0
        while bytes_read < share or bytes_written < bytes_out:
            if bytes_read < share:
                bytes_read += source.readinto(block) or share
            if bytes_written < bytes_out:
                bytes_written += target.write(block)
        os.fsync(target.fileno())
    path.unlink()


def _shard_writer(
    zip_path: Path,
    folder: Path,
    pool: ProcessPoolExecutor,
    count: int,
    shard: int,
    options: Mapping[str, Any],
) -> Callable[[], float]:
    def once() -> float:
        out = folder / "peer"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        os.sync()
        began = time.perf_counter()
        done = sum(pool.map(partial(_write_half, zip_path, out, shard, options), range(PROCESSES)))
        seconds = time.perf_counter() - began
        assert done == count
        return count / seconds

    return once


def _write_half(
    zip_path: Path, out: Path, shard: int, options: Mapping[str, Any], number: int
) -> int:
    from webdataset import ShardWriter  # imports torch

    with zipfile.ZipFile(zip_path) as archive:
        stems = _stems(archive)
        random.Random(0).shuffle(stems)
        mine = stems[number::PROCESSES]
        pattern = str(out / f"train-{number}-%06d.tar")
        with ShardWriter(pattern, maxcount=shard, verbose=0, **options) as writer:
            for stem in mine:
                background, foreground, _ = stem.split("_")
                composite, mask, depth = (archive.read(name) for name in member_names(stem))
                writer.write(
                    {
                        "__key__": stem,
                        "fgbg.jpg": composite,
                        "mask.jpg": mask,
                        "depth.jpg": depth,
                        "json": {"background": background, "foreground": foreground},
                    }
                )
    return len(mine)


def _stems(archive: zipfile.ZipFile) -> list[str]:
    folder = f"{ROOT}/bg_fg/"
    return [Path(name).stem for name in archive.namelist() if name.startswith(folder)]


def _decoding(zip_path: Path, pool: ProcessPoolExecutor) -> Callable[[], float]:
    def once() -> float:
        return sum(pool.map(partial(_decode_half, zip_path), range(PROCESSES)))

    return once


def _decode_half(zip_path: Path, number: int) -> float:
    with zipfile.ZipFile(zip_path) as archive:
        samples = [[archive.read(name) for name in member_names(stem)]
                   for stem in _stems(archive)[number::PROCESSES]]  # fmt: skip
    began = time.perf_counter()
    for sample in samples:
        for part, colours in zip(sample, ("RGB", "GRAY", "GRAY"), strict=True):
            simplejpeg.decode_jpeg(part, colours)
    return len(samples) / (time.perf_counter() - began)
