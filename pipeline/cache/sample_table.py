"""Decoded samples, a row each: composite, mask and depth one after the other, uint8.

One row a sample, so that a gather is one copy a sample and a file is read at one place. A row is
held from the moment all of it is written; rows are written once, from any thread. Row numbers and
offsets are 64 bits wide: 400,000 samples at 224 px are 100 GB.

Shapes: M rows, N samples of a batch, H = W = the stage's size in pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.cache.gather import gather
from pipeline.cache.memory_plan import BYTES_PER_PIXEL
from pipeline.decoder import Request
from pipeline.memory import pages
from pipeline.source import BadSample
from pipeline.subset import Subset

Numbers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]


def parts_of(rows: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of (N, 5 H W) rows: (N, H, W, 3) composite, (N, H, W) mask and depth."""
    area = size * size
    composite, mask, depth = rows.split([3 * area, area, area], dim=1)
    return (
        composite.unflatten(1, (size, size, 3)),
        mask.unflatten(1, (size, size)),
        depth.unflatten(1, (size, size)),
    )


def memory_rows(num: int, size: int) -> Bytes:
    """(num, 5 H W) bytes; see `pages`."""
    return pages(num * BYTES_PER_PIXEL * size**2).reshape(num, BYTES_PER_PIXEL * size**2)


def none_held(num: int) -> Bools:
    """(num + 1,) whether each row is held: the last stands for all that have no row, and never is.

    So that one `take` that clips answers for any number.
    """
    return np.zeros(num + 1, np.bool_)


class HostTable:
    """Rows in the host's memory, or in a file mapped there.

    Args:
        rows: (M, 5 H W) bytes.
        size: H.
    """

    device = torch.device("cpu")

    def __init__(self, rows: Bytes, size: int) -> None:
        self.rows, self.size = rows, size
        self._held = none_held(len(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def holds(self, numbers: Numbers) -> Bools:
        """(N,) whether each sample has been written."""
        return self._held.take(numbers, mode="clip")

    @property
    def num_held(self) -> int:
        """Samples written so far."""
        return int(np.count_nonzero(self.holds(np.arange(len(self)))))

    def put(self, numbers: Numbers, parts: Sequence[Bytes], good: Numbers) -> None:
        """Keep the samples that have a row and are not held yet.

        Args:
            numbers: (N,) rows.
            parts: (N, ...) bytes of composite, mask and depth.
            good: Which of the N may be kept.
        """
        new = good[(numbers[good] < len(self)) & ~self.holds(numbers[good])]
        write_rows(self.rows, numbers[new], parts, new)
        self._held[numbers[new]] = True
        self.written(numbers[new])

    def written(self, numbers: Numbers) -> None:
        """Rows have been written; what lies in a file goes on from here."""

    def gather(self, numbers: Numbers, out: Bytes, *, in_use: int) -> None:
        """Copy rows, all below M, into (N, 5 H W) bytes; see `Gather`."""
        gather(self.rows, numbers, out, in_use=in_use)

    def close(self) -> None:
        """Let go of the memory."""
        self.rows, self._held = np.empty((0, self.rows.shape[1]), np.uint8), none_held(0)


def write_rows(rows: Bytes, at: Numbers, parts: Sequence[Bytes], which: Numbers) -> None:
    """Write samples `which` of (N, ...) parts to rows `at`."""
    flat = [part.reshape(len(part), math.prod(part.shape[1:])) for part in parts]
    ends = [0, *accumulate(part.shape[1] for part in flat)]
    for row, i in zip(at.tolist(), which.tolist(), strict=True):
        for part, begin, end in zip(flat, ends[:-1], ends[1:], strict=True):
            rows[row, begin:end] = part[i]


class DeviceTable:
    """Rows in a device's memory. All its work is queued on torch's current stream.

    Args:
        num: M.
        size: H.
        device: Where.
    """

    def __init__(self, num: int, size: int, device: torch.device) -> None:
        self.device, self.size = device, size
        self.rows = torch.empty((num, BYTES_PER_PIXEL * size**2), dtype=torch.uint8, device=device)
        self._held = none_held(num)

    def __len__(self) -> int:
        return len(self._held) - 1

    def holds(self, numbers: Numbers) -> Bools:
        """(N,) whether each sample has been written."""
        return self._held.take(numbers, mode="clip")

    @property
    def num_held(self) -> int:
        """Samples written so far."""
        return int(np.count_nonzero(self._held))

    def put(self, numbers: Numbers, parts: Sequence[Tensor], good: Numbers) -> None:
        """Keep the samples that have a row and are not held yet.

        Args:
            numbers: (N,) rows.
            parts: (N, ...) composite, mask and depth on the device.
            good: Which of the N may be kept.
        """
        new = good[(numbers[good] < len(self)) & ~self.holds(numbers[good])]
        if new.size:
            write_parts(self.rows, numbers[new], parts, new, self.size)
            self._held[numbers[new]] = True

    def gather(self, numbers: Numbers) -> Tensor:
        """(N, 5 H W) rows, all below M."""
        return self.rows.index_select(0, on_device(numbers, self.device))

    def close(self) -> None:
        """Let go of the memory."""
        self.rows = self.rows[:0].clone()


def write_parts(
    rows: Tensor, at: Numbers, parts: Sequence[Tensor], which: Numbers, size: int
) -> None:
    """Write samples `which` of (N, ...) parts to rows `at`, all on one device."""
    places, chosen = on_device(at, rows.device), on_device(which, rows.device)
    for row_part, part in zip(parts_of(rows, size), parts, strict=True):
        row_part.index_copy_(0, places, part.index_select(0, chosen))


def on_device(numbers: Numbers, device: torch.device) -> Tensor:
    """Numbers as a tensor there, without waiting for the device."""
    tensor = torch.from_numpy(np.ascontiguousarray(numbers))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


@dataclass(kw_only=True)
class SampleCache:
    """The decoded samples of one split at one size."""

    table: HostTable | DeviceTable
    """Keeps the pixels."""

    subset: Subset
    """The samples to keep: their places are the table's rows, which may be fewer."""

    bad: dict[int, BadSample] = field(default_factory=dict)
    """Those that could not be decoded: not tried again while this cache lives."""

    @property
    def is_whole(self) -> bool:
        """There is a row for every sample."""
        return len(self.table) >= self.subset.num_samples

    @property
    def is_filled(self) -> bool:
        """All that will ever be in it is."""
        bad = np.array(list(self.bad), np.int64)  # other threads add
        num_bad = int(np.count_nonzero(self.rows(bad) < len(self.table)))
        return self.table.num_held >= len(self.table) - num_bad

    def rows(self, numbers: Numbers) -> Numbers:
        """(N,) the table's row for each sample number; those of no row lie behind its end."""
        return self.subset.places_of(numbers)

    @property
    def not_held(self) -> Numbers:
        """The sample numbers whose rows have not been written."""
        places = np.arange(self.subset.num_samples)
        return self.subset.numbers_at(places[~self.table.holds(places)])

    def missing(self, request: Request) -> Numbers:
        """Positions of a batch's samples that have to be decoded."""
        counted = request.numbers[: request.num_counted]
        known = self.table.holds(self.rows(counted))
        if self.bad:
            known |= np.isin(counted, list(self.bad))
        return (~known).nonzero()[0]

    def known_bad(self, request: Request) -> dict[int, BadSample]:
        """Which positions of a batch are known to be bad, and why."""
        if not self.bad:
            return {}
        counted = request.numbers[: request.num_counted].tolist()
        return {i: self.bad[number] for i, number in enumerate(counted) if number in self.bad}
