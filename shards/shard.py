"""One shard: read, check, write. Runs in a process of its own and depends on its task alone.

This is where a tar is written. A shard appears under its final name only when it is whole, and
the report beside the work in progress appears last: a rerun keeps what has a true report.
"""

import base64
import hashlib
import io
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.archive import MAX_MEMBER_BYTES
from shards.block import Block, BlockMaker
from shards.index import CHANNELS, PARTS, ROW, UNKNOWN, Rows
from shards.manifest import FileRecord
from shards.statistics import MeanImage, Moments, Pixels
from shards.tar import TarWriter
from shards.task import ShardTask

_SUFFIXES = ("npy", "idx", "tar")  # the tar last: it is what people look for
CHECKS = ("strict", "headers", "none")
REPAIRABLE = ("mask", "depth")

_BLOCK_BYTES = 4 << 20
"""Of images that are read, checked, hashed and written at once: numpy's calls cost as much for few
of them as for many, and 1 MB costs 9 us a sample more."""


@dataclass(kw_only=True)
class ShardReport:
    """What became of a shard; plain JSON on disk."""

    samples: int = 0
    files: dict[str, FileRecord] = field(default_factory=dict)
    moments: dict[str, Moments] = field(
        default_factory=lambda: {part: Moments(CHANNELS[part]) for part in PARTS}
    )
    counted: int = 0
    depth_images: int = 0
    depth_total: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    repaired: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REPAIRABLE, 0))
    rejected: list[dict[str, str]] = field(default_factory=list)

    def to_json(self) -> str:
        """The report's file."""
        value: dict[str, Any] = {
            **vars(self),
            "files": {name: asdict(record) for name, record in self.files.items()},
            "moments": {part: moments.to_json() for part, moments in self.moments.items()},
            "depth_total": base64.b64encode(self.depth_total.astype("<i8").tobytes()).decode(),
        }
        return json.dumps(value)

    @classmethod
    def from_json(cls, text: str) -> "ShardReport":
        """The inverse of `to_json`."""
        value = json.loads(text)
        value["files"] = {name: FileRecord(**record) for name, record in value["files"].items()}
        value["moments"] = {
            part: Moments.from_json(moments) for part, moments in value["moments"].items()
        }
        content = base64.b64decode(value["depth_total"], validate=True)
        value["depth_total"] = np.frombuffer(content, "<i8").astype(np.int64)
        return cls(**value)


def write_shard(task: ShardTask) -> ShardReport:
    """Write one shard with its indices, or keep it if it is already whole.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    report_path = task.work / f"{task.name}.json"
    kept = _kept(task.out, report_path)
    if kept is not None:
        return kept
    report = ShardReport()
    mean_depth = MeanImage(*task.image_size) if task.mean_depth else None
    tables: list[Rows] = [np.zeros(0, ROW)]
    lines: list[str] = []
    try:
        with TarWriter(task.work / f"{task.name}.tar") as tar:
            maker = BlockMaker(task, tar.reserve, partial(_count, report, mean_depth))
            for first, end in _portions(task):
                block = maker.make(first, end)
                tables.append(_rows(task, block, tar.size_bytes))
                lines += _lines(block, tar.size_bytes)
                tar.append(block.data)
                report.samples += len(block.samples)
                report.rejected += block.rejected
                for part, number in zip(REPAIRABLE, block.num_repaired[1:], strict=True):
                    report.repaired[part] += number
    finally:
        for archive in task.archives:
            archive.close()
    rows = np.concatenate(tables)
    if mean_depth is not None:
        report.depth_images = mean_depth.images
        report.depth_total = mean_depth.total.ravel()
    if report.samples:
        report.files[f"{task.name}.tar"] = FileRecord(bytes=tar.size_bytes, sha256=tar.sha256)
        _write_indices(task, report, rows, "".join(lines))
        for suffix in _SUFFIXES:
            (task.work / f"{task.name}.{suffix}").rename(task.out / f"{task.name}.{suffix}")
        sync_folder(task.out)
    # not synced: a report is believed only as far as the files are what it says
    temporary = report_path.with_suffix(".tmp")
    temporary.write_text(report.to_json(), encoding="utf-8")
    temporary.rename(report_path)
    return report


def write_file(path: Path, content: bytes) -> FileRecord:
    """Write a small file whole or not at all: temporary name, sync, rename, sync."""
    temporary = path.with_name(path.name + ".tmp")
    record = _write_synced(temporary, content)
    temporary.rename(path)
    sync_folder(path.parent)
    return record


def _write_synced(path: Path, content: bytes) -> FileRecord:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def sync_folder(path: Path) -> None:
    """Make renames in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_matches(path: Path, record: FileRecord) -> bool:
    """Whether a file has the size and the hash it should have."""
    if not path.is_file() or path.stat().st_size != record.bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == record.sha256


def _kept(out: Path, report_path: Path) -> ShardReport | None:
    try:
        report = ShardReport.from_json(report_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = all(file_matches(out / name, record) for name, record in report.files.items())
    return report if whole else None


def _portions(task: ShardTask) -> Iterator[tuple[int, int]]:
    """First and end of runs of samples of about a block's bytes."""
    sizes = np.minimum(task.samples.rows["size"], MAX_MEMBER_BYTES).astype(np.int64).sum(axis=1)
    numbers = np.cumsum(sizes) // _BLOCK_BYTES
    borders = (np.flatnonzero(np.diff(numbers)) + 1).tolist()
    return itertools.pairwise([0, *borders, len(sizes)])


def _rows(task: ShardTask, block: Block, at: int) -> Rows:
    """The index rows of a block that lies at byte `at` of the tar."""
    rows = np.zeros(len(block.samples), ROW)
    rows["offset"] = block.offsets[:, :-1] + at
    rows["size"], rows["json_size"] = block.sizes[:, :-1], block.sizes[:, -1]
    rows["crc"], rows["json_crc"] = block.crcs[:, :-1], block.crcs[:, -1]
    samples, chosen = task.samples, block.samples
    rows["background"] = samples.background_numbers[chosen]
    rows["foreground"] = samples.foreground_numbers[chosen]
    mirrored = [samples.mirrored[number] for number in chosen]
    rows["mirrored"] = [UNKNOWN if known is None else known for known in mirrored]
    return rows


def _lines(block: Block, at: int) -> Iterator[str]:
    """The lines of DALI's index: extension, offset, bytes and name of each member."""
    offsets, sizes = (block.offsets + at).ravel().tolist(), block.sizes.ravel().tolist()
    columns = zip(offsets, sizes, block.names, strict=True)
    members = [f"{name.partition('.')[2]} {offset} {size} {name}" for offset, size, name in columns]
    for first in range(0, len(members), 4):
        yield " ".join(members[first : first + 4]) + "\n"


def _count(report: ShardReport, mean_depth: MeanImage | None, images: Sequence[Pixels]) -> None:
    report.counted += 1
    for part, pixels in zip(PARTS, images, strict=True):
        report.moments[part].add(pixels)
    if mean_depth is not None:
        mean_depth.add(images[-1])


def _write_indices(task: ShardTask, report: ShardReport, rows: Rows, lines: str) -> None:
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    contents = {"npy": buffer.getvalue(), "idx": f"v1.2 {len(rows)}\n{lines}".encode()}
    for suffix, content in contents.items():
        path = task.work / f"{task.name}.{suffix}"
        report.files[path.name] = _write_synced(path, content)
