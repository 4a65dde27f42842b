"""What is free, by the kernel's own accounts."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from pipeline.free_memory import DISK_RESERVE, disk_room, host_room, measure_room, ranks_here

MIB = 1 << 20


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:  1000000 kB\nMemFree: 1 kB\nMemAvailable:  600000 kB\nHuge: 0\n")
    return path


def test_without_a_limit_it_is_what_is_available_less_the_reserve(
    meminfo: Path, tmp_path: Path
) -> None:
    assert host_room(meminfo, tmp_path / "no cgroup") == (600_000 - 150_000) * 1024


def test_a_containers_limit_counts_and_its_page_cache_does_not(
    meminfo: Path, tmp_path: Path
) -> None:
    (tmp_path / "memory.max").write_text(f"{400 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{300 * MIB}\n")
    (tmp_path / "memory.stat").write_text(
        f"anon {50 * MIB}\ninactive_file {150 * MIB}\nactive_file {50 * MIB}\n"
    )
    assert host_room(meminfo, tmp_path) == (400 - 100 - 60) * MIB
    (tmp_path / "memory.max").write_text("max\n")
    assert host_room(meminfo, tmp_path) == (600_000 - 150_000) * 1024


def test_a_damaged_account_of_the_container_is_no_limit(meminfo: Path, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("?\n")
    assert host_room(meminfo, tmp_path) == (600_000 - 150_000) * 1024


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
