"""The index rows of one split of one or more sets, under one numbering.

Sets are numbered one after the other. A set that is repeated takes as many stretches of numbers, so
that each comes once an epoch, and a sample's copies are augmented on their own; its rows are kept
once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.opening import OpenedSet, raise_faults
from shards.error import ShardError
from shards.index import ROW, UNKNOWN, Rows, read_rows
from shards.manifest import Manifest, ShardRecord
from shards.tar import BLOCK

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRows:
    """Where N numbered samples lie: R rows, of which repeats share some."""

    shard: Numbers
    """(R,) position of the shard among those of all sets."""

    offset: Numbers
    """(R, 3) first byte of composite, mask and depth in the tar."""

    size: npt.NDArray[np.int32]
    """(R, 3) bytes of each."""

    crc: npt.NDArray[np.uint32]
    """(R, 3) CRC-32 of each."""

    row_of: Numbers | None
    """(N,) row of each number; None where they are the same."""

    background: Numbers
    """(N,) position in the bank of all backgrounds, one set's after the other; -1 unknown."""

    foreground: Numbers
    """(N,) number of the object, one set's after the other; -1 unknown."""

    shard_lengths: tuple[tuple[int, ...], ...]
    """Samples of each shard, set by set in the order of their numbers; the shards of a repeated set
    come again."""

    def of(self, numbers: Numbers) -> Numbers:
        """The rows of sample numbers."""
        return numbers if self.row_of is None else self.row_of[numbers]


def read_sample_rows(sets: Sequence[OpenedSet], split: str) -> SampleRows:
    """Read and check the indices of a split; repeats count for `train` alone.

    Raises:
        LoaderError: An index is missing or does not fit its tar; a set's faults are named at once.
    """
    tables = [_read_table(opened, split) for opened in sets]
    repeats = [opened.repeats if split == "train" else 1 for opened in sets]
    shards = [opened.manifest.split_shards(split) for opened in sets]
    row_of = _row_of_numbers([len(table) for table in tables], repeats)
    rows = np.concatenate([np.zeros(0, ROW), *tables])
    lengths = [shard.samples for records in shards for shard in records]

    def numbered(field: str, names: Sequence[int]) -> Numbers:
        firsts = np.cumsum([0, *names[:-1]])
        columns = [
            np.where(table[field] >= 0, table[field] + first, UNKNOWN)
            for table, first in zip(tables, firsts, strict=True)
        ]
        column = np.concatenate([np.zeros(0, np.int64), *columns])
        return column if row_of is None else column[row_of]

    return SampleRows(
        shard=np.repeat(np.arange(len(lengths)), lengths),
        offset=rows["offset"].copy(),
        size=rows["size"].copy(),
        crc=rows["crc"].copy(),
        row_of=row_of,
        background=numbered("background", [len(s.manifest.backgrounds) for s in sets]),
        foreground=numbered("foreground", [len(s.manifest.foregrounds) for s in sets]),
        shard_lengths=tuple(
            tuple(shard.samples for shard in records) * times
            for records, times in zip(shards, repeats, strict=True)
        ),
    )


def _row_of_numbers(lengths: Sequence[int], repeats: Sequence[int]) -> Numbers | None:
    if all(times == 1 for times in repeats):
        return None
    ends = np.cumsum(lengths)
    stretches = [
        np.tile(np.arange(end - length, end), times)
        for end, length, times in zip(ends, lengths, repeats, strict=True)
    ]
    return np.concatenate(stretches)


def _read_table(opened: OpenedSet, split: str) -> Rows:
    tables: list[Rows] = [np.zeros(0, ROW)]
    faults: list[str] = []
    for shard in opened.manifest.split_shards(split):
        try:
            tables.append(read_rows(opened.folder / f"{shard.name}.npy", shard.samples))
        except ShardError as error:
            faults.append(str(error).partition(";")[0])
        else:
            faults += _row_faults(tables[-1], shard, opened.manifest)
    raise_faults(opened.location, faults)
    return np.concatenate(tables)


def _row_faults(rows: Rows, shard: ShardRecord, manifest: Manifest) -> list[str]:
    begin, end = rows["offset"], rows["offset"] + rows["size"]
    tar = manifest.files.get(f"{shard.name}.tar")
    in_order = (begin[:, 1:] >= end[:, :-1] + BLOCK).all() and (end > begin).all()
    if tar is None:
        return [f"{shard.name}.tar is not among the manifest's files"]
    if not in_order or (begin < BLOCK).any() or (end > tar.bytes).any():
        return [f"{shard.name}.npy points outside {shard.name}.tar"]
    lowest = 0 if manifest.backgrounds else UNKNOWN
    background = rows["background"]
    if ((background < lowest) | (background >= len(manifest.backgrounds))).any():
        return [f"{shard.name}.npy names backgrounds that the set does not hold"]
    return []
