"""Sample numbers in, encoded bytes out: the shards of one split, read by offset and checked.

`pread`, not a map: a mapped shard that is truncated under us kills the process, a short read is an
error we can handle. Each sample is one read that spans its three members, and each member must
match the CRC-32 of its index row, so a stale index or a flipped bit never becomes a training image.
"""

import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from pipeline.error import LoaderError
from pipeline.opening import raise_faults
from shards.error import ShardError
from shards.index import PARTS, ROW, UNKNOWN, Rows, read_rows
from shards.manifest import Manifest, ShardRecord
from shards.tar import BLOCK

_SAFE_NAME = re.compile(r"[\w-]+(\.\w+)+", re.ASCII)


class EncodedSample(NamedTuple):
    """The encoded images of one sample; views of one buffer."""

    composite: memoryview
    mask: memoryview
    depth: memoryview


@dataclass(frozen=True, kw_only=True, slots=True)
class BadSample:
    """A sample that cannot be used, and where it lies."""

    number: int
    """Sample number within its split."""

    shard: str
    """File name of the tar."""

    key: str
    """Name of the sample in the tar; empty if the tar no longer tells."""

    member: str
    """Name of the faulty member, or of the part it should hold if the tar no longer tells."""

    reason: str

    def __str__(self) -> str:
        return f"sample {self.number} ({self.shard}, {self.member}): {self.reason}"


class SampleSource:
    """The samples of one split by number. Any number of threads may read at once.

    Args:
        set_path: Folder of the set.
        manifest: What `open_set` returned for it.
        split: Which split's shards.

    Raises:
        LoaderError: An index is missing or does not fit its tar; all faults are named at once.
    """

    def __init__(self, set_path: Path, manifest: Manifest, split: str) -> None:
        self.set_path = set_path
        self.split = split
        self.image_size = manifest.image_size
        self._shards = manifest.split_shards(split)
        rows = _read_all_rows(set_path, manifest, self._shards)
        self._offset, self._size = rows["offset"].copy(), rows["size"].copy()
        self._crc = rows["crc"].copy()
        self._shard_of = np.repeat(
            np.arange(len(self._shards)), [shard.samples for shard in self._shards]
        )
        self.backgrounds: npt.NDArray[np.int64] = rows["background"].astype(np.int64)
        """(num_samples,) position of each sample's background in the bank; -1 unknown."""
        self.foregrounds: npt.NDArray[np.int64] = rows["foreground"].astype(np.int64)
        """(num_samples,) number of each sample's object; -1 unknown."""
        self._files: list[int] = []
        try:
            for shard in self._shards:
                self._files.append(os.open(set_path / f"{shard.name}.tar", os.O_RDONLY))
        except OSError as error:
            self.close()
            msg = (
                f"{shard.name}.tar cannot be opened ({error.strerror}); where too many files are "
                "open raise `ulimit -n`, or convert with more samples per shard"
            )
            raise LoaderError(msg) from None

    @property
    def num_samples(self) -> int:
        """Samples in the split."""
        return len(self._crc)

    def read(self, number: int) -> EncodedSample | BadSample:
        """One sample, checked; see `read_many`."""
        return self.read_many(np.array([number]))[0]

    def read_many(self, numbers: npt.NDArray[np.int64]) -> list[EncodedSample | BadSample]:
        """The encoded images of each sample, or why there are none."""
        # columns of plain ints: taking fields of single numpy rows costs as much as the read
        columns = zip(
            numbers.tolist(),
            self._shard_of[numbers].tolist(),
            self._offset[numbers].tolist(),
            self._size[numbers].tolist(),
            self._crc[numbers].tolist(),
            strict=True,
        )
        return [self._read(*column) for column in columns]

    def _read(
        self, number: int, shard: int, offsets: list[int], sizes: list[int], crcs: list[int]
    ) -> EncodedSample | BadSample:
        first = offsets[0]
        length = offsets[2] + sizes[2] - first
        try:
            span = memoryview(os.pread(self._files[shard], length, first))
        except OSError as error:
            return self.bad(number, 0, f"it cannot be read ({error.strerror})")
        if len(span) < length:
            return self.bad(number, 0, "the shard ends before it")
        parts = [
            span[at - first : at - first + size] for at, size in zip(offsets, sizes, strict=True)
        ]
        for part, (content, crc) in enumerate(zip(parts, crcs, strict=True)):
            if zlib.crc32(content) != crc:
                return self.bad(number, part, "its bytes do not match their CRC-32")
        return EncodedSample(*parts)

    def bad(self, number: int, part: int, reason: str) -> BadSample:
        """Name a bad sample by what the tar says of it.

        Args:
            number: Sample number.
            part: Which of composite, mask, depth is at fault.
            reason: What is wrong with it.
        """
        shard = self._shards[self._shard_of[number]].name
        return BadSample(
            number=number,
            shard=f"{shard}.tar",
            key=self.key(number),
            member=self._member_name(number, part) or PARTS[part],
            reason=reason,
        )

    def key(self, number: int) -> str:
        """Name of a sample, from the tar's header before it; empty if the tar no longer tells.

        Letters, digits, `-` and `_` only, so that it may name a file.
        """
        return self._member_name(number, 0).partition(".")[0]

    def _member_name(self, number: int, part: int) -> str:
        file, offset = self._files[self._shard_of[number]], int(self._offset[number, part])
        try:
            header = os.pread(file, BLOCK, offset - BLOCK)
        except OSError:
            return ""
        name = header[:100].partition(b"\0")[0].decode("ascii", errors="replace")
        return name if header[257:262] == b"ustar" and _SAFE_NAME.fullmatch(name) else ""

    def close(self) -> None:
        """Close the shards; no thread may be reading."""
        while self._files:
            os.close(self._files.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def _read_all_rows(set_path: Path, manifest: Manifest, shards: Sequence[ShardRecord]) -> Rows:
    tables: list[Rows] = [np.zeros(0, ROW)]
    faults: list[str] = []
    for shard in shards:
        try:
            tables.append(read_rows(set_path / f"{shard.name}.npy", shard.samples))
        except ShardError as error:
            faults.append(str(error).partition(";")[0])
        else:
            faults += _row_faults(tables[-1], shard, manifest)
    raise_faults(set_path, faults)
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
