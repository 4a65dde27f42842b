"""What this machine lets this process have: cores, memory, open files.

A container sees its host's processors and memory in /proc; what it may use of them stands in its
control group, of version 1 or 2. Every function takes the root of the file system, for tests.
"""

import math
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")

_NO_LIMIT = 1 << 60
"""Version 1 says "none" by a number about as large as an address."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cores:
    """Processor cores."""

    allowed: int
    """Those this process may run on."""

    quota: float | None
    """How many of them its control group lets it use at a time; None: all."""

    @property
    def usable(self) -> int:
        """How many threads can run at a time; at least 1."""
        return self.allowed if self.quota is None else min(self.allowed, max(1, round(self.quota)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes of host memory."""

    total: int
    available: int
    """What can be had without swapping."""

    limit: int | None
    """This process's control group; None: no limit below the total."""

    used: int
    """Of that limit, page cache that can be dropped left out; 0 without a limit."""

    shared: int
    """Free in /dev/shm; 0 where there is none."""


def read_cores(root: Path = ROOT) -> Cores:
    """The cores of this process."""
    return Cores(allowed=len(os.sched_getaffinity(0)), quota=_cpu_quota(root))


def usable_cores() -> int:
    """How many threads of this process can run at a time."""
    return read_cores().usable


def processor(root: Path = ROOT) -> str:
    """The processor's name; empty if the system does not tell."""
    lines = (_text(root / "proc/cpuinfo") or "").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")


def read_memory(root: Path = ROOT) -> Memory:
    """The host's memory.

    Raises:
        OSError: The system does not tell.
    """
    text = (root / "proc/meminfo").read_text(encoding="ascii")
    rows = (line.split() for line in text.splitlines() if line)
    kilobytes = {name.rstrip(":"): int(amount) for name, amount, *_ in rows}
    total = kilobytes["MemTotal"] * 1024
    limits = [found for found in _memory_limits(root) if found[0] < total]
    # of groups within each other the one with the least left decides
    limit, used = min(limits, key=lambda found: found[0] - found[1], default=(None, 0))
    return Memory(
        total=total,
        available=kilobytes["MemAvailable"] * 1024,
        limit=limit,
        used=used,
        shared=_free_space(root / "dev/shm"),
    )


def l3_bytes(root: Path = ROOT) -> int:
    """The L3 cache of the first core, which others may share; 32 MB if the system does not tell."""
    text = _text(root / "sys/devices/system/cpu/cpu0/cache/index3/size") or ""
    kilobytes = text.strip().removesuffix("K")
    return (int(kilobytes) if kilobytes.isdecimal() else 32 << 10) << 10


def open_file_limit() -> int | None:
    """How many files this process may hold open; None: any number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def is_container(root: Path = ROOT) -> bool:
    """Whether this seems to be a container."""
    return (root / ".dockerenv").exists() or (root / "run/.containerenv").exists()


def _cpu_quota(root: Path) -> float | None:
    found = []
    for folder in _groups("cpu", root):
        # version 2 has one file ("max 100000"), version 1 two (-1 and 100000)
        names = ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        for texts in ([_text(folder / name) for name in group] for group in names):
            quota, period = (_number(word) for word in (*_words(texts), "", "")[:2])
            if quota is not None and quota > 0 and period:
                found.append(quota / period)
    return min(found, default=None)


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit of each control group, and what it uses that cannot be dropped."""
    versions = (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    )
    for folder in _groups("memory", root):
        for limit_name, use_name in versions:
            limit = _number(_text(folder / limit_name) or "")
            if limit and limit < _NO_LIMIT:
                use = _number(_text(folder / use_name) or "") or 0
                yield int(limit), max(0, int(use) - _droppable(folder))


def _droppable(group: Path) -> int:
    """Bytes of page cache that a control group counts as its own."""
    rows = (line.split() for line in (_text(group / "memory.stat") or "").splitlines())
    found = {row[0]: _number(row[1]) or 0 for row in rows if len(row) == 2}
    # in version 1 the plain names leave out the groups within
    names = ("total_inactive_file", "total_active_file")
    if names[0] not in found:
        names = ("inactive_file", "active_file")
    return int(sum(found.get(name, 0) for name in names))


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of this process's control group and of those it lies in."""
    mount = root / "sys/fs/cgroup"
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        base = mount / controller if names else mount
        # inside a container the path may be the host's, and only the base be there
        own = Path(os.path.normpath(base / path.lstrip("/")))
        yield from (at for at in (own, *own.parents) if at != base and at.is_relative_to(base))
        yield base


def _words(texts: list[str | None]) -> list[str]:
    return [word for text in texts if text for word in text.split()]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _free_space(folder: Path) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize
