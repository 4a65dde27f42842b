"""Does a set still hold what its manifest says? Every fault at once, down to the sample.

The hash of a file says that something changed; the index says where: CRCs for the images and
`KEY.json`, the only possible header for each member, zeros between them.
"""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.block import COMPONENTS
from shards.error import ShardError
from shards.imagery import ImageError, decode_sized
from shards.index import CHANNELS, PARTS, Rows, read_rows
from shards.manifest import BACKGROUNDS, Manifest, ShardRecord, read_manifest
from shards.tar import BLOCK, header, read_members

Progress = Callable[[int, int], None]
"""Called with bytes checked and bytes in all."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not as the manifest says."""

    file: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}: {self.found}"


def verify(set_path: Path, *, deep: bool, on_progress: Progress | None = None) -> list[Fault]:
    """Compare every file of a set with its manifest.

    Args:
        set_path: The set.
        deep: Also decode every image strictly and compare both indices with the tar.
        on_progress: Called after each file.

    Raises:
        ShardError: There is no whole manifest to compare with.
    """
    manifest = read_manifest(set_path)
    faults = [*_stray_files(set_path, manifest)]
    total, done = sum(record.bytes for record in manifest.files.values()), 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # hashing and decoding leave the GIL
        jobs = {name: pool.submit(_check_file, set_path, manifest, name) for name in manifest.files}
        for name, job in jobs.items():
            faults.extend(job.result())
            done += manifest.files[name].bytes
            if on_progress is not None:
                on_progress(done, total)
        if deep and not faults:
            checks = [pool.submit(_decode_shard, set_path, manifest, shard)
                      for shard in manifest.shards]  # fmt: skip
            checks.append(pool.submit(_decode_backgrounds, set_path, manifest))
            for check in checks:
                faults.extend(check.result())
    return faults


def _stray_files(set_path: Path, manifest: Manifest) -> Iterator[Fault]:
    """A reader that globs `train-*.tar` would train on a shard nobody vouches for."""
    for path in sorted(set_path.iterdir()):
        if path.suffix in {".tar", ".idx", ".npy"} and path.name not in manifest.files:
            yield Fault(path.name, "is not in the manifest; move it out of the set")


def _check_file(set_path: Path, manifest: Manifest, name: str) -> list[Fault]:
    record, path = manifest.files[name], set_path / name
    if not path.is_file():
        return [Fault(name, "is missing")]
    size = path.stat().st_size
    if size != record.bytes:
        change = "longer" if size > record.bytes else "shorter"
        return [Fault(name, f"is {abs(size - record.bytes)} bytes {change} than the manifest says")]
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == record.sha256:
            return []
    for shard in manifest.shards:
        if name == f"{shard.name}.tar":
            return _locate(set_path, shard) or [Fault(name, "does not match its SHA-256")]
    return [Fault(name, "does not match its SHA-256")]


def _locate(set_path: Path, shard: ShardRecord) -> list[Fault]:
    """Which samples of a changed tar were hit; none if the index cannot tell."""
    try:
        rows = read_rows(set_path / f"{shard.name}.npy", shard.samples)
    except ShardError:
        return []
    tar = (set_path / f"{shard.name}.tar").read_bytes()
    faults = []
    for number, row in enumerate(rows):
        hit = _changed_member(tar, row)
        if hit:
            key = _key(tar, row)
            faults.append(Fault(f"{shard.name}.tar", f"sample {number} ({key}): {hit} changed"))
    return faults


