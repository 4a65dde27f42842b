"""One shard: read, check, write. Runs in a process of its own and depends on its task alone.

This is where a tar is written. A shard appears under its final name only when it is whole, and
the report beside the work in progress appears last: a rerun keeps what has a true report.
"""

import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shards.archive import Archive, Member, MemberError
from shards.imagery import Header, ImageError, check_size, decode, read_header
from shards.index import PARTS, ROW, UNKNOWN, Rows
from shards.manifest import FileRecord
from shards.repair import DepthStorage, encode_repaired, fit_as_is, repaired
from shards.statistics import MeanImage, Moments, Pixels
from shards.tar import TarWriter

CHANNELS = {"composite": 3, "mask": 1, "depth": 1, "background": 3}
COMPONENTS = {"composite": "fgbg", "mask": "mask", "depth": "depth"}
"""What a part is called between key and extension in the tar."""

_SUFFIXES = ("npy", "idx", "tar")  # the tar last: it is what people look for
CHECKS = ("strict", "headers", "none")
REPAIRABLE = ("mask", "depth")


class SampleTask(NamedTuple):
    """One sample to write: its three members and what `KEY.json` says of it."""

    key: str
    archives: tuple[int, int, int]
    members: tuple[Member, Member, Member]
    background: str | None
    background_number: int
    foreground: str | None
    foreground_number: int
    mirrored: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardTask:
    """Everything a process needs to write one shard."""

    out: Path
    work: Path
    """Where temporary files and the report lie: on the same file system as `out`."""
    name: str
    samples: Sequence[SampleTask]
    archives: Sequence[Archive]
    image_size: tuple[int, int]
    depth: DepthStorage
    check: str
    counted: int
    """So many of the first samples enter the statistics even without strict checking."""
    mean_depth: bool


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
    depth_total: list[int] = field(default_factory=list)
    repaired: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REPAIRABLE, 0))
    rejected: list[dict[str, str]] = field(default_factory=list)

    def to_json(self) -> str:
        """The report's file."""
        value: dict[str, Any] = {
            **vars(self),
            "files": {name: asdict(record) for name, record in self.files.items()},
            "moments": {part: moments.to_json() for part, moments in self.moments.items()},
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
        return cls(**value)


class _RejectedError(Exception):
    """Why a sample is left out, and the member to blame."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(reason)
        self.member = member


class _Image(NamedTuple):
    data: bytes
    header: Header
    pixels: Pixels | None
    is_repaired: bool = False


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
    rows = np.zeros(len(task.samples), dtype=ROW)
    lines: list[str] = []
    mean_depth = MeanImage(*task.image_size) if task.mean_depth else None
    try:
        with TarWriter(task.work / f"{task.name}.tar") as tar:
            for position, sample in enumerate(task.samples):
                counted = task.check == "strict" or position < task.counted
                try:
                    images = _read_images(task, sample, decoded=counted)
                except _RejectedError as error:
                    line = {"key": sample.key, "member": error.member, "reason": str(error)}
                    report.rejected.append(line)
                    continue
                source = task.archives[sample.archives[0]].name
                lines.append(_write_sample(tar, sample, source, images, rows[report.samples]))
                report.samples += 1
                for part, image in zip(PARTS, images, strict=True):
                    if image.is_repaired:
                        report.repaired[part] += 1
                if counted:
                    _count(report, images, mean_depth)
    finally:
        for archive in task.archives:
            archive.close()
    if mean_depth is not None:
        report.depth_images = mean_depth.images
        report.depth_total = mean_depth.total.ravel().tolist()
    if report.samples:
        report.files[f"{task.name}.tar"] = FileRecord(bytes=tar.size_bytes, sha256=tar.sha256)
        _write_indices(task, report, rows[: report.samples], "".join(lines))
        for suffix in _SUFFIXES:
            (task.work / f"{task.name}.{suffix}").rename(task.out / f"{task.name}.{suffix}")
        sync_folder(task.out)
    write_file(report_path, report.to_json().encode())
    return report


def write_file(path: Path, content: bytes) -> FileRecord:
    """Write a small file whole or not at all: temporary name, sync, rename, sync."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_folder(path.parent)
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


def read_image(archive: Archive, member: Member, size: tuple[int, int], *, decoded: bool) -> _Image:
    """Read and check a colour image that keeps its bytes.

    Raises:
        MemberError, ImageError: It is not fit to train on.
    """
    data = archive.read(member)
    header = read_header(data)
    check_size(header, size)
    return _Image(data, header, decode(data, header, 3) if decoded else None)


def _read_grey(task: ShardTask, part: str, data: bytes, *, decoded: bool) -> _Image:
    """Check a mask or depth map, and make it grey if it is not."""
    header = read_header(data)
    if fit_as_is(part, header, task.depth):
        check_size(header, task.image_size)
        return _Image(data, header, decode(data, header, 1) if decoded else None)
    pixels = repaired(part, data, header, task.depth, task.image_size)
    height, width, _ = pixels.shape
    new = Header("png", height, width, 1)
    return _Image(encode_repaired(pixels), new, pixels, is_repaired=True)


def _kept(out: Path, report_path: Path) -> ShardReport | None:
    try:
        report = ShardReport.from_json(report_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = all(file_matches(out / name, record) for name, record in report.files.items())
    return report if whole else None


def _read_images(task: ShardTask, sample: SampleTask, *, decoded: bool) -> list[_Image]:
    images = []
    for part, number, member in zip(PARTS, sample.archives, sample.members, strict=True):
        archive = task.archives[number]
        try:
            if part == "composite":
                image = read_image(archive, member, task.image_size, decoded=decoded)
            else:
                image = _read_grey(task, part, archive.read(member), decoded=decoded)
        except (MemberError, ImageError) as error:
            blamed = f"{archive.name}: {member.name}"
            raise _RejectedError(blamed, f"{part} {error}") from None
        images.append(image)
    return images


def _write_sample(
    tar: TarWriter, sample: SampleTask, archive: str, images: Sequence[_Image], row: np.void
) -> str:
    """Append the members and fill in the row; returns the sample's line of the `.idx`."""
    columns = []
    for part, (component, image) in enumerate(zip(COMPONENTS.values(), images, strict=True)):
        extension = f"{component}.{image.header.kind}"
        offset = tar.add(f"{sample.key}.{extension}", image.data)
        row["offset"][part] = offset
        row["size"][part] = len(image.data)
        row["crc"][part] = zlib.crc32(image.data)
        columns.append(f"{extension} {offset} {len(image.data)} {sample.key}.{extension}")
    row["background"] = sample.background_number
    row["foreground"] = sample.foreground_number
    row["mirrored"] = UNKNOWN if sample.mirrored is None else sample.mirrored
    info = _info(sample, archive, images[0].header)
    offset = tar.add(f"{sample.key}.json", info)
    row["json_size"] = len(info)
    row["json_crc"] = zlib.crc32(info)
    columns.append(f"json {offset} {len(info)} {sample.key}.json")
    return " ".join(columns) + "\n"


def _info(sample: SampleTask, archive: str, header: Header) -> bytes:
    known = sample.background is not None
    value = {
        "background": sample.background,
        "background_number": sample.background_number if known else None,
        "foreground": sample.foreground,
        "mirrored": sample.mirrored,
        "archive": archive,
        "member": sample.members[0].name,
        "size": [header.height, header.width],
    }
    return json.dumps(value).encode()


def _count(report: ShardReport, images: Iterable[_Image], mean_depth: MeanImage | None) -> None:
    report.counted += 1
    for part, image in zip(PARTS, images, strict=True):
        assert image.pixels is not None
        report.moments[part].add(image.pixels)
        if part == "depth" and mean_depth is not None:
            mean_depth.add(image.pixels)


def _write_indices(task: ShardTask, report: ShardReport, rows: Rows, lines: str) -> None:
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    contents = {"npy": buffer.getvalue(), "idx": f"v1.2 {len(rows)}\n{lines}".encode()}
    for suffix, content in contents.items():
        name = f"{task.name}.{suffix}"
        report.files[name] = write_file(task.work / name, content)
