"""Memory straight from the system, in huge pages where it has them."""

import mmap
from contextlib import suppress

PAGE_BYTES = 4096


def pages(num_bytes: int) -> mmap.mmap:
    """At least so many bytes of zeros in whole pages, taken as they are first written."""
    size = -(-num_bytes // PAGE_BYTES) * PAGE_BYTES
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # macOS has none
        with suppress(OSError):  # nor has every kernel
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
