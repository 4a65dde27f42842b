"""Zips in, a shard set out: list, match, look, plan, write in processes, and the manifest last.

A killed conversion, rerun, keeps the shards that are whole and ends with the bytes it would have
had: work in progress lies in `SET/.convert`, which names the plan it belongs to.
"""

import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shards.backgrounds import Backgrounds, write_backgrounds
from shards.collection import uncollected
from shards.error import ShardError
from shards.index import CHANNELS, PARTS
from shards.layouts import MAGMA_DISPARITY
from shards.layouts.depth import DepthFormat
from shards.manifest import (
    BACKGROUNDS,
    NAME,
    REJECTED,
    FileRecord,
    Manifest,
    ShardRecord,
    SourceRecord,
)
from shards.options import ConvertConfig
from shards.plan import SPLITS, Plan, make_plan
from shards.probe import Findings, probe
from shards.processes import Processes
from shards.reading import Reading, read_sources
from shards.shard import (
    REPAIRABLE,
    ShardReport,
    write_file,
    write_shard,
)
from shards.statistics import MeanImage, Moments
from shards.task import ShardTask, sample_tasks
from shards.triplet import Members, Triplet, safe_key
from shards.work import finished_set, work_folder

STATISTICS_SAMPLES = 2_000
"""So many samples enter the statistics; all, if they are no more."""

STRICT_ONE_IN = 8
"""Under strict checking one in so many, if that is more; of the others every code is read, and no
pixels are made, which takes half the time."""

Progress = Callable[[int, int, int], None]
"""Called with samples done, samples in all, bytes written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertReport:
    """What a conversion did."""

    manifest: Manifest
    already_finished: bool
    """The folder held this very set; nothing was written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRun:
    """What a conversion would write, as far as names tell."""

    layout: str
    samples: Mapping[str, int]
    """By split."""
    shards: int
    bytes: int
    """Of the tars, before anything is repaired or rejected for its content."""
    backgrounds: int
    missing_backgrounds: int
    split: Mapping[str, Any]
    accounting: Mapping[str, int]
    rejected: tuple[Mapping[str, str], ...]


def convert(config: ConvertConfig, on_progress: Progress | None = None) -> ConvertReport:
    """Write the set.

    Raises:
        ShardError: The sources cannot be read or matched, images do not belong together, too much
            was rejected, the folder belongs to another conversion, or the disk is full.
    """
    with uncollected(), Processes(config.num_processes) as processes:
        return _convert(config, processes, on_progress)


def _convert(
    config: ConvertConfig, processes: Processes, on_progress: Progress | None
) -> ConvertReport:
    reading = read_sources(config)
    sources = reading.sources()
    identity = {"layout": reading.layout.name, "options": _options(config, reading),
                "sources": [asdict(source) for source in sources]}  # fmt: skip
    finished = finished_set(config.out, identity)
    if finished is not None:
        return ConvertReport(manifest=finished, already_finished=True)
    try:
        with work_folder(config.out, identity) as work, ThreadPoolExecutor(1) as planner:
            planned = planner.submit(_plan, config, reading.triplets)
            findings = _look(config, reading)
            run = _Conversion(config, reading, findings, planned, work, processes, on_progress)
            manifest = run.write(sources)
        shutil.rmtree(work)
    except OSError as error:
        msg = (
            f"cannot write {config.out}: {error}; make room or choose another folder, "
            "then run the same command again: it goes on where this one stopped"
        )
        raise ShardError(msg) from None
    return ConvertReport(manifest=manifest, already_finished=False)


def rewrite(
    config: ConvertConfig,
    reading: Reading,
    names: Collection[str],
    work: Path,
    on_progress: Progress | None = None,
) -> dict[str, FileRecord]:
    """Write some files of a set once more, into another folder.

    Args:
        config: What the set was made with.
        reading: Its sources.
        names: The files that are wanted; more may be written.
        work: An empty folder for them.
        on_progress: As for `convert`.

    Returns:
        Every file written.

    Raises:
        ShardError, OSError: As `convert`.
    """
    findings, config = _look(config, reading), replace(config, out=work)
    # what was rejected is known only when every shard was read
    stems = None if REJECTED in names else {Path(name).stem for name in names}
    with Processes(config.num_processes) as processes, ThreadPoolExecutor(1) as planner:
        planned = planner.submit(_plan, config, reading.triplets)
        run = _Conversion(config, reading, findings, planned, work, processes, on_progress)
        backgrounds, plan = run.prepare()
        files = {BACKGROUNDS: backgrounds.file} if backgrounds.file else {}
        for report in run.write_shards(plan, backgrounds, only=stems).values():
            reading.ledger.add_triplets(used=report.samples, rejected=report.rejected)
            files |= report.files
    if REJECTED in names:
        files[REJECTED] = reading.ledger.write(work, max_rejected=sys.maxsize)
    return files


def dry_run(config: ConvertConfig) -> DryRun:
    """What `convert` would write; reads the central directories and label files alone.

    Raises:
        ShardError: The sources cannot be read or matched.
    """
    reading = read_sources(config)
    plan = _plan(config, reading.triplets)
    samples = dict.fromkeys(SPLITS, 0)
    for shard in plan.shards:
        samples[shard.split] += len(shard.triplets)
    ledger = reading.ledger
    ledger.fates["used"] = 3 * len(reading.triplets)
    ledger.fates["backgrounds"] = len(reading.backgrounds)
    return DryRun(
        layout=reading.layout.name,
        samples=samples,
        shards=len(plan.shards),
        bytes=sum(_tar_bytes(reading.members, triplet) for triplet in reading.triplets),
        backgrounds=len(reading.backgrounds),
        missing_backgrounds=len(reading.missing),
        split=plan.split,
        accounting=ledger.accounting(),
        rejected=tuple(ledger.rejected),
    )


