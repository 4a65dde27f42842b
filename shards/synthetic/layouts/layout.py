"""What a layout decides: zips, names, tables, and what masks and depth maps are stored as.

It never sees a pixel and keeps no state: a name follows from the plan and the triplet alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

from shards.synthetic.encoding import Encodings, grey_jpeg
from shards.synthetic.pairing import Combination, Plan

Rectangle = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""


class Location(NamedTuple):
    """Where a file goes."""

    archive: str | None
    """A zip's name; None: beside the zips."""
    name: str


class Zip(NamedTuple):
    """One zip of a set."""

    name: str
    deflated: bool = True
    folders: tuple[str, ...] = ()
    """Entries for folders, which most zips do without."""


class Images(NamedTuple):
    """Where a triplet's three images go."""

    composite: Location
    mask: Location
    depth: Location


class Layout(ABC):
    """One way to arrange a set; a reference system's, with its quirks."""

    encodings: ClassVar[Encodings] = Encodings(mask=grey_jpeg, depth=grey_jpeg)
    twins_adjacent: ClassVar[bool] = False
    """Whether a mirrored triplet comes right after its plain one, or after all plain ones."""
    fixed_zips: ClassVar[int | None] = None
    """The number of zips, where it cannot be chosen."""
    beside: ClassVar[tuple[str, ...]] = ()
    """Files and folders of the set outside the zips."""

    zips: Sequence[Zip]

    @abstractmethod
    def __init__(self, plan: Plan, zips: int | None) -> None:
        """Lay out a plan in so many zips; None: as many as the reference would for a small set.

        Raises:
            ShardError: The plan does not fit the layout's names.
        """

    @abstractmethod
    def background_id(self, number: int) -> str:
        """How triplets refer to a background; numbers count from 0."""

    @abstractmethod
    def background(self, number: int) -> Iterable[Location]:
        """Where a background goes, once or several times."""

    def foreground(self, _number: int) -> tuple[Location, Location] | None:
        """Where a cut-out and its mask go; None: left out."""
        return None

    @abstractmethod
    def images(self, triplet: Combination) -> Images:
        """Where a triplet goes."""

    def rows(self, _triplet: Combination, _place: Rectangle) -> Iterable[tuple[Location, str]]:
        """What the layout's own tables say of a triplet: the table and a line."""
        return ()


def num_zips(asked: int | None, highest: int) -> int:
    """Two unless asked for another number: the fewest with which a set is divided at all."""
    return min(2, highest) if asked is None else asked


def share_of(number: int, count: int, shares: int) -> int:
    """Into which of the shares the number falls when 0 to count - 1 are dealt out in a row.

    Share s begins at `count * s // shares`.
    """
    return ((number + 1) * shares - 1) // count
