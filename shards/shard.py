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
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from shards.archive import Archive, Member, MemberError
from shards.imagery import Header, ImageError, check, check_size, decode, read_header
from shards.index import PARTS, ROW, UNKNOWN, Rows
from shards.manifest import FileRecord
from shards.repair import encode_repaired, fit_as_is, repaired
from shards.statistics import MeanImage, Moments, Pixels
from shards.tar import TarWriter
from shards.task import SampleTask, ShardTask

CHANNELS = {"composite": 3, "mask": 1, "depth": 1, "background": 3}
COMPONENTS = {"composite": "fgbg", "mask": "mask", "depth": "depth"}
"""What a part is called between key and extension in the tar."""

_SUFFIXES = ("npy", "idx", "tar")  # the tar last: it is what people look for
CHECKS = ("strict", "headers", "none")
REPAIRABLE = ("mask", "depth")

Look = Literal["header", "codes", "pixels"]
"""How closely an image is looked at."""


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
    crc: int
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
    rows: list[tuple[Any, ...]] = []
    lines: list[str] = []
    mean_depth = MeanImage(*task.image_size) if task.mean_depth else None
    try:
        with TarWriter(task.work / f"{task.name}.tar") as tar:
            for position, sample in enumerate(task.samples):
                look = _look_at(task, position)
                try:
                    images = _read_images(task, sample, look)
                except _RejectedError as error:
                    line = {"key": sample.key, "member": error.member, "reason": str(error)}
                    report.rejected.append(line)
                    continue
                row, line_of_index = _write_sample(
                    tar, sample, task.archives[sample.archives[0]].name, images
                )
                rows.append(row)
                lines.append(line_of_index)
                for part in REPAIRABLE:
                    report.repaired[part] += images[PARTS.index(part)].is_repaired
                if look == "pixels":
                    _count(report, images, mean_depth)
    finally:
        for archive in task.archives:
            archive.close()
    report.samples = len(rows)
    if mean_depth is not None:
        report.depth_images = mean_depth.images
        report.depth_total = mean_depth.total.ravel().tolist()
    if report.samples:
        report.files[f"{task.name}.tar"] = FileRecord(bytes=tar.size_bytes, sha256=tar.sha256)
        _write_indices(task, report, np.array(rows, dtype=ROW), "".join(lines))
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


def read_image(
    archive: Archive, member: Member, size: tuple[int, int], look: Look = "pixels"
) -> _Image:
    """Read and check a colour image that keeps its bytes.

    Raises:
        MemberError, ImageError: It is not fit to train on.
    """
    data = archive.read(member)
    header = read_header(data)
    check_size(header, size)
    return _as_is(data, header, member, 3, look)


def _look_at(task: ShardTask, position: int) -> Look:
    if position in task.counted:
        return "pixels"
    return "codes" if task.check == "strict" else "header"


def _as_is(data: bytes, header: Header, member: Member, channels: int, look: Look) -> _Image:
    pixels = None
    if look == "pixels":
        pixels = decode(data, header, channels)
    elif look == "codes":
        check(data, header, channels)
    return _Image(data, header, pixels, member.crc if member.crc >= 0 else zlib.crc32(data))


def _read_grey(task: ShardTask, part: str, data: bytes, member: Member, look: Look) -> _Image:
    """Check a mask or depth map, and make it grey if it is not."""
    header = read_header(data)
    if fit_as_is(part, header, task.depth):
        check_size(header, task.image_size)
        return _as_is(data, header, member, 1, look)
    pixels = repaired(part, data, header, task.depth, task.image_size)
    height, width, _ = pixels.shape
    new = encode_repaired(pixels)
    crc = zlib.crc32(new)
    return _Image(new, Header("png", height, width, 1), pixels, crc, is_repaired=True)


def _kept(out: Path, report_path: Path) -> ShardReport | None:
    try:
        report = ShardReport.from_json(report_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = all(file_matches(out / name, record) for name, record in report.files.items())
    return report if whole else None


def _read_images(task: ShardTask, sample: SampleTask, look: Look) -> list[_Image]:
    images = []
    for part, number, member in zip(PARTS, sample.archives, sample.members, strict=True):
        archive = task.archives[number]
        try:
            if part == "composite":
                image = read_image(archive, member, task.image_size, look)
            else:
                image = _read_grey(task, part, archive.read(member), member, look)
        except (MemberError, ImageError) as error:
            blamed = f"{archive.name}: {member.name}"
            raise _RejectedError(blamed, f"{part} {error}") from None
        images.append(image)
    return images


def _write_sample(
    tar: TarWriter, sample: SampleTask, archive: str, images: Sequence[_Image]
) -> tuple[tuple[Any, ...], str]:
    """Append the members; returns the sample's row of the `.npy` and line of the `.idx`."""
    key, offsets, columns = sample.key, [], []
    for component, image in zip(COMPONENTS.values(), images, strict=True):
        extension = f"{component}.{image.header.kind}"
        name = f"{key}.{extension}"
        offset = tar.add(name, image.data)
        offsets.append(offset)
        columns.append(f"{extension} {offset} {len(image.data)} {name} ")
    info = _info(sample, archive, images[0].header)
    offset = tar.add(f"{key}.json", info)
    columns.append(f"json {offset} {len(info)} {key}.json\n")
    row = (
        tuple(offsets),
        tuple(len(image.data) for image in images),
        tuple(image.crc for image in images),
        len(info),
        zlib.crc32(info),
        sample.background_number,
        sample.foreground_number,
        UNKNOWN if sample.mirrored is None else sample.mirrored,
    )
    return row, "".join(columns)


def _info(sample: SampleTask, archive: str, header: Header) -> bytes:
    """`KEY.json`, as `json.dumps` would write it in five times as long."""
    known = sample.background is not None
    background = _json(sample.background)
    number = sample.background_number if known else "null"
    mirrored = {None: "null", True: "true", False: "false"}[sample.mirrored]
    return (
        f'{{"background": {background}, "background_number": {number}, '
        f'"foreground": {_json(sample.foreground)}, "mirrored": {mirrored}, '
        f'"archive": {quoted(archive)}, "member": {quoted(sample.members[0].name)}, '
        f'"size": [{header.height}, {header.width}]}}'
    ).encode()


def _json(text: str | None) -> str:
    return "null" if text is None else quoted(text)


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
