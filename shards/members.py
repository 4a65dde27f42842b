"""What an archive lists, as columns: a name and a row of numbers for each member.

A set has 1.2 million members. As tuples they take 390 bytes each and every question about them a
loop; as columns 130, and numpy answers.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self, overload

import numpy as np
import numpy.typing as npt


class Member(NamedTuple):
    """Where one member lies. `crc` and `offset` are -1 for a file in a folder."""

    name: str
    size: int
    """Bytes of content."""
    crc: int
    offset: int
    """Of the local header in the zip."""
    stored_size: int
    """Bytes in the zip."""
    method: int
    encrypted: bool


ROW = np.dtype(
    [
        ("size", "<u8"),  # a forged one may need all 64 bits
        ("crc", "<i8"),
        ("offset", "<i8"),
        ("stored_size", "<u8"),
        ("method", "<u2"),
        ("encrypted", "?"),
    ]
)
"""The numbers of `Member`, in its order."""

Rows = npt.NDArray[np.void]


class MemberTable(Sequence[Member]):
    """Members in the order of their archive.

    Args:
        names: Of the members.
        rows: (len(names),) of `ROW`.
    """

    def __init__(self, names: list[str], rows: Rows) -> None:
        self.names, self.rows = names, rows

    @classmethod
    def of(cls, members: Iterable[Member]) -> Self:
        """The columns of single members."""
        listed = list(members)
        rows = np.array([member[1:] for member in listed], ROW)
        return cls([member.name for member in listed], rows)

    @classmethod
    def joined(cls, tables: Sequence["MemberTable"]) -> Self:
        """One table after the other."""
        if len(tables) == 1:
            return cls(tables[0].names, tables[0].rows)
        names = [name for table in tables for name in table.names]
        return cls(names, np.concatenate([np.zeros(0, ROW), *(table.rows for table in tables)]))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Member]:
        for name, row in zip(self.names, self.rows.tolist(), strict=True):
            yield Member(name, *row)

    @overload
    def __getitem__(self, position: int) -> Member: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Member]: ...
    def __getitem__(self, position: int | slice) -> Member | Sequence[Member]:
        if isinstance(position, slice):
            return MemberTable(self.names[position], self.rows[position])
        return Member(self.names[position], *self.rows[position].tolist())
