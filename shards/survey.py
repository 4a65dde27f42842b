"""The statistics of a set once more, from its own images, to hold against the manifest's."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shards.error import ShardError
from shards.imagery import ImageError, decode, read_header
from shards.index import CHANNELS, PARTS, read_rows
from shards.manifest import BACKGROUNDS, ChannelStatistics, Manifest, ShardRecord, read_manifest
from shards.statistics import Moments
from shards.tar import read_members

COVERAGE_BINS = 50
"""Of mask coverage, 0 to 1."""

TOLERANCE = 0.005
"""Means and deviations may differ so much where the manifest's were taken over a part of all."""

Counts = npt.NDArray[np.int64]


@dataclass(slots=True)
class Survey:
    """What the images of a set are like."""

    moments: dict[str, Moments]
    coverage: Counts = field(default_factory=lambda: np.zeros(COVERAGE_BINS, np.int64))
    """Samples by the share of pixels that their mask covers."""
    depth_levels: Counts = field(default_factory=lambda: np.zeros(256, np.int64))
    """Pixels by depth level."""
    samples: int = 0

    @property
    def statistics(self) -> dict[str, ChannelStatistics]:
        """As the manifest has them."""
        return {part: moments.result() for part, moments in sorted(self.moments.items())
                if moments.pixels}  # fmt: skip

    def merge(self, other: "Survey") -> None:
        """Count in what another one counted."""
        for part, moments in other.moments.items():
            self.moments[part].merge(moments)
        self.coverage += other.coverage
        self.depth_levels += other.depth_levels
        self.samples += other.samples


def survey(set_path: Path, on_progress: Callable[[int, int], None] | None = None) -> Survey:
    """Decode every image of a set.

    Args:
        set_path: The set.
        on_progress: Called with samples done and samples in all.

    Raises:
        ShardError: The set has no whole manifest, or an image is damaged.
    """
    manifest = read_manifest(set_path)
    total = _empty()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # decoding leaves the interpreter free
        parts = pool.map(lambda shard: _survey_shard(set_path, shard), manifest.shards)
        for part in parts:
            total.merge(part)
            if on_progress is not None:
                on_progress(total.samples, sum(shard.samples for shard in manifest.shards))
    if manifest.backgrounds:
        for name, data in read_members(set_path / BACKGROUNDS):
            total.moments["background"].add(_decoded(data, 3, f"{BACKGROUNDS}: {name}"))
    return total


def differences(manifest: Manifest, found: Mapping[str, ChannelStatistics]) -> Iterator[str]:
    """Where a manifest's statistics and the images' own are further apart than they may be."""
    for part in sorted({*manifest.statistics, *found}):
        told, seen = manifest.statistics.get(part), found.get(part)
        if told is None or seen is None:
            yield f"{part}: {'not in the manifest' if told is None else 'not in the images'}"
            continue
        for name in ("mean", "std"):
            pairs = list(zip(getattr(told, name), getattr(seen, name), strict=True))
            if max(abs(one - other) for one, other in pairs) > TOLERANCE:
                shown = ", ".join(f"{one:.4f} there, {other:.4f} here" for one, other in pairs)
                yield f"{part} {name}: {shown}"


def _empty() -> Survey:
    return Survey({part: Moments(channels) for part, channels in CHANNELS.items()})


def _survey_shard(set_path: Path, shard: ShardRecord) -> Survey:
    found = _empty()
    rows = read_rows(set_path / f"{shard.name}.npy", shard.samples)
    try:
        tar = (set_path / f"{shard.name}.tar").read_bytes()
    except OSError as error:
        msg = f"{shard.name}.tar cannot be read ({error.strerror}); run `maskdepth verify`"
        raise ShardError(msg) from None
    for number, row in enumerate(rows):
        where = f"{shard.name}.tar: sample {number}"
        spans = zip(PARTS, row["offset"].tolist(), row["size"].tolist(), strict=True)
        pixels = {
            part: _decoded(tar[offset : offset + size], CHANNELS[part], f"{where}, {part}")
            for part, offset, size in spans
        }
        for part, image in pixels.items():
            found.moments[part].add(image)
        covered = float((pixels["mask"] >= 128).mean())
        found.coverage[min(int(covered * COVERAGE_BINS), COVERAGE_BINS - 1)] += 1
        found.depth_levels += np.bincount(pixels["depth"].ravel(), minlength=256)
        found.samples += 1
    return found


def _decoded(data: bytes, channels: int, where: str) -> npt.NDArray[np.uint8]:
    try:
        return decode(data, read_header(data), channels)
    except ImageError as error:
        msg = f"{where} {error}; run `maskdepth verify --deep`"
        raise ShardError(msg) from None
