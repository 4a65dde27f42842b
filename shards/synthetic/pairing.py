"""Which triplets a synthetic set holds: backgrounds x foregrounds x positions, plain and mirrored.

Any number of triplets is dealt evenly: what is left out of the last position is spread over the
backgrounds and the foregrounds.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Combination:
    """What a triplet is made from and where it is pasted; all numbers count from 0."""

    background: int
    foreground: int
    position: int
    """The plain and the mirrored triplet of a position share their place and scale."""

    mirrored: bool

    number: int
    """Its place in the order of the set."""

    @property
    def scene(self) -> str:
        """Its name whatever the layout: background, foreground (f: mirrored), position, from 1."""
        flip = "f" if self.mirrored else ""
        return f"{self.background + 1:03d}_{self.foreground + 1:03d}{flip}_{self.position + 1:02d}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The triplets of a set; which they are does not depend on their order."""

    count: int
    num_backgrounds: int
    num_foregrounds: int

    @property
    def num_positions(self) -> int:
        """Positions per pair, so that plain and mirrored ones reach `count`."""
        return math.ceil(self.count / (2 * self.num_backgrounds * self.num_foregrounds))

    def triplets(self, *, twins_adjacent: bool = False) -> Iterator[Combination]:
        """All of them: background by background, foreground by foreground, plain ones first.

        Args:
            twins_adjacent: Position by position, a plain one and then its mirrored one.
        """
        shape = (self.num_backgrounds, self.num_foregrounds, 2, self.num_positions)
        chosen = np.ones(shape, np.bool_)
        chosen[..., -1] = False
        wanted = self.count - int(chosen.sum())
        for visit in range(wanted):
            background, foreground, mirrored = self._visit(visit)
            chosen[background, foreground, mirrored, -1] = True
        inner = chosen.swapaxes(2, 3) if twins_adjacent else chosen
        for number, place in enumerate(np.flatnonzero(inner).tolist()):
            rest, last = divmod(place, inner.shape[3])
            pair, third = divmod(rest, inner.shape[2])
            background, foreground = divmod(pair, self.num_foregrounds)
            position, mirrored = (third, last) if twins_adjacent else (last, third)
            yield Combination(
                background=background,
                foreground=foreground,
                position=position,
                mirrored=bool(mirrored),
                number=number,
            )

    def _visit(self, number: int) -> tuple[int, int, int]:
        """Every (background, foreground, mirrored) once, each of the three taking even turns.

        The first is a mirrored one, so that the last variant's name always occurs and a reader
        can tell from it how many there are.
        """
        backgrounds, foregrounds = self.num_backgrounds, self.num_foregrounds
        again, pair = divmod(number, backgrounds * foregrounds)
        turn, background = divmod(pair, backgrounds)
        foreground = (pair + pair // math.lcm(backgrounds, foregrounds)) % foregrounds
        return background, foreground, (background + turn + again + 1) % 2
