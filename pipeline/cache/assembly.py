"""One batch coming together: its cached samples gathered, the others decoded, bad ones replaced.

Shapes: B samples, H = W = the stage's size in pixels.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from pipeline.cache.memory_plan import BYTES_PER_PIXEL
from pipeline.cache.sample_table import (
    Bytes,
    DeviceTable,
    HostTable,
    Numbers,
    SampleCache,
    memory_rows,
    parts_of,
    write_parts,
    write_rows,
)
from pipeline.decoder import DecodedBatch, Request, first_good

Fill = Callable[[HostTable, Numbers, Sequence[Tensor], Numbers], None]
"""Does `HostTable.put` beside the consumer."""


class Frame:
    """Host memory for a batch, and the ways to see it.

    Args:
        rows: (B, 5 H W) uint8.
        size: H.
    """

    def __init__(self, rows: Tensor, size: int) -> None:
        self.rows = rows
        self.array: Bytes = rows.numpy()
        self.parts = parts_of(rows, size)


class Frames:
    """The frames of a stream, used again: fresh pages cost more than what is copied there.

    Args:
        size: H.
        pinned: Page-locked, for a CUDA device to copy from. Such a frame may still be read when we
            are done with it; torch's own allocator waits for that, so it goes back there.
    """

    def __init__(self, size: int, *, pinned: bool) -> None:
        self._size, self._pinned = size, pinned
        self._free: list[Frame] = []

    def take(self, num: int) -> Frame:
        """Memory for `num` samples: the last that came back, of which most is in the L3 cache."""
        while self._free:
            if len((frame := self._free.pop()).array) == num:
                return frame
        if self._pinned:
            shape = (num, BYTES_PER_PIXEL * self._size**2)
            return Frame(torch.empty(shape, dtype=torch.uint8, pin_memory=True), self._size)
        return Frame(torch.from_numpy(memory_rows(num, self._size)), self._size)

    def give_back(self, frame: Frame | None) -> None:
        """Nothing reads it any more."""
        if frame is not None and not self._pinned:
            self._free.append(frame)


class Assembly:
    """One batch.

    Args:
        cache: What is held.
        request: The batch.
        missing: Positions of the samples that have to be decoded.
        device: Where it goes.
        frames: Memory for it, if it is gathered in the host's.
    """

    def __init__(
        self,
        cache: SampleCache,
        request: Request,
        missing: Numbers,
        device: torch.device,
        frames: Frames,
    ) -> None:
        self._table, self._request, self._missing = cache.table, request, missing
        self._rows = cache.rows(request.numbers)
        self._device = device
        self._bad = cache.known_bad(request)
        self._is_complete = len(missing) == len(request.numbers)
        self._is_taken = False
        self._gathering: list[Future[None]] = []
        is_gathered = isinstance(self._table, HostTable) and not self._is_complete
        self.frame = frames.take(len(request.numbers)) if is_gathered else None

    def gathering(self, num_tasks: int, num_frames: int) -> list[Callable[[], None]]:
        """What gathers a batch of which nothing has to be decoded, on the host.

        Args:
            num_tasks: How many threads may share it.
            num_frames: Frames that the stream uses in turn.
        """
        if self.frame is None:
            return []
        table, numbers, rows = self._host_table, self._shown_rows(), self.frame.array
        gather = partial(table.gather, in_use=num_frames * rows.nbytes)
        bounds = [len(numbers) * task // num_tasks for task in range(num_tasks + 1)]
        return [
            partial(gather, numbers[begin:end], rows[begin:end]) for begin, end in pairwise(bounds)
        ]

    def gathered(self) -> DecodedBatch:
        """That batch."""
        if isinstance(self._table, DeviceTable):
            rows = self._table.gather(self._shown_rows())
        else:
            assert self.frame is not None
            rows = self.frame.rows
        if self._stand_in() is None:
            rows.zero_()
        return self._as_batch(rows)

    def gather_in(self, pool: Executor) -> None:
        """Start to copy the held samples of a batch of which some have to be decoded."""
        if self.frame is None:
            return
        counted = np.arange(self._request.num_counted)
        held = np.setdiff1d(counted, [*self._missing, *self._bad])
        rows, chosen = self._host_table.rows, self._rows[held]
        self._gathering.append(pool.submit(write_rows, self.frame.array, held, [rows], chosen))

    def to_decode(self, *, padded: bool) -> Request:
        """What the decoder has to do for this batch.

        Args:
            padded: As many samples as the batch has, though not all count.
        """
        if not self._missing.size:
            # no decoder takes an empty request, and to open it again costs more than one sample
            self._missing = np.zeros(1, np.int64)
        positions = self._missing
        if padded:
            positions = np.resize(positions, len(self._request.numbers))
        return Request(
            numbers=self._request.numbers[positions],
            num_counted=min(len(self._missing), self._request.num_counted),
            on_decoded=self._take if isinstance(self._table, HostTable) else None,
        )

    def decoded(self, pixels: DecodedBatch, fill: Fill) -> DecodedBatch:
        """The batch, from what the decoder made of `to_decode`.

        Args:
            pixels: That.
            fill: For decoded samples that the decoder did not tell on its way.
        """
        numbers, rows = self._request.numbers[self._missing], self._rows[self._missing]
        good = np.flatnonzero(pixels.weights[: len(numbers)])
        parts = [pixels.composite, pixels.mask, pixels.depth]
        if isinstance(self._table, DeviceTable):
            parts = [part.to(self._table.device, non_blocking=True) for part in parts]
            self._table.put(rows, parts, good)
        elif not self._is_taken:
            fill(self._table, rows, parts, good)
        if self._is_complete:
            composite, mask, depth = parts
            return replace(pixels, composite=composite, mask=mask, depth=depth)
        found = {bad.number: bad for bad in pixels.bad}
        places = zip(self._missing.tolist(), numbers.tolist(), strict=True)
        self._bad |= {i: found[number] for i, number in places if number in found}
        return self._as_batch(self._joined(parts, good))

    def _take(self, at: int, parts: Sequence[Bytes], bad: Iterable[int]) -> None:
        """Keep a chunk that begins at `at` of what was to decode; called by decoding threads."""
        positions = self._missing[at : at + len(parts[0])]
        good = np.setdiff1d(np.arange(len(positions)), list(bad))
        self._host_table.put(self._rows[positions], parts, good)
        if self.frame is not None:
            write_rows(self.frame.array, positions[good], parts, good)
        self._is_taken = True

    def _joined(self, parts: Sequence[Tensor], good: Numbers) -> Tensor:
        """Held and decoded samples together, those without pixels replaced."""
        if isinstance(self._table, DeviceTable):
            rows = self._table.gather(np.minimum(self._rows, len(self._table) - 1))
        else:
            assert self.frame is not None
            for copied in self._gathering:
                copied.result()
            rows = _on(self.frame.rows, parts[0].device)
        if not self._is_taken:
            write_parts(rows, self._missing[good], parts, good, self._table.size)
        if replaced := self._replaced():
            stand_in = self._stand_in()
            rows[replaced] = 0 if stand_in is None else rows[stand_in].clone()
        return rows

    @property
    def _host_table(self) -> HostTable:
        assert isinstance(self._table, HostTable)
        return self._table

    def _replaced(self) -> list[int]:
        """Positions that show another sample's pixels."""
        return [*self._bad, *range(self._request.num_counted, len(self._request.numbers))]

    def _stand_in(self) -> int | None:
        """Position of the sample that they show; None if there is none."""
        replaced = self._replaced()
        return first_good(self._request, replaced) if replaced else 0

    def _shown_rows(self) -> Numbers:
        """The row whose pixels each position shows."""
        rows = self._rows
        if replaced := self._replaced():
            rows = rows.copy()
            rows[replaced] = rows[self._stand_in() or 0]
        return rows

    def _as_batch(self, rows: Tensor) -> DecodedBatch:
        if self.frame is not None and rows.device == self._device:
            composite, mask, depth = self.frame.parts
        else:
            composite, mask, depth = parts_of(_on(rows, self._device), self._table.size)
        bad = dict(sorted(self._bad.items()))
        return DecodedBatch(
            composite=composite,
            mask=mask,
            depth=depth,
            numbers=self._request.numbers,
            weights=self._request.weights(bad),
            bad=tuple(bad.values()),
        )


def _on(tensor: Tensor, device: torch.device) -> Tensor:
    # `to` costs 17 us also where there is nothing to do: a tenth of a batch at 64 px
    return tensor if tensor.device == device else tensor.to(device, non_blocking=True)
