"""The layout of reference 004, on archives small enough to list by hand."""

import zipfile
from pathlib import Path

import pytest

from shards.archive import open_sources
from shards.error import ShardError
from shards.layouts import find_layout
from shards.layouts.matching import LayoutOptions
from shards.triplet import Match, Members

ROOT = "modest_museum_dataset"


def names(stem: str) -> list[str]:
    return [
        f"{ROOT}/bg_fg/{stem}.jpeg",
        f"{ROOT}/bg_fg_mask/{stem}_mask.jpeg",
        f"{ROOT}/bg_fg_depth_map/{stem}_depth_map.jpeg",
    ]


def line(background: str, stem: str) -> str:
    return f"{background}\t{stem}\t{stem}_mask\t{stem}_depth_map\n"


STEMS = ["bg001_fg001_01", "bg001_fg002_21", "bg002_fg001_20"]
WHOLE = {name: name.encode() for stem in STEMS for name in names(stem)} | {
    f"{ROOT}/bg/bg001.jpeg": b"one",
    f"{ROOT}/bg/bg002.jpeg": b"two",
}


def match(folder: Path, *archives: dict[str, bytes]) -> tuple[Members, Match]:
    for number, members in enumerate(archives):
        with zipfile.ZipFile(folder / f"{number}.zip", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    members = Members(open_sources([folder]))
    layout = find_layout("auto", members)
    assert layout.name == "relation-file"
    found = layout.match(members, LayoutOptions())
    fates = [
        *(n for t in found.triplets for n in (t.composite, t.mask, t.depth)),
        *found.backgrounds.values(), *found.auxiliary, *found.debris,
        *(n for rejection in found.rejected for n in rejection.members),
    ]  # fmt: skip
    assert sorted(fates) == list(range(len(members))), "every member has one fate"
    return members, found


def test_without_a_map_the_names_relate(tmp_path: Path) -> None:
    members, found = match(tmp_path, WHOLE)
    assert list(found.backgrounds) == ["bg001", "bg002"]
    triplets = {triplet.key: triplet for triplet in found.triplets}
    assert sorted(triplets) == STEMS
    for stem, triplet in triplets.items():
        parts = (triplet.composite, triplet.mask, triplet.depth)
        assert [members[part].name for part in parts] == names(stem)
        assert triplet.background == stem[:5]
        assert triplet.foreground == stem[6:11]
        assert triplet.mirrored == stem.endswith("21")


def test_the_map_overrules_the_names(tmp_path: Path) -> None:
    crossed = line("bg002", STEMS[0]) + line("bg001", STEMS[1])
    _, found = match(tmp_path, WHOLE | {f"{ROOT}/file_map.txt": crossed.encode()})
    assert {t.key: t.background for t in found.triplets} == {STEMS[0]: "bg002", STEMS[1]: "bg001"}
    assert {rejection.key for rejection in found.rejected} == {
        STEMS[2], f"{STEMS[2]}_mask", f"{STEMS[2]}_depth_map"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("missing", "reason"),
    [(1, "has no mask"), (2, "has no depth"), (0, "has no composite")],
)
def test_an_incomplete_triplet_is_rejected_by_name(
    tmp_path: Path, missing: int, reason: str
) -> None:
    text = "".join(line(stem[:5], stem) for stem in STEMS).encode()
    rest = WHOLE | {f"{ROOT}/file_map.txt": text}
    del rest[names(STEMS[1])[missing]]
    _, found = match(tmp_path, rest)
    assert len(found.triplets) == 2
    (rejection,) = found.rejected
    assert (rejection.key, rejection.reason) == (STEMS[1], reason)


def test_a_source_without_any_background_still_has_triplets(tmp_path: Path) -> None:
    rest = {name: content for name, content in WHOLE.items() if "/bg/" not in name}
    _, found = match(tmp_path, rest)
    assert not found.backgrounds
    assert {triplet.background for triplet in found.triplets} == {"bg001", "bg002"}


def test_litter_is_debris_and_known_extras_are_auxiliary(tmp_path: Path) -> None:
    litter = {"__MACOSX/._x": b"m", f"{ROOT}/bg_fg/.DS_Store": b"d", f"{ROOT}/": b"", "notes": b"n"}
    extras = {f"{ROOT}/fg/fg001.png": b"f", f"{ROOT}/bbox.txt": b"b"}
    _, found = match(tmp_path, WHOLE | litter | extras)
    assert len(found.triplets) == 3
    assert len(found.debris) == 4
    assert len(found.auxiliary) == 2
    assert not found.rejected


def test_the_same_background_in_two_zips_is_one(tmp_path: Path) -> None:
    second = {name.replace("fg001", "fg009"): b"x" for name in names(STEMS[0])}
    copy = {f"{ROOT}/bg/bg001.jpeg": WHOLE[f"{ROOT}/bg/bg001.jpeg"]}
    _, found = match(tmp_path, WHOLE, second | copy)
    assert len(found.triplets) == 4
    assert len(found.backgrounds) == 2
    assert len(found.debris) == 1


def test_two_different_images_of_one_name_spoil_it(tmp_path: Path) -> None:
    _, found = match(tmp_path, WHOLE, {names(STEMS[0])[0]: b"another image"})
    assert len(found.triplets) == 2
    assert "2 different members have this name" in {r.reason for r in found.rejected}


def test_a_name_that_climbs_out_is_rejected(tmp_path: Path) -> None:
    _, found = match(tmp_path, WHOLE | {f"../../{names(STEMS[0])[0]}": b"x"})
    assert [rejection.reason for rejection in found.rejected] == ["unsafe member name"]
    assert len(found.triplets) == 3


def test_a_broken_map_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"file_map\.txt, line 2 has 3 fields"):
        match(tmp_path, WHOLE | {f"{ROOT}/file_map.txt": line("bg001", "x").encode() + b"a\tb\tc"})


def test_a_zip_of_other_things_says_what_was_looked_for_and_seen(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"looked for .*relation-file: .*holiday\.jpg"):
        match(tmp_path, {"holiday.jpg": b"x"})


def test_more_positions_move_the_border_of_mirroring(tmp_path: Path) -> None:
    stems = [f"bg001_fg001_{variant:02d}" for variant in (30, 31, 60)]
    _, found = match(tmp_path, {name: name.encode() for stem in stems for name in names(stem)})
    assert [triplet.mirrored for triplet in found.triplets] == [False, True, True]


def test_an_empty_map_relates_nothing(tmp_path: Path) -> None:
    _, found = match(tmp_path, WHOLE | {f"{ROOT}/file_map.txt": b"\n"})
    assert found.triplets == []
    assert len(found.rejected) == 3 * len(STEMS)


def test_a_name_without_a_background_tells_no_foreground_wherever_it_stands(tmp_path: Path) -> None:
    """Beside names that do, from which the object and the variant are known already."""
    stems = [STEMS[0], "fg001_01"]
    source = {name: name.encode() for stem in stems for name in names(stem)}
    source |= {f"{ROOT}/bg/bg001.jpeg": b"one"}
    related = "".join(line("bg001", stem) for stem in stems)
    _, found = match(tmp_path, source | {f"{ROOT}/file_map.txt": related.encode()})
    assert {t.key: (t.foreground, t.mirrored) for t in found.triplets} == {
        STEMS[0]: ("fg001", False), "fg001_01": (None, None)
    }  # fmt: skip
