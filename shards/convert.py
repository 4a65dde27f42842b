"""Zips in, a shard set out: list, match, look, plan, write in processes, and the manifest last.

A killed conversion, rerun, keeps the shards that are whole and ends with the bytes it would have
had: work in progress lies in `SET/.convert`, which names the plan it belongs to.
"""

import shutil
import sys
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from shards.collection import uncollected
from shards.conversion import Conversion, Progress, look, options_of, plan_of
from shards.disk_file import prepare
from shards.error import ShardError
from shards.manifest import (
    BACKGROUNDS,
    REJECTED,
    FileRecord,
    Manifest,
)
from shards.options import ConvertConfig
from shards.processes import Processes
from shards.reading import Reading, read_sources
from shards.work import finished_set, work_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertReport:
    """What a conversion did."""

    manifest: Manifest
    already_finished: bool
    """The folder held this very set; nothing was written."""


def convert(config: ConvertConfig, on_progress: Progress | None = None) -> ConvertReport:
    """Write the set.

    Raises:
        ShardError: The sources cannot be read or matched, images do not belong together, too much
            was rejected, the folder belongs to another conversion, or the disk is full.
    """
    with uncollected(), Processes(config.num_processes, prepare) as processes:
        return _convert(config, processes, on_progress)


def _convert(
    config: ConvertConfig, processes: Processes, on_progress: Progress | None
) -> ConvertReport:
    reading = read_sources(config)
    sources = reading.sources()
    identity = {"layout": reading.layout.name, "options": options_of(config, reading),
                "sources": [asdict(source) for source in sources]}  # fmt: skip
    finished = finished_set(config.out, identity)
    if finished is not None:
        return ConvertReport(manifest=finished, already_finished=True)
    try:
        with work_folder(config.out, identity) as work, ThreadPoolExecutor(1) as planner:
            planned = planner.submit(plan_of, config, reading.triplets)
            findings = look(config, reading)
            run = Conversion(config, reading, findings, planned, work, processes, on_progress)
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
    findings, config = look(config, reading), replace(config, out=work)
    # what was rejected is known only when every shard was read
    stems = None if REJECTED in names else {Path(name).stem for name in names}
    with Processes(config.num_processes, prepare) as processes, ThreadPoolExecutor(1) as planner:
        planned = planner.submit(plan_of, config, reading.triplets)
        run = Conversion(config, reading, findings, planned, work, processes, on_progress)
        backgrounds, plan = run.prepare()
        files = {BACKGROUNDS: backgrounds.file} if backgrounds.file else {}
        for report in run.write_shards(plan, backgrounds, only=stems).values():
            reading.ledger.add_triplets(used=report.samples, rejected=report.rejected)
            files |= report.files
    if REJECTED in names:
        files[REJECTED] = reading.ledger.write(work, max_rejected=sys.maxsize)
    return files