def _tar_bytes(members: Members, triplet: Triplet) -> int:
    """Images and `KEY.json` in blocks of 512 bytes, a header before each."""
    parts = (triplet.composite, triplet.mask, triplet.depth)
    return 1024 + sum(512 + -(-members[part].size // 512) * 512 for part in parts)


def _options(config: ConvertConfig, reading: Reading) -> dict[str, Any]:
    """Everything that decides the bytes, a layout file's expressions included."""
    return {**config.options, "layout_definition": dict(reading.layout.definition)}


def _look(config: ConvertConfig, reading: Reading) -> Findings:
    depth = MAGMA_DISPARITY if config.depth == "disparity" else reading.layout.depth
    findings = probe(
        reading.members,
        reading.triplets,
        reading.backgrounds,
        depth,
        check_pairs=config.pairing_check,
    )
    asked = {"polarity": config.depth_polarity, "scaling": config.depth_scaling}
    told = {name: value for name, value in asked.items() if value != "auto"}
    return replace(findings, depth=replace(findings.depth, **told))


def _plan(config: ConvertConfig, triplets: Sequence[Triplet]) -> Plan:
    share = len(triplets) // STRICT_ONE_IN if config.check == "strict" else 0
    return make_plan(
        triplets,
        rule=config.split,
        val=config.val,
        seed=config.seed,
        samples_per_shard=config.samples_per_shard,
        statistics_samples=max(STATISTICS_SAMPLES, share),
    )


@dataclass(slots=True)
class _Conversion:
    """The part of a conversion that writes."""

    config: ConvertConfig
    reading: Reading
    findings: Findings
    planned: Future[Plan]
    """For all triplets; made while the first images are looked at."""
    work: Path
    processes: Processes
    on_progress: Progress | None

    def write(self, sources: tuple[SourceRecord, ...]) -> Manifest:
        """Write every file of the set, the manifest last."""
        out, size = self.config.out, self.findings.image_size
        backgrounds, plan = self.prepare()
        reports = self.write_shards(plan, backgrounds)
        ledger = self.reading.ledger
        files = {BACKGROUNDS: backgrounds.file} if backgrounds.file else {}
        for report in reports.values():
            ledger.add_triplets(used=report.samples, rejected=report.rejected)
            files |= report.files
        files[REJECTED] = ledger.write(out, self.config.max_rejected)
        statistics, counted, mean_depth = _merge(reports.values(), size)
        if backgrounds.numbers:
            statistics["background"] = backgrounds.moments
        samples = {shard.name: reports[shard.name].samples for shard in plan.shards}
        manifest = Manifest(
            layout=self.reading.layout.name,
            options=_options(self.config, self.reading),
            split=plan.split,
            sources=sources,
            image_size=size,
            backgrounds=tuple(safe_key(name) for name in backgrounds.numbers),
            foregrounds=plan.foregrounds,
            depth=_depth_record(self.findings.depth, self.findings),
            repaired={
                part: sum(report.repaired[part] for report in reports.values())
                for part in REPAIRABLE
            },
            estimated_backgrounds=backgrounds.estimated,
            statistics={part: moment.result() for part, moment in statistics.items()},
            statistics_samples=counted,
            mean_depth_png=mean_depth.png_base64(),
            accounting=ledger.accounting(),
            shards=tuple(
                ShardRecord(name=shard.name, split=shard.split, samples=samples[shard.name])
                for shard in plan.shards
                if samples[shard.name]
            ),
            files=dict(sorted(files.items())),
        )
        write_file(out / NAME, manifest.text().encode())
        return manifest

    def prepare(self) -> tuple[Backgrounds, Plan]:
        """Write the backgrounds and decide where every triplet goes."""
        backgrounds = write_backgrounds(
            self.reading,
            self.config.out,
            self.work,
            self.findings.image_size,
            estimate=self.config.backgrounds == "estimate",
        )
        if backgrounds.triplets is self.reading.triplets:
            return backgrounds, self.planned.result()
        return backgrounds, _plan(self.config, backgrounds.triplets)

    def write_shards(
        self, plan: Plan, backgrounds: Backgrounds, only: Collection[str] | None = None
    ) -> dict[str, ShardReport]:
        """Write all shards, or only those of some names; reports by name."""
        shards = [shard for shard in plan.shards if only is None or shard.name in only]
        foregrounds = {name: number for number, name in enumerate(plan.foregrounds)}
        tasks = (
            ShardTask(
                out=self.config.out,
                work=self.work,
                name=shard.name,
                samples=sample_tasks(
                    shard.triplets, self.reading.members, backgrounds.numbers, foregrounds
                ),
                archives=self.reading.members.archives,
                image_size=self.findings.image_size,
                depth=self.findings.storage,
                check=self.config.check,
                counted=shard.counted,
                mean_depth=shard.split == "train",
            )
            for shard in shards
        )
        total, done, written = sum(len(shard.triplets) for shard in shards), 0, 0
        reports: dict[str, ShardReport] = {}
        for shard, report in zip(shards, self.processes.map(write_shard, tasks), strict=True):
            reports[shard.name] = report
            done += len(shard.triplets)
            written += sum(record.bytes for record in report.files.values())
            if self.on_progress is not None:
                self.on_progress(done, total, written)
        return reports


def _depth_record(depth: DepthFormat, findings: Findings) -> dict[str, Any]:
    frame = findings.storage.frame
    return {**asdict(depth), "frame": list(frame) if frame is not None else None}


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
            mean_depth.merge(report.depth_images, report.depth_total.reshape(image_size))
    return statistics, counted, mean_depth
