"""What a process is told of the shard it writes: columns of numbers and names.

A set of 400,000 samples as objects takes a gigabyte and 10 us a sample on its way to a process;
as columns a tenth of both. A sample becomes an object when its turn comes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from shards.archive import Archive, Member
from shards.index import UNKNOWN
from shards.repair import DepthStorage
from shards.triplet import Members, Triplet, safe_key


class SampleTask(NamedTuple):
    """One sample to write: its three members and what `KEY.json` says of it."""

    key: str
    archives: tuple[int, int, int]
    members: tuple[Member, Member, Member]
    background: str | None
    background_number: int
    foreground: str | None
    foreground_number: int
    mirrored: bool | None


_Facts = tuple[str, str | None, int, str | None, int, bool | None]


@dataclass(slots=True)
class SampleTasks:
    """The samples of a shard in order; three members each."""

    names: list[str] = field(default_factory=list)
    """Of the members."""
    numbers: list[int] = field(default_factory=list)
    """Of each member its archive, then the fields of `Member` after the name."""
    facts: list[_Facts] = field(default_factory=list)
    """The fields of `SampleTask` without archives and members."""

    def __len__(self) -> int:
        return len(self.facts)

    def __iter__(self) -> Iterator[SampleTask]:
        fields = iter(self.numbers)
        names = iter(self.names)
        # one iterator seven times: each step takes one member's numbers
        numbers = zip(*[fields] * 7, strict=True)
        found = (
            (archive, Member(next(names), size, crc, offset, stored, method, bool(encrypted)))
            for archive, size, crc, offset, stored, method, encrypted in numbers
        )
        for facts, one, two, three in zip(self.facts, found, found, found, strict=True):
            archives, members = (one[0], two[0], three[0]), (one[1], two[1], three[1])
            yield SampleTask(facts[0], archives, members, *facts[1:])


def sample_tasks(
    triplets: Iterable[Triplet],
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
    stems: dict[str | None, tuple[str | None, int]] = {
        name: (safe_key(name), number) for name, number in backgrounds.items()
    }
    tasks = SampleTasks()
    names, numbers, facts = tasks.names, tasks.numbers, tasks.facts
    for triplet in triplets:
        for part in triplet[1:4]:
            archive, member = members.locate(part)
            names.append(member.name)
            numbers.append(archive)
            numbers.extend(member[1:])
        background, number = stems.get(triplet.background, (None, UNKNOWN))
        foreground = triplet.foreground
        known = UNKNOWN if foreground is None else foregrounds.get(foreground, UNKNOWN)
        facts.append((triplet.key, background, number, foreground, known, triplet.mirrored))
    return tasks


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
