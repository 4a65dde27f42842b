import platform
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from pathlib import Path
from pipeline.allocator import give_back_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

if sys.argv[1] == "set":
    assert give_back_freed_memory()
import torch
torch.empty(30 << 20, dtype=torch.uint8)  # freed: glibc now keeps what is smaller
before = resident()
kept = [torch.ones(8 << 20, dtype=torch.uint8) for _ in range(8)]
last = torch.ones(1 << 16, dtype=torch.uint8)  # on top of the heap: it cannot shrink
del kept
print(resident() - before)
"""


HOLES = """
import os
from pathlib import Path
from pipeline.allocator import give_back_freed_memory, give_back_holes

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

assert give_back_freed_memory()
before = resident()
pieces = [bytes(20_000) for _ in range(3_000)]
pieces = pieces[::10]  # what stays keeps the heap from shrinking
held = resident() - before
assert give_back_holes()
print(held, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_is_freed_is_the_systems_again() -> None:
    def held(how: str) -> int:
        command = [sys.executable, "-c", SCRIPT, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert held("left") > 32 << 20, "this machine gives back without being told"
    assert held("set") < 4 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_holes_in_the_heap_are_the_systems_again() -> None:
    command = [sys.executable, "-c", HOLES]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    held, left = map(int, done.stdout.split())
    assert held > 40 << 20, "this machine gives back without being told"
    assert left < 20 << 20
