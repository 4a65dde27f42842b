"""Reference 003's layout: numbered composites with flipped twins, depth as figures of that name."""

from shards.synthetic.encoding import Encodings, grey_jpeg
from shards.synthetic.layouts.layout import Images, Layout, Location, Zip, num_zips, share_of
from shards.synthetic.pairing import Combination, Plan
from shards.synthetic.plasma import plasma_figure_jpeg


class NumberedFlip(Layout):
    """Equal zips in a row, with entries for their folders; backgrounds as PNG outside.

    The number in a name runs over objects and positions of a background.
    """

    encodings = Encodings(mask=grey_jpeg, depth=plasma_figure_jpeg)
    twins_adjacent = True
    beside = ("bg",)

    def __init__(self, plan: Plan, zips: int | None = None) -> None:
        parts = range(1, num_zips(zips, plan.count) + 1)
        self.zips = tuple(Zip(f"output_{part}.zip", folders=_folders(part)) for part in parts)
        self._plan = plan

    def background_id(self, number: int) -> str:
        """See `Layout`."""
        return f"{number + 1}_bg"

    def background(self, number: int) -> tuple[Location]:
        """See `Layout`."""
        return (Location(None, f"bg/{self.background_id(number)}.png"),)

    def images(self, triplet: Combination) -> Images:
        """See `Layout`."""
        number = triplet.foreground * self._plan.num_positions + triplet.position + 1
        background = self.background_id(triplet.background)
        stem = f"{background}_{number}_fg{'Flip' if triplet.mirrored else ''}"
        archive = self.zips[share_of(triplet.number, self._plan.count, len(self.zips))]
        composites, masks, depths = archive.folders
        return Images(
            Location(archive.name, f"{composites}{stem}.jpg"),
            Location(archive.name, f"{masks}{stem}_mask.jpg"),
            Location(archive.name, f"{depths}{stem}.jpg"),
        )


def _folders(part: int) -> tuple[str, str, str]:
    return f"bg_fg_{part}/", f"bg_fg_mask_{part}/", "depthMap/"
