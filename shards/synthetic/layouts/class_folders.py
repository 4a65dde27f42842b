"""Reference 001's layout: a folder per background, and depth in files that say "mask"."""

from shards.synthetic.encoding import Encodings, grey_jpeg, grey_png
from shards.synthetic.layouts.layout import Images, Layout, Location, Zip
from shards.synthetic.pairing import Combination, Plan


class ClassFolders(Layout):
    """A zip per kind of image; depth as PNG, stored; everything counts from 0.

    The last number counts through the whole set, even ones mirrored; that of a triplet that the
    plan leaves out stays unused.
    """

    encodings = Encodings(mask=grey_jpeg, depth=grey_png)
    twins_adjacent = True
    fixed_zips = 4

    def __init__(self, plan: Plan, zips: int | None = None) -> None:
        assert zips in {None, self.fixed_zips}
        self.zips = (
            Zip("bgformat.zip"),
            Zip("fg_bg.zip"),
            Zip("fg_bg_mask.zip"),
            Zip("dd_output_fg_bg.zip", deflated=False),
        )
        self._plan = plan

    def background_id(self, number: int) -> str:
        """See `Layout`."""
        return f"{number:03d}"

    def background(self, number: int) -> tuple[Location]:
        """See `Layout`."""
        return (Location("bgformat.zip", f"bgformat/bg/{self.background_id(number)}.jpg"),)

    def images(self, triplet: Combination) -> Images:
        """See `Layout`."""
        folder = f"bg_{self.background_id(triplet.background)}"
        pair, number = f"fg_{triplet.foreground:03d}_{folder}", f"{self._number(triplet):06d}"
        return Images(
            Location("fg_bg.zip", f"fg_bg/{folder}/{pair}_{number}.jpg"),
            Location("fg_bg_mask.zip", f"fg_bg_mask/{folder}/{pair}_mask_{number}.jpg"),
            Location("dd_output_fg_bg.zip", f"mask_fg_bg/{folder}/mask_{pair}_{number}.png"),
        )

    def _number(self, triplet: Combination) -> int:
        pair = triplet.background * self._plan.num_foregrounds + triplet.foreground
        plain = pair * self._plan.num_positions + triplet.position
        return 2 * plain + (not triplet.mirrored)
