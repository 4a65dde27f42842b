"""What is free, by the kernel's own accounts."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from pipeline.cache.free_memory import DISK_RESERVE, disk_room, host_room, measure_room, ranks_here

MIB = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A file system that tells of 1 GB, 600 MB of it available, in a group of version 2."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(
        "MemTotal:  1000000 kB\nMemFree: 1 kB\nMemAvailable:  600000 kB\nHuge: 0\n"
    )
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    return tmp_path


def limit(root: Path, folder: str, files: dict[str, str]) -> Path:
    group = root / "sys/fs/cgroup" / folder
    group.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (group / name).write_text(f"{content}\n")
    return group


def test_without_a_limit_it_is_what_is_available_less_the_reserve(root: Path) -> None:
    assert host_room(root) == (600_000 - 150_000) * 1024


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_counts_and_its_page_cache_does_not(root: Path, version: int) -> None:
    folder, names, prefix = "", ("memory.max", "memory.current"), ""
    if version == 1:
        (root / "proc/self/cgroup").write_text("4:memory:/job\n")
        folder, prefix = "memory/job", "total_"
        names = "memory.limit_in_bytes", "memory.usage_in_bytes"
    statistics = f"anon {50 * MIB}\n{prefix}inactive_file {150 * MIB}\n"
    statistics += f"{prefix}active_file {50 * MIB}"
    sizes = (str(400 * MIB), str(300 * MIB))
    group = limit(root, folder, dict(zip(names, sizes, strict=True)) | {"memory.stat": statistics})
    assert host_room(root) == (400 - 100 - 60) * MIB
    (group / names[0]).write_text("max\n")
    assert host_room(root) == (600_000 - 150_000) * 1024


def test_of_nested_limits_the_one_with_the_least_left_decides(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/outer/inner\n")
    outer = {"memory.max": str(500 * MIB), "memory.current": str(450 * MIB), "memory.stat": ""}
    inner = {"memory.max": str(400 * MIB), "memory.current": str(100 * MIB), "memory.stat": ""}
    limit(root, "outer", outer)
    limit(root, "outer/inner", inner)
    assert host_room(root) == (500 - 450 - 75) * MIB


def test_a_damaged_account_of_the_container_is_no_limit(root: Path) -> None:
    limit(root, "", {"memory.max": "?"})
    assert host_room(root) == (600_000 - 150_000) * 1024


def test_here_there_is_less_than_the_machine_has() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert host_room() < total


def test_a_folder_that_is_not_there_yet_has_its_parents_disk(tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    expected = usage.free - DISK_RESERVE * usage.total
    assert disk_room(tmp_path / "a" / "b") == pytest.approx(expected, rel=0.05)


def test_without_a_gpu_or_a_folder_there_are_no_such_tiers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = measure_room(torch.device("cpu"), None, ranks=4)
    assert room.device is None
    assert room.file is None
    assert room.host <= host_room() / 4 * 1.05 + MIB
    assert measure_room(torch.device("cpu"), tmp_path).file is not None
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert ranks_here(8) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert ranks_here(8) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_has_room_beside_the_reserve() -> None:
    device = torch.device("cuda", 0)
    room = measure_room(device, None).device
    assert room is not None
    assert room < torch.cuda.mem_get_info(device)[1]
