"""What lies in memory, and what a disk gives."""

import mmap
import os
from pathlib import Path

import pytest

from pipeline.doctor.page_cache import disk_rate, resident_bytes

MIB = 1 << 20


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    """Five MiB and a bit, on the disk and not only in memory."""
    path = tmp_path / "blob"
    path.write_bytes(os.urandom(5 * MIB + 1234))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path


def _forget(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _lies_in_memory(path: Path) -> bool:
    """Whether a file's mount, the longest that its path begins with, has no disk below it."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(at, kind) for at, kind in mounts if path.is_relative_to(at)]
    return max(above, key=lambda mount: len(mount[0]))[1] in {"tmpfs", "ramfs"}


def test_what_was_written_is_in_memory_and_what_was_dropped_is_not(blob: Path) -> None:
    if _lies_in_memory(blob):
        pytest.skip("the temporary folder lies in memory")
    assert resident_bytes(blob) == blob.stat().st_size
    _forget(blob)
    assert resident_bytes(blob) == 0
    with blob.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), 1, 3 * MIB)
    assert resident_bytes(blob) == mmap.PAGESIZE


def test_an_empty_file_is_nowhere_and_a_missing_one_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert resident_bytes(tmp_path / "empty") == 0
    with pytest.raises(FileNotFoundError):
        resident_bytes(tmp_path / "missing")


def test_every_block_is_read_once_past_the_page_cache(
    blob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    preadv = os.preadv

    def counted(file: int, buffers: list[mmap.mmap], at: int) -> int:
        read.append(at)
        return preadv(file, buffers, at)

    monkeypatch.setattr(os, "preadv", counted)
    _forget(blob)
    before = resident_bytes(blob)
    rate = disk_rate([blob])
    if rate is None:
        pytest.skip("this file system reads only through the page cache")
    assert rate > 0
    assert sorted(read) == [i * MIB for i in range(5)]
    assert resident_bytes(blob) == before


def test_reading_stops_when_its_time_is_up(blob: Path) -> None:
    now = iter(range(1000))
    assert disk_rate([blob], seconds=0, clock=lambda: next(now)) is None


def test_too_small_a_file_tells_no_rate(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"x" * (MIB - 1))
    assert disk_rate([path]) is None
