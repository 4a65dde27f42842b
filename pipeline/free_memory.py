"""How many bytes a cache may take of the device, the host and a folder's disk, as of now.

Each keeps a reserve for what is yet to come: a network and its activations, the page cache under
the shards, other processes.
"""

import os
import shutil
from pathlib import Path

import torch

from pipeline.memory_plan import Room

DEVICE_RESERVE = 0.2
"""Share of the device's memory left to the network: 28 GB of an H200's 141."""

HOST_RESERVE = 0.15
"""Share of the host's memory left to other uses."""

DISK_RESERVE = 0.05
"""Share of a disk left free."""

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def measure_room(device: torch.device, folder: Path | None, *, ranks: int = 1) -> Room:
    """What each tier may take.

    Args:
        device: Where batches go.
        folder: Where a file would lie; None rules that tier out.
        ranks: Processes on this machine that share its memory.
    """
    return Room(
        device=_device_room(device) if device.type == "cuda" else None,
        host=host_room() // ranks,
        file=None if folder is None else disk_room(folder),
    )


def _device_room(device: torch.device) -> int:
    free, total = torch.cuda.mem_get_info(device)
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + idle - DEVICE_RESERVE * total)


def host_room(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """Bytes of host memory that may be taken, within this container's limit."""
    rows = (line.split() for line in meminfo.read_text(encoding="ascii").splitlines())
    kilobytes = {name.rstrip(":"): int(amount) for name, amount, *_ in rows}
    total, free = kilobytes["MemTotal"] * 1024, kilobytes["MemAvailable"] * 1024
    limit, used = _limit_and_use(cgroup)
    if limit is not None and limit < total:
        total, free = limit, min(free, limit - used)
    return int(free - HOST_RESERVE * total)


def _limit_and_use(cgroup: Path) -> tuple[int | None, int]:
    """A container's memory limit, and what it uses that cannot be dropped."""
    try:
        text = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        rows = (cgroup / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None, 0
    statistics = dict(row.split() for row in rows)
    droppable = int(statistics.get("inactive_file", 0)) + int(statistics.get("active_file", 0))
    return (None if text == "max" else int(text)), max(used - droppable, 0)


def disk_room(folder: Path) -> int:
    """Bytes that a file in a folder, which need not exist yet, may take."""
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    usage = shutil.disk_usage(existing)
    return int(usage.free - DISK_RESERVE * usage.total)


def ranks_here(world_size: int) -> int:
    """How many ranks share this machine: what torchrun says, else all of them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
