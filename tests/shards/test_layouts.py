"""The layouts of references 000 to 003 and a user's own, on names small enough to list by hand."""

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from shards.archive import open_sources
from shards.error import ShardError
from shards.layouts import LAYOUTS, find_layout
from shards.layouts.matching import LayoutOptions
from shards.triplet import Match, Members

Paired = dict[str, tuple[str, str, str, str | None, str | None, bool | None]]


def read(
    folder: Path,
    archives: dict[str, Iterable[str]],
    layout: str = "auto",
    contents: dict[str, str] | None = None,
    **options: object,
) -> tuple[str, Members, Match]:
    """Names to a match; each member's content is its own name unless given."""
    for archive, names in archives.items():
        if archive.endswith(".zip"):
            with zipfile.ZipFile(folder / archive, "w") as made:
                for name in names:
                    made.writestr(name, (contents or {}).get(name, name))
            continue
        for name in names:
            path = folder / archive / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text((contents or {}).get(name, name))
    members = Members(open_sources([folder]))
    found = find_layout(layout, members)
    match = found.match(members, LayoutOptions(**options))  # type: ignore[arg-type]
    fates = [
        *(n for t in match.triplets for n in (t.composite, t.mask, t.depth)),
        *match.backgrounds.values(), *match.auxiliary, *match.debris,
        *(n for rejection in match.rejected for n in rejection.members),
    ]  # fmt: skip
    assert sorted(fates) == list(range(len(members))), "every member has one fate"
    return found.name, members, match


def paired(members: Members, match: Match) -> Paired:
    return {
        triplet.key: (
            *(members[n].name for n in (triplet.composite, triplet.mask, triplet.depth)),
            triplet.background, triplet.foreground, triplet.mirrored,
        )
        for triplet in match.triplets
    }  # type: ignore[misc]  # fmt: skip


def numbered(root: str, number: int) -> list[str]:
    return [f"{root}/Fg-Bg/fg-bg{number}.jpg", f"{root}/Fg-Bg-Mask/fg-bg-mask{number}.jpg",
            f"{root}/Depth/depth{number}.jpg"]  # fmt: skip


def test_global_number_without_labels_counts_inside_each_set(tmp_path: Path) -> None:
    """The original's rule for the global number is right only in the first set."""
    archives: dict[str, Iterable[str]] = {
        f"data_part{s}.zip": [
            name
            for number in range(8 * (s - 1) + 1, 8 * s + 1)
            for name in numbered(f"data_{s}", number)
        ]
        for s in (1, 2)
    }
    archives["Background"] = ["bg2.jpg", "bg10.jpg"]
    name, members, match = read(tmp_path, archives)
    assert name == "global-number"
    found = paired(members, match)
    assert list(match.backgrounds) == ["bg2", "bg10"], "in natural order"
    for number in range(1, 17):
        composite, mask, depth, background, foreground, mirrored = found[f"fg-bg{number}"]
        assert [composite, mask, depth] == numbered(f"data_{(number - 1) // 8 + 1}", number)
        assert background == ("bg2" if (number - 1) % 8 < 4 else "bg10")
        assert foreground is None
        assert mirrored == (number % 2 == 0)


@pytest.mark.parametrize("lost", ["whole triplets", "composites"])
def test_global_number_by_position_survives_a_gap_at_the_start(tmp_path: Path, lost: str) -> None:
    second = [name for number in range(9, 17) for name in numbered("data_2", number)]
    gone = numbered("data_2", 9) if lost == "whole triplets" else [numbered("data_2", 9)[0]]
    archives: dict[str, Iterable[str]] = {
        "1.zip": [name for number in range(1, 9) for name in numbered("data_1", number)],
        "2.zip": [name for name in second if name not in gone],
        "Background": ["bg1.jpg", "bg2.jpg"],
    }
    _, members, match = read(tmp_path, archives)
    found = paired(members, match)
    expected = ["bg1"] * 3 + ["bg2"] * 4
    assert [found[f"fg-bg{number}"][3] for number in range(10, 17)] == expected


def test_global_number_sets_may_differ_in_length(tmp_path: Path) -> None:
    archives: dict[str, Iterable[str]] = {
        "1.zip": [name for number in range(1, 9) for name in numbered("data_1", number)],
        "2.zip": [name for number in range(9, 13) for name in numbered("data_2", number)],
        "Background": ["bg1.jpg", "bg2.jpg"],
    }
    _, members, match = read(tmp_path, archives)
    found = paired(members, match)
    assert [found[f"fg-bg{n}"][3] for n in range(1, 13)] == [
        *["bg1"] * 4, *["bg2"] * 4, *["bg1"] * 2, *["bg2"] * 2
    ]  # fmt: skip