def _changed_member(tar: bytes, row: np.void) -> str | None:
    key, end = _key(tar, row), 0
    for part, offset, size, crc in zip(PARTS, *_columns(row), strict=True):
        name = _member_name(tar, offset)
        expected = {f"{key}.{COMPONENTS[part]}.{kind}" for kind in ("jpg", "png")}
        if name not in expected or not _is_header(tar[offset - BLOCK : offset], name, size):
            return f"the header of the {part}"
        if zlib.crc32(tar[offset : offset + size]) != crc:
            return f"the {part}"
        end = offset + size
        if any(tar[end : end + -size % BLOCK]):
            return f"the padding of the {part}"
        end += -size % BLOCK
    size = int(row["json_size"])
    start = end + BLOCK
    if not _is_header(tar[end:start], f"{key}.json", size):
        return "the header of KEY.json"
    if zlib.crc32(tar[start : start + size]) != int(row["json_crc"]):
        return "KEY.json"
    padding = tar[start + size : start + size + -size % BLOCK]
    return "the padding of KEY.json" if any(padding) else None


def _is_header(block: bytes, name: str, size: int) -> bool:
    try:
        return block == header(name, size)
    except ShardError:  # where headers were hit, the name may be none that we write
        return False


def _columns(row: np.void) -> tuple[list[int], list[int], list[int]]:
    return row["offset"].tolist(), row["size"].tolist(), row["crc"].tolist()


def _member_name(tar: bytes, offset: int) -> str:
    name = tar[offset - BLOCK : offset - BLOCK + 100].partition(b"\0")[0]
    return name.decode("ascii", errors="replace")


def _key(tar: bytes, row: np.void) -> str:
    """The key as most of the sample's headers have it: one of them may be the damaged one."""
    keys = [_member_name(tar, offset).partition(".")[0] for offset in row["offset"].tolist()]
    return max(keys, key=keys.count)


def _decode_shard(set_path: Path, manifest: Manifest, shard: ShardRecord) -> list[Fault]:
    file = f"{shard.name}.tar"
    rows = read_rows(set_path / f"{shard.name}.npy", shard.samples)
    tar = (set_path / file).read_bytes()
    faults = _compare_text_index(set_path, shard, tar, rows)
    for number, row in enumerate(rows):
        hit = _changed_member(tar, row)
        if hit:
            faults.append(Fault(file, f"sample {number}: {hit} is not as the index says"))
            continue
        offsets, sizes, _ = _columns(row)
        for part, offset, size in zip(PARTS, offsets, sizes, strict=True):
            fault = _undecodable(tar[offset : offset + size], manifest, CHANNELS[part])
            if fault:
                faults.append(Fault(file, f"sample {number} ({_key(tar, row)}): {part} {fault}"))
    return faults


def _compare_text_index(set_path: Path, shard: ShardRecord, tar: bytes, rows: Rows) -> list[Fault]:
    name = f"{shard.name}.idx"
    lines = (set_path / name).read_text(encoding="ascii").splitlines()
    if lines[0] != f"v1.2 {len(rows)}" or len(lines) != len(rows) + 1:
        return [Fault(name, "does not list the samples of its shard")]
    faults = []
    for number, (line, row) in enumerate(zip(lines[1:], rows, strict=True)):
        fields = line.split()
        listed = [(int(fields[at + 1]), int(fields[at + 2])) for at in (0, 4, 8)]
        offsets, sizes, _ = _columns(row)
        names = [_member_name(tar, offset) for offset in offsets]
        if listed != list(zip(offsets, sizes, strict=True)) or fields[3:12:4] != names:
            faults.append(Fault(name, f"line {number + 2} does not agree with the tar"))
    return faults


def _decode_backgrounds(set_path: Path, manifest: Manifest) -> list[Fault]:
    if not manifest.backgrounds:
        return []
    faults = []
    for name, data in read_members(set_path / BACKGROUNDS):
        fault = _undecodable(data, manifest, CHANNELS["background"])
        if fault:
            faults.append(Fault(BACKGROUNDS, f"{name}: {fault}"))
    return faults


def _undecodable(data: bytes, manifest: Manifest, channels: int) -> str | None:
    try:
        decode_sized(data, manifest.image_size, channels)
    except ImageError as error:
        return str(error)
    return None
