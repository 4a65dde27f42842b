"""Reference 004's layout: the MODEST museum."""

from collections.abc import Iterator

from shards.synthetic.layouts.layout import Images, Layout, Location, Rectangle, Zip
from shards.synthetic.pairing import Combination, Plan

ARCHIVE = "modest_museum_dataset.zip"
ROOT = "modest_museum_dataset"


class RelationFile(Layout):
    """One stored zip; relations in `file_map.txt`, pasted rectangles in `bbox.txt`.

    The variant in a name counts positions from 01; mirrored ones go on at 21 as in the original,
    or after the last plain one where there are more than its 20 positions.
    """

    fixed_zips = 1

    def __init__(self, plan: Plan, zips: int | None = None) -> None:
        assert zips in {None, self.fixed_zips}
        self.zips = (Zip(ARCHIVE, deflated=False),)
        self._first_mirrored = max(20, plan.num_positions)

    def background_id(self, number: int) -> str:
        """See `Layout`."""
        return f"bg{number + 1:03d}"

    def background(self, number: int) -> tuple[Location]:
        """See `Layout`."""
        return (_inside(f"bg/{self.background_id(number)}.jpeg"),)

    def foreground(self, number: int) -> tuple[Location, Location]:
        """See `Layout`."""
        stem = _foreground(number)
        return _inside(f"fg/{stem}.png"), _inside(f"fg_mask/{stem}_mask.png")

    def images(self, triplet: Combination) -> Images:
        """See `Layout`."""
        composite, mask, depth = self._stems(triplet)
        return Images(
            _inside(f"bg_fg/{composite}.jpeg"),
            _inside(f"bg_fg_mask/{mask}.jpeg"),
            _inside(f"bg_fg_depth_map/{depth}.jpeg"),
        )

    def rows(self, triplet: Combination, place: Rectangle) -> Iterator[tuple[Location, str]]:
        """See `Layout`."""
        stems = self._stems(triplet)
        related = (self.background_id(triplet.background), *stems)
        yield _inside("file_map.txt"), "\t".join(related)
        yield _inside("bbox.txt"), "\t".join((f"{stems[0]}.jpeg", *map(str, place)))

    def _stems(self, triplet: Combination) -> tuple[str, str, str]:
        variant = triplet.position + 1 + self._first_mirrored * triplet.mirrored
        pair = f"{self.background_id(triplet.background)}_{_foreground(triplet.foreground)}"
        composite = f"{pair}_{variant:02d}"
        return composite, f"{composite}_mask", f"{composite}_depth_map"


def _inside(name: str) -> Location:
    return Location(ARCHIVE, f"{ROOT}/{name}")


def _foreground(number: int) -> str:
    return f"fg{number + 1:03d}"