def test_global_numbers_labels_overrule_positions(tmp_path: Path) -> None:
    line = "Background/bg2.jpg\tForeground/fg21.png\t" + "\t".join(numbered("data_1", 1)) + "\n"
    archives = {"data_part1.zip": numbered("data_1", 1), "Background": ["bg1.jpg", "bg2.jpg"],
                "Foreground": ["fg21.png"], ".": ["labels.txt"]}  # fmt: skip
    _, members, match = read(tmp_path, archives, contents={"labels.txt": line})
    assert paired(members, match)["fg-bg1"][3:] == ("bg2", "fg21", False)
    assert len(match.auxiliary) == 2


CLASS = {
    "fg_bg.zip": ["fg_bg/bg_084/fg_019_bg_084_336780.jpg", "fg_bg/bg_099/fg_079_bg_099_399195.jpg",
                  "fg_bg/bg_084/fg_019_bg_084_336780_disp.jpeg"],
    "fg_bg_mask.zip": ["fg_bg_mask/bg_084/fg_019_bg_084_mask_336780.jpg",
                       "fg_bg_mask/bg_099/fg_079_bg_099_mask_399195.jpg"],
    "dd.zip": ["mask_fg_bg/bg_084/mask_fg_019_bg_084_336780.png",
               "mask_fg_bg/bg_099/mask_fg_079_bg_099_399195.png"],
    "bgformat.zip": ["bgformat/bg/084.jpg", "bgformat/bg/099.jpg"],
    "fgformat.zip": ["fgformat/fg/019.png", "fgformat/mask/019.jpg"],
}  # fmt: skip


def test_class_folders_takes_the_depth_that_says_mask(tmp_path: Path) -> None:
    name, members, match = read(tmp_path, CLASS)
    assert name == "class-folders"
    assert paired(members, match) == {
        "fg_019_bg_084_336780": (
            CLASS["fg_bg.zip"][0], CLASS["fg_bg_mask.zip"][0], CLASS["dd.zip"][0],
            "084", "fg_019", True,
        ),
        "fg_079_bg_099_399195": (
            CLASS["fg_bg.zip"][1], CLASS["fg_bg_mask.zip"][1], CLASS["dd.zip"][1],
            "099", "fg_079", False,
        ),
    }  # fmt: skip
    assert len(match.auxiliary) == 3


def test_class_folders_takes_the_disparity_if_asked(tmp_path: Path) -> None:
    _, members, match = read(tmp_path, CLASS, disparity=True)
    assert paired(members, match)["fg_019_bg_084_336780"][2].endswith("_disp.jpeg")
    (rejection,) = match.rejected
    assert rejection.reason == "has no depth"


def test_tenk_sets_ignores_the_depths_number_and_the_repeated_backgrounds(tmp_path: Path) -> None:
    stems = ["bg_001_fg_002_003", "bg_001_fg_102_003"]
    archives = {
        f"data_TenK10{n}.zip": [
            f"data_TenK10{n}/BG_FG/{stem}.jpeg",
            f"data_TenK10{n}/BG_FG Masks/{stem}.jpeg",
            f"data_TenK10{n}/DepthMaps/{stem}_depth_map_{400 - n}.jpeg",
            f"data_TenK10{n}/BG/bg001.jpg",
        ]
        for n, stem in enumerate(stems)
    }
    same = {names[3]: "the same image" for names in archives.values()}
    name, members, match = read(tmp_path, archives, contents=same)
    assert name == "tenk-sets"
    found = paired(members, match)
    assert found[stems[0]][3:] == ("bg001", "fg002", False)
    assert found[stems[1]][3:] == ("bg001", "fg002", True)
    assert found[stems[1]][2] == archives["data_TenK101.zip"][2]
    assert len(match.debris) == 1


def flip_names(stem: str) -> list[str]:
    return [f"bg_fg_1/{stem}.jpg", f"bg_fg_mask_1/{stem}_mask.jpg", f"depthMap/{stem}.jpg"]


def test_numbered_flip_is_matched_by_key_and_not_by_sorted_position(tmp_path: Path) -> None:
    stems = [f"2_bg_{number}_fg{flip}" for number in (1, 5, 6, 20) for flip in ("", "Flip")]
    names = ["bg_fg_1/", *(name for stem in stems for name in flip_names(stem))]
    name, members, match = read(tmp_path, {"output_1.zip": names, "bg": ["2_bg.png"]})
    assert name == "numbered-flip"
    found = paired(members, match)
    for stem in stems:
        assert list(found[stem][:3]) == flip_names(stem)
        assert found[stem][3:] == ("2_bg", None, stem.endswith("Flip"))
    assert len(match.debris) == 1, "the folder's own entry"
    known = find_layout("numbered-flip", members).match(
        members, LayoutOptions(positions_per_foreground=5)
    )
    assert {paired(members, known)[f"2_bg_{n}_fg"][4] for n in (1, 5)} == {"fg001"}
    assert [paired(members, known)[f"2_bg_{n}_fg"][4] for n in (6, 20)] == ["fg002", "fg004"]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "relation-file"])
