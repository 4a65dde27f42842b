"""How many bytes a cache may take of the device, the host and a folder's disk, as of now.

Each keeps a reserve for what is yet to come: a network and its activations, the page cache under
the shards, other processes.
"""

import os
import shutil
from pathlib import Path

import torch

from pipeline.cache.memory_plan import Room
from pipeline.hardware import ROOT, read_memory

DEVICE_RESERVE = 0.2
"""Share of the device's memory left to the network: 28 GB of an H200's 141."""

HOST_RESERVE = 0.15
"""Share of the host's memory left to other uses."""

DISK_RESERVE = 0.05
"""Share of a disk left free."""


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


def host_room(root: Path = ROOT) -> int:
    """Bytes of host memory that may be taken, within this container's limit."""
    memory = read_memory(root)
    total, free = memory.total, memory.available
    if memory.limit is not None:
        total, free = memory.limit, min(free, memory.limit - memory.used)
    return int(free - HOST_RESERVE * total)


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
