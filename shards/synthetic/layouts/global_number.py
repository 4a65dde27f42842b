"""Reference 000's layout: composites numbered through all zips, backgrounds and labels outside."""

import math
from collections.abc import Iterator

from shards.error import ShardError
from shards.synthetic.encoding import Encodings, grey_jpeg, stretched_jpeg
from shards.synthetic.layouts.layout import (
    Images,
    Layout,
    Location,
    Rectangle,
    Zip,
    num_zips,
    share_of,
)
from shards.synthetic.pairing import Combination, Plan


class GlobalNumber(Layout):
    """Every zip has all backgrounds and a share of the objects and positions.

    Inside a zip every background has an equal run of numbers, odd ones plain, the next even one
    mirrored. The number of a triplet that the plan leaves out stays unused.
    """

    encodings = Encodings(mask=grey_jpeg, depth=stretched_jpeg)
    twins_adjacent = True
    beside = ("Background", "Foreground", "Mask", "labels.txt")

    def __init__(self, plan: Plan, zips: int | None = None) -> None:
        number = num_zips(zips, plan.num_foregrounds)
        if number > plan.num_foregrounds:
            msg = (
                f"zips is {number}; layout global-number deals {plan.num_foregrounds} foregrounds "
                "to the zips, so choose no more than that"
            )
            raise ShardError(msg)
        self.zips = tuple(Zip(f"data_part{part + 1}.zip") for part in range(number))
        self._plan = plan
        self._pairs = plan.num_foregrounds * plan.num_positions
        self._run = 2 * math.ceil(self._pairs / number)

    def background_id(self, number: int) -> str:
        """See `Layout`."""
        return f"bg{number + 1}"

    def background(self, number: int) -> tuple[Location]:
        """See `Layout`."""
        return (Location(None, f"Background/{self.background_id(number)}.jpg"),)

    def foreground(self, number: int) -> tuple[Location, Location]:
        """See `Layout`."""
        return (
            Location(None, f"Foreground/fg{number + 1}.png"),
            Location(None, f"Mask/mask{number + 1}.jpg"),
        )

    def images(self, triplet: Combination) -> Images:
        """See `Layout`."""
        part, number = self._numbered(triplet)
        archive, root = self.zips[part].name, f"data_{part + 1}"
        return Images(
            Location(archive, f"{root}/Fg-Bg/fg-bg{number}.jpg"),
            Location(archive, f"{root}/Fg-Bg-Mask/fg-bg-mask{number}.jpg"),
            Location(archive, f"{root}/Depth/depth{number}.jpg"),
        )

    def rows(self, triplet: Combination, _place: Rectangle) -> Iterator[tuple[Location, str]]:
        """See `Layout`."""
        (background,) = self.background(triplet.background)
        foreground, _ = self.foreground(triplet.foreground)
        related = (background, foreground, *self.images(triplet))
        yield Location(None, "labels.txt"), "\t".join(location.name for location in related)

    def _numbered(self, triplet: Combination) -> tuple[int, int]:
        """The zip, from 0, and the number, from 1."""
        pair = triplet.foreground * self._plan.num_positions + triplet.position
        part = share_of(pair, self._pairs, len(self.zips))
        in_run = 2 * (pair - self._pairs * part // len(self.zips)) + triplet.mirrored
        runs_before = part * self._plan.num_backgrounds + triplet.background
        return part, runs_before * self._run + in_run + 1
