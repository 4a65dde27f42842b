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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_is_freed_is_the_systems_again() -> None:
    def held(how: str) -> int:
        command = [sys.executable, "-c", SCRIPT, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert held("left") > 32 << 20, "this machine gives back without being told"
    assert held("set") < 4 << 20
