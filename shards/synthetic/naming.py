"""How a synthetic set is laid out: the archive, the names of its members, and its tables.

A layout is one class with these methods; the one here is reference 004's.
"""

from shards.synthetic.pairing import Combination, Plan


class ModestMuseum:
    """One stored zip; relations in `file_map.txt`, pasted rectangles in `bbox.txt`.

    The variant in a name counts positions from 01; mirrored ones go on at 21 as in the original,
    or after the last plain one where there are more than its 20 positions.
    """

    archive = "modest_museum_dataset.zip"
    _root = "modest_museum_dataset"

    def __init__(self, plan: Plan) -> None:
        self._first_mirrored = max(20, plan.num_positions)
        self._file_map = bytearray()
        self._bbox = bytearray()

    def background(self, number: int) -> str:
        """Member name of a background JPEG."""
        return f"{self._root}/bg/{_background(number)}.jpeg"

    def foreground(self, number: int) -> tuple[str, str]:
        """Member names of a cut-out PNG and of its mask."""
        stem = _foreground(number)
        return f"{self._root}/fg/{stem}.png", f"{self._root}/fg_mask/{stem}_mask.png"

    def triplet(self, triplet: Combination) -> tuple[str, str, str]:
        """Member names of a composite, its mask and its depth map."""
        composite, mask, depth = self._stems(triplet)
        return (
            f"{self._root}/bg_fg/{composite}.jpeg",
            f"{self._root}/bg_fg_mask/{mask}.jpeg",
            f"{self._root}/bg_fg_depth_map/{depth}.jpeg",
        )

    def note(self, triplet: Combination, place: tuple[int, int, int, int]) -> None:
        """Add a triplet and its rectangle (left, top, width, height in pixels) to the tables."""
        stems = self._stems(triplet)
        related = "\t".join((_background(triplet.background), *stems))
        rectangle = "\t".join((f"{stems[0]}.jpeg", *map(str, place)))
        self._file_map += f"{related}\n".encode()
        self._bbox += f"{rectangle}\n".encode()

    def tables(self) -> dict[str, bytes]:
        """The text members about every triplet noted."""
        return {
            f"{self._root}/file_map.txt": bytes(self._file_map),
            f"{self._root}/bbox.txt": bytes(self._bbox),
        }

    def _stems(self, triplet: Combination) -> tuple[str, str, str]:
        variant = triplet.position + 1 + self._first_mirrored * triplet.mirrored
        pair = f"{_background(triplet.background)}_{_foreground(triplet.foreground)}"
        composite = f"{pair}_{variant:02d}"
        return composite, f"{composite}_mask", f"{composite}_depth_map"


def _background(number: int) -> str:
    return f"bg{number + 1:03d}"


def _foreground(number: int) -> str:
    return f"fg{number + 1:03d}"
