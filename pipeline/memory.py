"""Memory straight from the system, for what is large and lives long.

Between a C library's smaller pieces it would leave holes: over 50 epochs those moved a process by a
tenth, up and down.
"""

import numpy as np
import numpy.typing as npt

from shards.pages import pages as system_pages

LARGE_BYTES = 1 << 20
"""What is smaller comes from the heap after all: a process may have 65,000 mappings."""


def pages(num_bytes: int) -> npt.NDArray[np.uint8]:
    """(num_bytes,) zeros, whose memory is taken as it is first written.

    In huge pages where the system has them: rows are read in random order, and 4 KB pages cost a
    tenth of a gather's rate in address translation.
    """
    if num_bytes < LARGE_BYTES:
        return np.zeros(num_bytes, np.uint8)
    return np.frombuffer(system_pages(num_bytes), np.uint8, num_bytes)
