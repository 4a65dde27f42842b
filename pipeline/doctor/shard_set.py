"""What the doctor says of a set's files: whether they are whole, in memory, and how fast to read.

Without a set it makes one, by the product's own synthesiser and converter.
"""

from collections.abc import Iterator
from pathlib import Path

from pipeline.cache.memory_plan import gigabytes
from pipeline.doctor.page_cache import disk_rate, resident_bytes
from pipeline.doctor.section import Section
from pipeline.hardware import open_file_limit
from pipeline.opening import open_set
from shards.convert import convert
from shards.manifest import Manifest
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise

_MADE_UP = 96
_OTHER_FILES = 64
"""Open files that a training run has beside its shards, about."""

IN_MEMORY = 0.95
"""Share of a set from which its disk no longer matters."""


def examine_set(data: Path) -> Section:
    """Files, page cache, disk.

    Raises:
        ShardError: There is no sound manifest.
        LoaderError: Files are missing or differ from the manifest.
    """
    manifest = open_set(data).manifest
    tars = [data / f"{shard.name}.tar" for shard in manifest.shards]
    in_all = sum(path.stat().st_size for path in tars)
    resident = sum(map(resident_bytes, tars))
    share, rate = resident / max(in_all, 1), disk_rate(tars)
    samples = sum(shard.samples for shard in manifest.shards)
    per_sample = in_all / max(samples, 1)
    height, width = manifest.image_size
    return Section(
        name="set",
        lines=(
            f"{data}: {samples:,} samples of {width} x {height} px in {len(tars):,} shards, "
            f"{gigabytes(in_all)}",
            f"{share:.0%} in the page cache; disk {_told_rate(rate, per_sample)}",
        ),
        facts={
            "path": str(data),
            "samples": samples,
            "shards": len(tars),
            "bytes": in_all,
            "bytes_per_sample": per_sample,
            "in_page_cache": share,
            "disk_bytes_per_s": rate,
        },
        remarks=tuple(_remarks(share)),
        faults=tuple(set_faults(manifest, open_file_limit())),
    )


def _told_rate(rate: float | None, per_sample: float) -> str:
    if rate is None:
        return "rate unknown: the files are too small to tell, or read only through the page cache"
    return f"{rate / 1e6:,.0f} MB/s past it, {rate / per_sample:,.0f} samples/s"


def _remarks(share: float) -> Iterator[str]:
    if share < IN_MEMORY:
        yield f"{1 - share:.0%} of the set is read from the disk in the first epoch"


def set_faults(manifest: Manifest, open_files: int | None) -> Iterator[str]:
    """What a whole set may still fail by."""
    needed = len(manifest.shards) + _OTHER_FILES
    if open_files is not None and needed > open_files:
        yield (
            f"{len(manifest.shards):,} shards are held open, and this process may open "
            f"{open_files:,} files; run `ulimit -n {2 * needed}` first, or convert with more "
            "samples per shard"
        )


def make_set(folder: Path) -> Path:
    """A small set in a folder, to measure with."""
    synthesise(folder / "source", SynthConfig(count=_MADE_UP, num_backgrounds=2, num_foregrounds=4))
    convert(
        ConvertConfig(sources=(folder / "source",), out=folder / "set", split="random", processes=1)
    )
    return folder / "set"
