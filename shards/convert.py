"""Zips in, a shard set out: list, match, plan, write in processes, and the manifest last.

A killed conversion, rerun, keeps the shards that are whole and ends with the bytes it would have
had: work in progress lies in `SET/.convert`, which names the plan it belongs to.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shards.archive import MemberError, digest, open_sources
from shards.error import ShardError
from shards.imagery import ImageError, read_header
from shards.index import PARTS, UNKNOWN
from shards.layouts import Layout, find_layout
from shards.manifest import (
    BACKGROUNDS,
    FATES,
    NAME,
    REJECTED,
    FileRecord,
    Manifest,
    ShardRecord,
    SourceRecord,
)
from shards.plan import RULES, Plan, make_plan
from shards.processes import Processes
from shards.shard import (
    CHANNELS,
    CHECKS,
    SampleTask,
    ShardReport,
    ShardTask,
    read_image,
    write_file,
    write_shard,
)
from shards.statistics import MeanImage, Moments
from shards.tar import TarWriter
from shards.triplet import Match, Members, Rejection, Triplet, safe_key
from shards.work import finished_set, work_folder

STATISTICS_SAMPLES = 2_000
"""So many samples enter the statistics where not all of them are decoded anyway."""

Progress = Callable[[int, int, int], None]
"""Called with samples done, samples in all, bytes written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig:
    """What to convert and how. Everything but `processes` and paths decides the bytes."""

    sources: tuple[Path, ...]
    """Zips, or folders holding zips or loose images."""

    out: Path
    """The set's folder; made if missing."""

    layout: str = "auto"
    """How names become triplets; `auto` finds it from the names."""

    split: str = "foreground"
    """What validation holds out: foreground, background, both, or random samples."""

    val: float = 0.1
    """Share of foregrounds, backgrounds or samples held out."""

    seed: int = 0
    """Decides the order and the split."""

    samples_per_shard: int = 4_000

    check: str = "strict"
    """strict decodes every image, headers reads its header, none only its first bytes."""

    max_rejected: int = 0
    """So many triplets may be left out; beyond it the list is written and nothing finished."""

    processes: int | None = None
    """Processes that write shards; None: one per core."""

    def __post_init__(self) -> None:
        if self.split not in RULES:
            msg = f"unknown split {self.split!r}; use one of: {', '.join(RULES)}"
            raise ValueError(msg)
        if self.check not in CHECKS:
            msg = f"unknown check {self.check!r}; use one of: {', '.join(CHECKS)}"
            raise ValueError(msg)
        if not 0 <= self.val < 1:
            msg = f"val is {self.val}; use a share of at least 0 and under 1"
            raise ValueError(msg)
        if not 0 <= self.seed < 2**64:
            msg = f"seed is {self.seed}; use a whole number from 0 to 2**64 - 1"
            raise ValueError(msg)
        for name in ("samples_per_shard", "processes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                msg = f"{name} is {value}; use at least 1"
                raise ValueError(msg)

    @property
    def num_processes(self) -> int:
        """Processes that write shards."""
        return self.processes or os.cpu_count() or 1

    @property
    def options(self) -> dict[str, Any]:
        """What of this decides the bytes, for the manifest."""
        names = ("split", "val", "seed", "samples_per_shard", "check")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertReport:
    """What a conversion did."""

    manifest: Manifest
    already_finished: bool
    """The folder held this very set; nothing was written."""


def convert(config: ConvertConfig, on_progress: Progress | None = None) -> ConvertReport:
    """Write the set.

    Raises:
        ShardError: The sources cannot be read or matched, too much was rejected, the folder
            belongs to another conversion, or the disk is full.
    """
    members = Members(open_sources(config.sources))
    layout = find_layout(config.layout, members)
    sources = tuple(
        SourceRecord(
            name=archive.name,
            bytes=archive.size_bytes,
            members=len(archive.members),
            digest=digest(archive),
        )
        for archive in members.archives
    )
    identity = {"layout": layout.name, "options": config.options,
                "sources": [asdict(source) for source in sources]}  # fmt: skip
    finished = finished_set(config.out, identity)
    if finished is not None:
        return ConvertReport(manifest=finished, already_finished=True)
    found = layout.match(members)
    if not found.triplets:
        reasons = Counter(rejection.reason for rejection in found.rejected).most_common(3)
        seen = "; ".join(f"{count} x {reason}" for reason, count in reasons) or "nothing relates"
        msg = (
            f"no triplet in {', '.join(archive.name for archive in members.archives)}: {seen}; "
            "check that composites, masks and depth maps are all there"
        )
        raise ShardError(msg)
    try:
        with work_folder(config.out, identity) as work:
            run = _Conversion(config, members, found, work)
            manifest = run.write(layout, sources, on_progress)
        shutil.rmtree(work)
    except OSError as error:
        msg = (
            f"cannot write {config.out}: {error}; make room or choose another folder, "
            "then run the same command again: it goes on where this one stopped"
        )
        raise ShardError(msg) from None
    return ConvertReport(manifest=manifest, already_finished=False)


@dataclass
class _Conversion:
    """The part of a conversion that writes."""

    config: ConvertConfig
    members: Members
    found: Match
    work: Path
    rejected: list[dict[str, str]] = field(default_factory=list)
    fates: Counter[str] = field(default_factory=Counter)
    files: dict[str, FileRecord] = field(default_factory=dict)

    def write(
        self, layout: Layout, sources: tuple[SourceRecord, ...], on_progress: Progress | None
    ) -> Manifest:
        self.fates["auxiliary"] = len(self.found.auxiliary)
        self.fates["debris"] = len(self.found.debris)
        image_size = self._image_size()
        numbers, moments = self._write_backgrounds(image_size)
        for rejection in self.found.rejected:
            self._reject(rejection)
        plan = self._plan()
        reports = self._write_shards(plan, numbers, image_size, on_progress)
        statistics, counted, mean_depth = _merge(reports.values(), image_size)
        if numbers:
            statistics["background"] = moments
        for report in reports.values():
            self.rejected.extend(report.rejected)
            self.fates["rejected"] += 3 * len(report.rejected)
            self.fates["used"] += 3 * report.samples
            self.files |= report.files
        self._write_rejected()
        samples = {shard.name: reports[shard.name].samples for shard in plan.shards}
        manifest = Manifest(
            layout=layout.name,
            options=self.config.options,
            split=plan.split,
            sources=sources,
            image_size=image_size,
            backgrounds=tuple(numbers),
            foregrounds=plan.foregrounds,
            depth={"polarity": layout.depth_polarity, "scaling": layout.depth_scaling},
            statistics={part: moment.result() for part, moment in statistics.items()},
            statistics_samples=counted,
            mean_depth_png=mean_depth.png_base64(),
            accounting=self._accounting(),
            shards=tuple(
                ShardRecord(name=shard.name, split=shard.split, samples=samples[shard.name])
                for shard in plan.shards
                if samples[shard.name]
            ),
            files=dict(sorted(self.files.items())),
        )
        write_file(self.config.out / NAME, manifest.text().encode())
        return manifest

    def _image_size(self) -> tuple[int, int]:
        """The commonest size among some composites, the larger one on a tie."""
        step = max(1, len(self.found.triplets) // 64)
        sizes: Counter[tuple[int, int]] = Counter()
        for triplet in self.found.triplets[::step]:
            try:
                header = read_header(self.members.read(triplet.composite))
            except (MemberError, ImageError):
                continue
            sizes[header.height, header.width] += 1
        if not sizes:
            first = self.members.describe(self.found.triplets[0].composite)
            msg = f"none of the composites tried is an image ({first} and others); check the source"
            raise ShardError(msg)
        return max(sizes, key=lambda size: (sizes[size], size))

    def _write_backgrounds(self, size: tuple[int, int]) -> tuple[dict[str, int], Moments]:
        """Write `backgrounds.tar`; damaged backgrounds take their triplets with them.

        Returns:
            Background id to number, and the statistics of all backgrounds.
        """
        images: dict[str, tuple[str, bytes]] = {}
        lost: dict[str, str] = {}
        moments = Moments(CHANNELS["background"])
        for name, number in self.found.backgrounds.items():
            archive = self.members.archives[self.members.archive_number(number)]
            decoded = self.config.check == "strict" or len(images) < STATISTICS_SAMPLES
            try:
                image = read_image(archive, self.members[number], size, 3, decoded=decoded)
            except (MemberError, ImageError) as error:
                self._reject(Rejection(safe_key(name), (number,), f"background {error}"))
                lost[name] = str(error)
                continue
            if image.pixels is not None:
                moments.add(image.pixels)
            images[name] = (f"{safe_key(name)}.{image.header.kind}", image.data)
            archive.close()
        self._lose_backgrounds(lost)
        self.fates["backgrounds"] = len(images)
        if not images:
            return {}, moments
        temporary = self.work / BACKGROUNDS
        with TarWriter(temporary) as tar:
            for file_name, data in images.values():
                tar.add(file_name, data)
        self.files[BACKGROUNDS] = FileRecord(bytes=tar.size_bytes, sha256=tar.sha256)
        temporary.rename(self.config.out / BACKGROUNDS)
        return {name: number for number, name in enumerate(images)}, moments

    def _lose_backgrounds(self, lost: Mapping[str, str]) -> None:
        kept: list[Triplet] = []
        for triplet in self.found.triplets:
            if triplet.background is not None and triplet.background in lost:
                members = (triplet.composite, triplet.mask, triplet.depth)
                reason = f"background {triplet.background} {lost[triplet.background]}"
                self._reject(Rejection(triplet.key, members, reason))
            else:
                kept.append(triplet)
        self.found.triplets = kept

    def _reject(self, rejection: Rejection) -> None:
        blamed = self.members.describe(rejection.members[0])
        self.rejected.append({"key": rejection.key, "member": blamed, "reason": rejection.reason})
        self.fates["rejected"] += len(rejection.members)

    def _plan(self) -> Plan:
        return make_plan(
            self.found.triplets,
            rule=self.config.split,
            val=self.config.val,
            seed=self.config.seed,
            samples_per_shard=self.config.samples_per_shard,
            statistics_samples=STATISTICS_SAMPLES,
        )

    def _write_shards(
        self,
        plan: Plan,
        numbers: Mapping[str, int],
        image_size: tuple[int, int],
        on_progress: Progress | None,
    ) -> dict[str, ShardReport]:
        foregrounds = {name: number for number, name in enumerate(plan.foregrounds)}
        tasks = (
            ShardTask(
                out=self.config.out,
                work=self.work,
                name=shard.name,
                samples=[self._sample(triplet, numbers, foregrounds) for triplet in shard.triplets],
                archives=self.members.archives,
                image_size=image_size,
                check=self.config.check,
                counted=shard.counted,
                mean_depth=shard.split == "train",
            )
            for shard in plan.shards
        )
        total, done, written = sum(len(shard.triplets) for shard in plan.shards), 0, 0
        reports: dict[str, ShardReport] = {}
        with Processes(min(self.config.num_processes, len(plan.shards))) as processes:
            for shard, report in zip(plan.shards, processes.map(write_shard, tasks), strict=True):
                reports[shard.name] = report
                done += len(shard.triplets)
                written += sum(record.bytes for record in report.files.values())
                if on_progress is not None:
                    on_progress(done, total, written)
        return reports

    def _sample(
        self, triplet: Triplet, numbers: Mapping[str, int], foregrounds: Mapping[str, int]
    ) -> SampleTask:
        parts = (triplet.composite, triplet.mask, triplet.depth)
        archives = [self.members.archive_number(part) for part in parts]
        composite, mask, depth = (self.members[part] for part in parts)
        known = triplet.background is not None
        return SampleTask(
            key=triplet.key,
            archives=(archives[0], archives[1], archives[2]),
            members=(composite, mask, depth),
            background=safe_key(triplet.background) if triplet.background else None,
            background_number=numbers[triplet.background] if known else UNKNOWN,  # type: ignore[index]
            foreground=triplet.foreground,
            foreground_number=foregrounds.get(triplet.foreground or "", UNKNOWN),
            mirrored=triplet.mirrored,
        )

    def _write_rejected(self) -> None:
        """Write the list, and stop here if it is longer than the user accepts."""
        self.rejected.sort(key=lambda line: (line["key"], line["member"]))
        lines = "".join(json.dumps(line) + "\n" for line in self.rejected)
        self.files[REJECTED] = write_file(self.config.out / REJECTED, lines.encode())
        if len(self.rejected) > self.config.max_rejected:
            first = self.rejected[0]
            msg = (
                f"{len(self.rejected)} triplets or images were rejected, {self.config.max_rejected}"
                f" are accepted: {self.config.out / REJECTED} lists them ({first['member']}: "
                f"{first['reason']}, ...); mend the source, or accept them with "
                f"--max-rejected {len(self.rejected)}"
            )
            raise ShardError(msg)

    def _accounting(self) -> dict[str, int]:
        accounting = {fate: self.fates[fate] for fate in FATES}
        assert sum(accounting.values()) == len(self.members), "every member has one fate"
        return {**accounting, "members": len(self.members)}


def _merge(
    reports: Iterable[ShardReport], image_size: tuple[int, int]
) -> tuple[dict[str, Moments], int, MeanImage]:
    statistics = {part: Moments(CHANNELS[part]) for part in PARTS}
    mean_depth, counted = MeanImage(*image_size), 0
    for report in reports:
        counted += report.counted
        for part, moments in report.moments.items():
            statistics[part].merge(moments)
        if report.depth_images:
            total = np.array(report.depth_total, dtype=np.int64).reshape(image_size)
            mean_depth.merge(report.depth_images, total)
    return statistics, counted, mean_depth
