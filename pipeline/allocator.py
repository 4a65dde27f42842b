"""Freed batches given back to the system at once, so that a long run's memory stays where it is.

glibc raises the size from which it asks the system for memory of its own each time such a piece is
freed, up to 32 MB, and keeps what is smaller in its heap: a run of 260 MB then holds 400, up and
down by 8 % from epoch to epoch. A fixed size ends that. Taking a batch anew from the system costs
its pages, some 10 us a sample.

Smaller pieces, such as encoded images, leave holes in the heap: over 50 epochs they add up to a
tenth of the whole. So the heap's free pages are given back whenever a stream ends, in about a
millisecond.
"""

import ctypes

_M_ARENA_MAX, _M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -8, -3, -1  # malloc.h of glibc
_MMAP_THRESHOLD_BYTES = 1 << 20  # a batch has more, what one image needs on the way less
_TRIM_THRESHOLD_BYTES = 32 << 20
"""128 kB once the other is fixed: then freeing one decoded image shrinks the heap, and decoding
takes half as long again."""

_ARENAS = 2


def give_back_freed_memory() -> bool:
    """Set it for this process; whether its C library knows how."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = (
        (_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES),
        (_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES),
        (_M_ARENA_MAX, _ARENAS),
    )
    return all(mallopt(name, value) == 1 for name, value in settings)


def give_back_holes() -> bool:
    """Give the system the heap's whole free pages, once; whether there were any."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return False
    return bool(trim(0))
