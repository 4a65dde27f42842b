"""Reference 002's layout: equal zips, a folder name with a space, a number that means nothing."""

from shards.error import ShardError
from shards.synthetic.encoding import Encodings, grey_as_rgb_jpeg, grey_jpeg
from shards.synthetic.layouts.layout import Images, Layout, Location, Zip, num_zips, share_of
from shards.synthetic.pairing import Combination, Plan

MOST_FOREGROUNDS = 100
"""Larger numbers are mirrored objects."""

_BATCH = 400
_STRIDE = 163  # coprime to the batch: every place in its listing occurs once


class TenKSets(Layout):
    """Equal zips in a row, each with all backgrounds; masks have three channels.

    The last number of a depth map is its place in the listing of a batch of 400.
    """

    encodings = Encodings(mask=grey_as_rgb_jpeg, depth=grey_jpeg)

    def __init__(self, plan: Plan, zips: int | None = None) -> None:
        if plan.num_foregrounds > MOST_FOREGROUNDS:
            msg = (
                f"there are {plan.num_foregrounds} foregrounds, and layout tenk-sets has names for "
                f"{MOST_FOREGROUNDS}; ask for fewer with --num-foregrounds"
            )
            raise ShardError(msg)
        number = num_zips(zips, plan.count)
        self._roots = tuple(f"data_TenK{100 + part}" for part in range(number))
        self.zips = tuple(Zip(f"{root}.zip") for root in self._roots)
        self._count = plan.count

    def background_id(self, number: int) -> str:
        """See `Layout`."""
        return f"bg{number + 1:03d}"

    def background(self, number: int) -> tuple[Location, ...]:
        """See `Layout`."""
        name = f"{self.background_id(number)}.jpg"
        return tuple(Location(f"{root}.zip", f"{root}/BG/{name}") for root in self._roots)

    def images(self, triplet: Combination) -> Images:
        """See `Layout`."""
        foreground = triplet.foreground + 1 + MOST_FOREGROUNDS * triplet.mirrored
        stem = f"bg_{triplet.background + 1:03d}_fg_{foreground:03d}_{triplet.position + 1:03d}"
        place = triplet.number * _STRIDE % _BATCH + 1
        root = self._roots[share_of(triplet.number, self._count, len(self._roots))]
        archive = f"{root}.zip"
        return Images(
            Location(archive, f"{root}/BG_FG/{stem}.jpeg"),
            Location(archive, f"{root}/BG_FG Masks/{stem}.jpeg"),
            Location(archive, f"{root}/DepthMaps/{stem}_depth_map_{place:03d}.jpeg"),
        )
