"""Cores and memory as a container's limits leave them, read from a made-up file system."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.hardware import (
    Memory,
    l3_bytes,
    open_file_limit,
    processor,
    read_cores,
    read_memory,
)

Files = Callable[..., Path]
MEMINFO = "MemTotal:       16000 kB\nMemFree: 1 kB\nMemAvailable:    9000 kB\nHugePages_Total:  0\n"


@pytest.fixture
def machine(tmp_path: Path) -> Files:
    """Makes a root of files: `machine({"proc/meminfo": "..."})`."""

    def make(files: dict[str, str]) -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return make


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


V2 = {"proc/self/cgroup": "0::/box/inner\n"}
V1 = {"proc/self/cgroup": "4:memory:/far/away\n2:cpu,cpuacct:/far/away\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "quota", "usable"),
    [
        ({}, None, 8),
        ({**V2, "sys/fs/cgroup/box/inner/cpu.max": "max 100000"}, None, 8),
        ({**V2, "sys/fs/cgroup/box/inner/cpu.max": "250000 100000"}, 2.5, 2),
        ({**V2, "sys/fs/cgroup/box/cpu.max": "300000 100000"}, 3.0, 3),
        ({**V2, "sys/fs/cgroup/cpu.max": "10000 100000"}, 0.1, 1),
        (
            {
                **V2,
                "sys/fs/cgroup/box/inner/cpu.max": "500000 100000",
                "sys/fs/cgroup/box/cpu.max": "200000 100000",
            },
            2.0,
            2,
        ),
        ({**V2, "sys/fs/cgroup/box/inner/cpu.max": "nonsense"}, None, 8),
        ({**V2, "sys/fs/cgroup/box/inner/cpu.max": "6400000 100000"}, 64.0, 8),
        (
            {
                **V1,  # the path is the host's: only the mount itself is to be seen in here
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            4.0,
            4,
        ),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
            8,
        ),
    ],
)
def test_cores_are_those_allowed_within_the_tightest_quota(
    machine: Files, files: dict[str, str], quota: float | None, usable: int
) -> None:
    cores = read_cores(machine(files))
    assert (cores.allowed, cores.quota, cores.usable) == (8, quota, usable)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({**V2, "sys/fs/cgroup/box/inner/memory.max": "max"}, None),
        ({**V2, "sys/fs/cgroup/box/memory.max": "4096000"}, 4_096_000),
        ({**V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "8192000"}, 8_192_000),
        ({**V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ({**V2, "sys/fs/cgroup/memory.max": str(1 << 50)}, None),
    ],
)
def test_memory_is_the_hosts_and_the_tightest_limit_on_it(
    machine: Files, files: dict[str, str], limit: int | None
) -> None:
    memory = read_memory(machine({**files, "proc/meminfo": MEMINFO}))
    assert memory == Memory(total=16_384_000, available=9_216_000, limit=limit, used=0, shared=0)


def test_the_processor_is_named_or_is_nothing(machine: Files) -> None:
    root = machine({"proc/cpuinfo": "processor : 0\nmodel name\t: Abacus 3000\nflags : a\n"})
    assert processor(root) == "Abacus 3000"
    assert processor(root / "elsewhere") == ""


def test_this_machine_is_read_as_it_is() -> None:
    memory = read_memory()
    assert memory.total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory.available <= memory.total
    limit = open_file_limit()
    assert limit is None or limit >= 3


@pytest.mark.parametrize(
    ("text", "megabytes"), [("98304K\n", 96), ("many", 32), ("", 32), (None, 32)]
)
def test_the_l3_cache_is_the_systems_or_a_usual_one(
    machine: Files, text: str | None, megabytes: int
) -> None:
    files = {} if text is None else {"sys/devices/system/cpu/cpu0/cache/index3/size": text}
    assert l3_bytes(machine(files)) == megabytes << 20
