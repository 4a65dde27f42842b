"""What a conversion does after the names are matched: look, plan, write, add up.

The order of `Conversion.write` is the order on the disk: the manifest comes last.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shards.backgrounds import Backgrounds, write_backgrounds
from shards.index import CHANNELS, PARTS
from shards.layouts import MAGMA_DISPARITY
from shards.layouts.depth import DepthFormat
from shards.manifest import (
    BACKGROUNDS,
    NAME,
    REJECTED,
    Manifest,
    ShardRecord,
    SourceRecord,
)
from shards.options import ConvertConfig
from shards.plan import Plan, make_plan
from shards.probe import Findings, probe
from shards.processes import Processes
from shards.reading import Reading
from shards.shard import (
    REPAIRABLE,
    ShardReport,
    write_file,
    write_shard,
)
from shards.statistics import MeanImage, Moments
from shards.task import ShardTask, sample_tasks
from shards.triplet import Triplet, safe_key

STATISTICS_SAMPLES = 2_000
"""So many samples enter the statistics; all, if they are no more."""

STRICT_ONE_IN = 16
"""Under strict checking one in so many, if that is more; of the others every code is read, and no
pixels are made, which takes half the time."""

Progress = Callable[[int, int, int], None]
"""Called with samples done, samples in all, bytes written."""


def look(config: ConvertConfig, reading: Reading) -> Findings:
    """What some images of each archive say, except where the user says otherwise.

    Raises:
        ShardError: See `shards.probe.probe`.
    """
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


def plan_of(config: ConvertConfig, triplets: Sequence[Triplet]) -> Plan:
    """Where each triplet goes.

    Raises:
        ShardError: Two triplets have one key.
    """
    share = len(triplets) // STRICT_ONE_IN if config.check == "strict" else 0
    return make_plan(
        triplets,
        rule=config.split,
        val=config.val,
        seed=config.seed,
        samples_per_shard=config.samples_per_shard,
        statistics_samples=max(STATISTICS_SAMPLES, share),
    )


def options_of(config: ConvertConfig, reading: Reading) -> dict[str, Any]:
    """Everything that decides the bytes, a layout file's expressions included."""
    return {**config.options, "layout_definition": dict(reading.layout.definition)}


@dataclass(slots=True)
class Conversion:
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
            options=options_of(self.config, self.reading),
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
        return backgrounds, plan_of(self.config, backgrounds.triplets)

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
