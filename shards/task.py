"""What a process is told of the shard it writes: columns of numbers and names.

A set of 400,000 samples as objects takes a gigabyte and 10 us a sample on its way to a process;
as columns a tenth of both. A sample becomes an object only where it is looked at by itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shards.archive import Archive
from shards.index import PARTS, UNKNOWN
from shards.members import Member, Rows
from shards.repair import DepthStorage
from shards.triplet import Members, Triplet, safe_key

Numbers = npt.NDArray[np.int64]


class Facts(NamedTuple):
    """What `KEY.json` and the index say of a sample beside its images."""

    key: str
    background: str | None
    background_number: int
    """Position in `backgrounds.tar`; -1 unknown."""
    foreground: str | None
    foreground_number: int
    """Position in the manifest's list; -1 unknown."""
    mirrored: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleTasks:
    """The samples of a shard in order; the three members of each are its composite, mask, depth."""

    keys: Sequence[str]
    backgrounds: Sequence[str | None]
    background_numbers: Numbers
    foregrounds: Sequence[str | None]
    foreground_numbers: Numbers
    mirrored: Sequence[bool | None]
    names: list[str]
    """Of the members, three for each sample."""
    rows: Rows
    """(samples, 3) of `shards.members.ROW`."""
    archives: Numbers
    """(samples, 3) numbers of the members' archives."""

    def __len__(self) -> int:
        return len(self.keys)

    def facts(self, samples: Numbers) -> Iterator[Facts]:
        """What is known of some samples."""
        chosen = samples.tolist()
        columns = (
            map(self.keys.__getitem__, chosen),
            map(self.backgrounds.__getitem__, chosen),
            self.background_numbers[samples].tolist(),
            map(self.foregrounds.__getitem__, chosen),
            self.foreground_numbers[samples].tolist(),
            map(self.mirrored.__getitem__, chosen),
        )
        return map(Facts._make, zip(*columns, strict=True))

    def member(self, sample: int, part: int) -> Member:
        """One member of one sample."""
        return Member(self.names[len(PARTS) * sample + part], *self.rows[sample, part].tolist())


def sample_tasks(
    triplets: Sequence[Triplet],
    members: Members,
    backgrounds: Mapping[str, int],
    foregrounds: Mapping[str, int],
) -> SampleTasks:
    """Everything a process needs to know of some triplets.

    Args:
        triplets: In the order of the shard.
        members: Of all sources.
        backgrounds: Id to position in `backgrounds.tar`.
        foregrounds: Id to position in the manifest.
    """
    columns = list(zip(*triplets, strict=True)) or [()] * len(Triplet._fields)
    keys, composites, masks, depths, scenes, objects, mirrored = columns
    numbers = np.array((composites, masks, depths), np.int64).T
    names, safe = members.table.names, {name: safe_key(name) for name in backgrounds}
    return SampleTasks(
        keys=keys,
        backgrounds=[safe.get(scene) for scene in scenes],
        background_numbers=_numbers(backgrounds, scenes),
        foregrounds=objects,
        foreground_numbers=_numbers(foregrounds, objects),
        mirrored=mirrored,
        names=[names[number] for number in numbers.ravel().tolist()],
        rows=members.table.rows[numbers],
        archives=members.archive_numbers(numbers),
    )


def _numbers(known: Mapping[str, int], ids: Sequence[str | None]) -> Numbers:
    return np.array([UNKNOWN if name is None else known.get(name, UNKNOWN) for name in ids])


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardTask:
    """Everything a process needs to write one shard."""

    out: Path
    work: Path
    """Where temporary files and the report lie: on the same file system as `out`."""
    name: str
    samples: SampleTasks
    archives: Sequence[Archive]
    image_size: tuple[int, int]
    depth: DepthStorage
    check: str
    counted: frozenset[int]
    """Positions of samples that enter the statistics whatever the check."""
    mean_depth: bool