def test_an_incomplete_triplet_is_rejected_by_name(tmp_path: Path, layout: str) -> None:
    names = {
        "global-number": numbered("data_1", 1) + numbered("data_1", 2),
        "class-folders": [CLASS[name][n] for n in (0, 1)
                          for name in ("fg_bg.zip", "fg_bg_mask.zip", "dd.zip")],
        "tenk-sets": [f"TenK/{kind}/bg_001_fg_001_00{n}{end}.jpeg" for n in (1, 2) for kind, end in
                      (("BG_FG", ""), ("BG_FG Masks", ""), ("DepthMaps", "_depth_map_7"))],
        "numbered-flip": flip_names("2_bg_1_fg") + flip_names("2_bg_2_fg"),
    }[layout]  # fmt: skip
    name, _, match = read(tmp_path, {"a.zip": names[:-1]})
    assert name == layout
    assert len(match.triplets) == 1
    (rejection,) = match.rejected
    assert rejection.reason == "has no depth"
    assert rejection.key in names[3].replace("/", " ")


DOCUMENT = (Path(__file__).parents[2] / "docs" / "layouts.md").read_text(encoding="utf-8")


def test_the_documented_layout_file_reads_the_documented_names(tmp_path: Path) -> None:
    names = re.findall(r"office/\S+", re.findall(r"```\n(.*?)```", DOCUMENT, re.DOTALL)[0])
    (toml,) = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    path = tmp_path / "my.toml"
    path.write_text(toml)
    source = tmp_path / "source"
    source.mkdir()
    name, members, match = read(source, {"a.zip": [*names, "office/notes/a.txt"]}, str(path))
    assert name == "office"
    stem = "room01_chair07_0003"
    assert paired(members, match) == {
        stem: (f"office/photos/{stem}.jpg", f"office/alpha/{stem}.png", f"office/z/{stem}_z.png",
               "room01", "chair07", None)
    }  # fmt: skip
    assert list(match.backgrounds) == ["room01"]
    assert len(match.auxiliary) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name = ", "cannot be read"),
        ("composit = 'x'", "has no key 'composit'; the nearest known one is 'composite'"),
        ("composite = '(?P<key>a)'", "has no expression for mask, depth"),
        ("composite = '(a'", r"the expression for composite is wrong"),
        ("composite = 'a'", r"needs a group \(\?P<key>"),
        (
            "composite='(?P<key>a)'\nmask='(?P<key>b)'\ndepth='(?P<key>c)'\n"
            "[depth_map]\nencoding='jet'",
            "depth encoding 'jet' must be one of: grey, plasma, magma",
        ),
    ],
)
def test_a_wrong_layout_file_is_named_with_its_fault(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(ShardError, match=found) as error:
        find_layout(str(path), Members([]))
    assert "my.toml" in str(error.value)


def test_a_source_that_fits_two_layouts_is_not_guessed(tmp_path: Path) -> None:
    names = [*numbered("data_1", 1), *flip_names("2_bg_1_fg")]
    with pytest.raises(ShardError, match=r"fit several layouts \(global-number, numbered-flip\)"):
        read(tmp_path, {"a.zip": names})


@pytest.mark.parametrize("zipped", [True, False])
def test_copies_are_compared_by_content_wherever_they_lie(tmp_path: Path, zipped: bool) -> None:
    """A loose file has no CRC in a directory: its bytes are read."""
    stems = ["bg_001_fg_002_003", "bg_001_fg_003_001", "bg_001_fg_004_001"]
    archives = {
        (f"{n}.zip" if zipped or n == 0 else f"unpacked{n}"): [
            f"T{n}/BG_FG/{stem}.jpeg",
            f"T{n}/BG_FG Masks/{stem}.jpeg",
            f"T{n}/DepthMaps/{stem}_depth_map_1.jpeg",
            f"T{n}/BG/bg001.jpg",
        ]
        for n, stem in enumerate(stems)
    }
    same = {names[3]: "one image" for names in archives.values()}
    _, _, match = read(tmp_path, archives, contents=same)
    assert (len(match.backgrounds), len(match.debris), match.rejected) == (1, 2, [])
    other = tmp_path / "other"
    other.mkdir()
    differing = same | {"T2/BG/bg001.jpg": "two image"}
    _, _, match = read(other, archives, contents=differing)
    assert len(match.backgrounds) == 0
    assert [len(rejection.members) for rejection in match.rejected] == [3]
