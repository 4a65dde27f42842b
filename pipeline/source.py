"""Sample numbers in, encoded bytes out: one split of one or more sets, read by offset and checked.

`pread`, not a map: a mapped shard that is truncated under us kills the process, a short read is an
error we can handle. Each sample is one read that spans its three members, and each member must
match the CRC-32 of its index row, so a stale index or a flipped bit never becomes a training image.
"""

import os
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from pipeline.batch import Sets
from pipeline.look_ahead import LookAhead
from pipeline.opening import OpenedSet
from pipeline.remote.shard_fetcher import RemoteShard, ShardFetcher
from pipeline.sample_rows import Numbers, read_sample_rows
from pipeline.shard_files import ShardFiles
from pipeline.subset import Subset
from shards.index import PARTS
from shards.tar import BLOCK

_SAFE_NAMES = [
    re.compile(rf"[\w-]+\.{component}\.\w+", re.ASCII) for component in ("fgbg", "mask", "depth")
]


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
    """File name of the tar; with its folder or URL where several sets are streamed as one."""

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
        sets: What `open_set` returned for each.
        split: Which split's shards.
        fetcher: Fetches the shards of remote sets.

    Raises:
        LoaderError: An index is missing or does not fit its tar; a set's faults are named at once.
    """

    def __init__(
        self, sets: Sequence[OpenedSet], split: str, fetcher: ShardFetcher | None = None
    ) -> None:
        self.split = split
        self._rows = read_sample_rows(sets, split)
        self._sets = [opened for opened in sets for _ in opened.manifest.split_shards(split)]
        self._places = [
            place
            for place, opened in enumerate(sets, 1)
            for _ in opened.manifest.split_shards(split)
        ]
        self._tars = [
            f"{shard.name}.tar" for opened in sets for shard in opened.manifest.split_shards(split)
        ]
        self.image_sizes = _image_sizes(sets, split)
        """Heights and widths of the images; that of the most samples first."""
        self._files = ShardFiles(
            [_file(opened, tar) for opened, tar in zip(self._sets, self._tars, strict=True)],
            fetcher,
        )

    @property
    def num_samples(self) -> int:
        """Samples in the split; those of a repeated set count as often."""
        return len(self._rows.background)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images, or of most of them."""
        return self.image_sizes[0]

    @property
    def shard_lengths(self) -> tuple[int, ...]:
        """Samples of each shard, in the order of their numbers."""
        return self.subset().shard_lengths

    @property
    def set_lengths(self) -> tuple[int, ...]:
        """Samples of each set; those of a repeated one count as often."""
        return tuple(sum(lengths) for lengths in self._rows.shard_lengths)

    def subset(self, sets: Sets = ()) -> Subset:
        """The samples of some of the sets.

        Raises:
            LoaderError: There is no set at such a place.
        """
        return Subset.of(sets, self._rows.shard_lengths)

    @property
    def backgrounds(self) -> Numbers:
        """(num_samples,) position of each sample's background in the bank; -1 unknown."""
        return self._rows.background

    @property
    def foregrounds(self) -> Numbers:
        """(num_samples,) number of each sample's object; -1 unknown."""
        return self._rows.foreground

    @property
    def is_here(self) -> bool:
        """Nothing has to be fetched."""
        return self._files.are_here

    def look_ahead(
        self, upcoming: Iterable[Numbers], *, num_under_way: int, sets: Sets = ()
    ) -> LookAhead | None:
        """Fetches what a stream will read, ahead of it; None if all is here.

        Args:
            upcoming: The sample numbers of each batch.
            num_under_way: Batches that may be read at the same time.
            sets: Those whose samples they are.
        """
        shards = (np.unique(self._rows.shard[self._rows.of(n)]).tolist() for n in upcoming)
        among = [i for i, place in enumerate(self._places) if not sets or place in sets]
        return self._files.look_ahead(shards, among=among, num_under_way=num_under_way)

    def read(self, number: int) -> EncodedSample | BadSample:
        """One sample, checked; see `read_many`."""
        return self.read_many(np.array([number]))[0]

    def read_many(self, numbers: Numbers) -> list[EncodedSample | BadSample]:
        """The encoded images of each sample, or why there are none.

        Raises:
            LoaderError: A fetched shard cannot be kept on this machine.
        """
        table = self._rows
        rows = table.of(numbers)
        shards = table.shard[rows].tolist()
        with self._files.held(shards) as files:
            # columns of plain ints: taking fields of single numpy rows costs as much as the read
            columns = zip(
                numbers.tolist(),
                [files[shard] for shard in shards],
                table.offset[rows].tolist(),
                table.size[rows].tolist(),
                table.crc[rows].tolist(),
                strict=True,
            )
            return [self._read(*column) for column in columns]

    def _read(
        self, number: int, file: int, offsets: list[int], sizes: list[int], crcs: list[int]
    ) -> EncodedSample | BadSample:
        first = offsets[0]
        length = offsets[2] + sizes[2] - first
        try:
            span = memoryview(os.pread(file, length, first))
        except OSError as error:
            return self.bad(number, 0, self._unread(number, error))
        if len(span) < length:
            return self.bad(number, 0, "the shard ends before it")
        parts = [
            span[at - first : at - first + size] for at, size in zip(offsets, sizes, strict=True)
        ]
        for part, (content, crc) in enumerate(zip(parts, crcs, strict=True)):
            if zlib.crc32(content) != crc:
                return self.bad(number, part, "its bytes do not match their CRC-32")
        return EncodedSample(*parts)

    def _unread(self, number: int, error: OSError) -> str:
        failure = self._files.failure(self._place(number)[0])
        if failure:
            return f"its shard cannot be fetched ({failure})"
        return f"it cannot be read ({error.strerror})"

    def bad(self, number: int, part: int, reason: str) -> BadSample:
        """Name a bad sample by what the tar says of it.

        Args:
            number: Sample number.
            part: Which of composite, mask, depth is at fault.
            reason: What is wrong with it.
        """
        shard, _ = self._place(number)
        opened, tar, name = self._sets[shard], self._tars[shard], self._member_name(number, part)
        return BadSample(
            number=number,
            shard=f"{opened.location}/{tar}" if opened.label else tar,
            key=self._member_name(number, 0).partition(".")[0],
            member=name or PARTS[part],
            reason=reason,
        )

    def key(self, number: int) -> str:
        """Name of a sample, from the tar's header before it; empty if the tar no longer tells.

        Letters, digits, `-` and `_` only, so that it may name a file; among several sets it begins
        with the set's name.
        """
        key = self._member_name(number, 0).partition(".")[0]
        label = self._sets[self._place(number)[0]].label
        return f"{label}-{key}" if label and key else key

    def _place(self, number: int) -> tuple[int, int]:
        """Shard and row of a sample."""
        row = int(self._rows.of(np.array([number]))[0])
        return int(self._rows.shard[row]), row

    def _member_name(self, number: int, part: int) -> str:
        shard, row = self._place(number)
        offset = int(self._rows.offset[row, part])
        try:
            with self._files.held([shard]) as files:
                header = os.pread(files[shard], BLOCK, offset - BLOCK)
            # its checksum is compared, or a flipped letter would name another sample
            name = tarfile.TarInfo.frombuf(header, "ascii", "replace").name
        except (OSError, tarfile.HeaderError):
            return ""
        return name if _SAFE_NAMES[part].fullmatch(name) else ""

    def close(self) -> None:
        """Close the shards; no thread may be reading."""
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def _file(opened: OpenedSet, tar: str) -> Path | RemoteShard:
    path = opened.folder / tar
    if opened.remote is None:
        return path
    return RemoteShard(folder=opened.remote, path=path, record=opened.manifest.files[tar])


def _image_sizes(sets: Sequence[OpenedSet], split: str) -> tuple[tuple[int, int], ...]:
    samples: Counter[tuple[int, int]] = Counter()
    for opened in sets:
        samples[opened.manifest.image_size] += opened.manifest.num_samples(split) * opened.repeats
    return tuple(size for size, _ in samples.most_common())
