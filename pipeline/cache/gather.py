"""Rows of a table copied to a batch: all that a cached sample costs, and bound by memory alone.

Rows lie far apart: the processor learns too late where the next one is to have it fetched in time.
And where a stream's frames do not fit the L3 cache it reads from memory, for nothing, what it is
about to overwrite. `gather_kernel.py` does something about both, which numpy cannot; but it takes a
second to import and compile. So that is done beside a stream for which it is worth it, and numpy
gathers until then, and for good where there is no numba. The bytes are the same. Figures:
docs/decisions/0017.
"""

import logging
import threading
from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.hardware import l3_bytes

Numbers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

Kernel = Callable[[Bytes, Numbers, Bytes, bool], None]
"""`gather_kernel.gather_rows`."""

WORTH_BYTES = 16 << 30
"""So many are gathered in about the time that it takes to compile."""

_logger = logging.getLogger(__name__)


class Gather:
    """Copies rows; by a kernel, once there is one.

    Args:
        compiled: Imports and compiles it.
    """

    def __init__(self, compiled: Callable[[], Kernel]) -> None:
        self._compiled = compiled
        self._kernel: Kernel | None = None
        self._begun = threading.Lock()  # never released: once in a process

    def __call__(self, rows: Bytes, numbers: Numbers, out: Bytes, *, in_use: int) -> None:
        """Copy rows; other threads go on meanwhile.

        Args:
            rows: (M, L) table.
            numbers: (N,) rows, all of 0 to M - 1.
            out: (N, L), written.
            in_use: Bytes that are written, in turn, before these are written again.
        """
        if self._kernel is None:
            np.take(rows, numbers, axis=0, out=out, mode="clip")  # `raise` would buffer `out`
        else:
            self._kernel(rows, numbers, out, in_use > self._l3_bytes)

    def expect(self, num_bytes: float) -> None:
        """So many are about to be gathered: if that is worth it, a thread compiles meanwhile.

        Now, and not when it has been gathered: a process grows by 120 MB with it, which should not
        look like a leak in the middle of a run.
        """
        if num_bytes >= WORTH_BYTES and self._begun.acquire(blocking=False):
            # a daemon: a process that ends does not wait for it
            thread = threading.Thread(
                target=self._compile_beside, name="maskdepth-compile", daemon=True
            )
            thread.start()

    def compile(self) -> None:
        """Have the kernel now.

        Raises:
            Exception: Whatever importing and compiling raise; numpy goes on gathering.
        """
        self._kernel = self._compiled()

    @cached_property
    def _l3_bytes(self) -> int:
        return l3_bytes()

    def _compile_beside(self) -> None:
        try:
            self.compile()
        except ImportError as error:
            _logger.info("numpy gathers cached samples: %s", error)
        except Exception as error:
            _logger.warning("numpy gathers cached samples: numba does not compile (%s)", error)


def _compiled() -> Kernel:
    from pipeline.cache.gather_kernel import gather_rows

    return gather_rows


gather = Gather(_compiled)
"""That of this process: whatever streams, it compiles once."""
