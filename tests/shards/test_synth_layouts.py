"""The five layouts of `synth`: the same scenes under the names and in the forms of each."""

import dataclasses
import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards import colormap
from shards.archive import open_sources
from shards.error import ShardError
from shards.layouts import find_layout
from shards.layouts.matching import LayoutOptions
from shards.synth import SynthConfig, synthesise
from shards.synthetic.layouts import LAYOUTS
from shards.synthetic.output import UNFINISHED
from shards.synthetic.pairing import Combination, Plan
from shards.synthetic.plasma import plasma_figure_jpeg
from shards.triplet import Members

WHOLE = SynthConfig(count=72, seed=4, num_backgrounds=3, num_foregrounds=4, quality=90)
"""3 positions, every one plain and mirrored."""

PARTIAL = SynthConfig(count=101, size=32, num_backgrounds=3, num_foregrounds=7)
"""3 positions, the last one with few of its triplets."""

REFERENCE = Plan(count=400_000, num_backgrounds=100, num_foregrounds=100)
"""What every reference holds: 20 positions."""


class Opened:
    """A set as a user finds it: files and members by name, truth by scene."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        self.members: dict[str, bytes] = {}
        self.infos: dict[str, list[zipfile.ZipInfo]] = {}
        for name in sorted(name for name in self.files if name.endswith(".zip")):
            with zipfile.ZipFile(folder / name) as archive:
                self.infos[name] = archive.infolist()
                self.members |= {member: archive.read(member) for member in archive.namelist()}
        rows = [line.split("\t") for line in self.files["truth.tsv"].decode().splitlines()]
        self.truth = {scene: (composite, background, mask, depth)
                      for composite, background, mask, depth, scene in rows}  # fmt: skip
        assert len(self.truth) == len(rows)

    def bytes_of(self, scene: str) -> tuple[bytes, bytes, bytes]:
        """Composite, mask and depth."""
        composite, _, mask, depth = self.truth[scene]
        return self.members[composite], self.members[mask], self.members[depth]

    def images(self, scene: str) -> list[Image.Image]:
        """Composite, mask and depth."""
        return [Image.open(io.BytesIO(content)) for content in self.bytes_of(scene)]


def synthesised(folder: Path, config: SynthConfig, **changes: object) -> Opened:
    synthesise(folder, dataclasses.replace(config, **changes))
    return Opened(folder)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Opened]:
    """`WHOLE` in all layouts."""
    return {
        layout: synthesised(tmp_path_factory.mktemp(layout), WHOLE, layout=layout)
        for layout in LAYOUTS
    }


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.int64)


@pytest.mark.parametrize(
    ("layout", "zips", "triplet", "archives", "names"),
    [
        # background, foreground, position, mirrored, place in the order of the set
        ("relation-file", None, (99, 99, 19, True, 399_999), ["modest_museum_dataset.zip"] * 3,
         ["modest_museum_dataset/bg_fg/bg100_fg100_40.jpeg",
          "modest_museum_dataset/bg_fg_mask/bg100_fg100_40_mask.jpeg",
          "modest_museum_dataset/bg_fg_depth_map/bg100_fg100_40_depth_map.jpeg"]),
        ("global-number", 5, (0, 19, 19, True, 799), ["data_part1.zip"] * 3,
         ["data_1/Fg-Bg/fg-bg800.jpg", "data_1/Fg-Bg-Mask/fg-bg-mask800.jpg",
          "data_1/Depth/depth800.jpg"]),
        ("global-number", 5, (1, 0, 0, False, 4000), ["data_part1.zip"] * 3,
         ["data_1/Fg-Bg/fg-bg801.jpg", "data_1/Fg-Bg-Mask/fg-bg-mask801.jpg",
          "data_1/Depth/depth801.jpg"]),
        ("global-number", 5, (99, 99, 19, True, 399_999), ["data_part5.zip"] * 3,
         ["data_5/Fg-Bg/fg-bg400000.jpg", "data_5/Fg-Bg-Mask/fg-bg-mask400000.jpg",
          "data_5/Depth/depth400000.jpg"]),
        ("class-folders", None, (84, 19, 10, True, 0),
         ["fg_bg.zip", "fg_bg_mask.zip", "dd_output_fg_bg.zip"],
         ["fg_bg/bg_084/fg_019_bg_084_336780.jpg",
          "fg_bg_mask/bg_084/fg_019_bg_084_mask_336780.jpg",
          "mask_fg_bg/bg_084/mask_fg_019_bg_084_336780.png"]),
        ("class-folders", None, (99, 79, 17, False, 0),
         ["fg_bg.zip", "fg_bg_mask.zip", "dd_output_fg_bg.zip"],
         ["fg_bg/bg_099/fg_079_bg_099_399195.jpg",
          "fg_bg_mask/bg_099/fg_079_bg_099_mask_399195.jpg",
          "mask_fg_bg/bg_099/mask_fg_079_bg_099_399195.png"]),
        ("tenk-sets", 40, (2, 1, 2, True, 10_216), ["data_TenK101.zip"] * 3,
         ["data_TenK101/BG_FG/bg_003_fg_102_003.jpeg",
          "data_TenK101/BG_FG Masks/bg_003_fg_102_003.jpeg",
          "data_TenK101/DepthMaps/bg_003_fg_102_003_depth_map_009.jpeg"]),
        ("numbered-flip", 40, (1, 0, 9, False, 4018), ["output_1.zip"] * 3,
         ["bg_fg_1/2_bg_10_fg.jpg", "bg_fg_mask_1/2_bg_10_fg_mask.jpg",
          "depthMap/2_bg_10_fg.jpg"]),
        ("numbered-flip", 40, (99, 99, 19, True, 399_999), ["output_40.zip"] * 3,
         ["bg_fg_40/100_bg_2000_fgFlip.jpg", "bg_fg_mask_40/100_bg_2000_fgFlip_mask.jpg",
          "depthMap/100_bg_2000_fgFlip.jpg"]),
    ],
)  # fmt: skip
def test_names_are_those_of_the_reference(
    layout: str,
    zips: int | None,
    triplet: tuple[int, int, int, bool, int],
    archives: list[str],
    names: list[str],
) -> None:
    background, foreground, position, mirrored, number = triplet
    images = LAYOUTS[layout](REFERENCE, zips).images(
        Combination(background=background, foreground=foreground, position=position,
                    mirrored=mirrored, number=number)
    )  # fmt: skip
    assert [image.archive for image in images] == archives
    assert [image.name for image in images] == names


@pytest.mark.parametrize(
    ("layout", "loose", "folders"),
    [
        ("relation-file", {},
         {"modest_museum_dataset.zip": {
             "modest_museum_dataset": 2, "modest_museum_dataset/bg": 3,
             "modest_museum_dataset/fg": 4, "modest_museum_dataset/fg_mask": 4,
             "modest_museum_dataset/bg_fg": 72, "modest_museum_dataset/bg_fg_mask": 72,
             "modest_museum_dataset/bg_fg_depth_map": 72}}),
        ("global-number", {"Background": 3, "Foreground": 4, "Mask": 4, "labels.txt": 1},
         {f"data_part{part}.zip": {f"data_{part}/Fg-Bg": 36, f"data_{part}/Fg-Bg-Mask": 36,
                                   f"data_{part}/Depth": 36} for part in (1, 2)}),
        ("class-folders", {},
         {"bgformat.zip": {"bgformat/bg": 3},
          "fg_bg.zip": {f"fg_bg/bg_00{n}": 24 for n in range(3)},
          "fg_bg_mask.zip": {f"fg_bg_mask/bg_00{n}": 24 for n in range(3)},
          "dd_output_fg_bg.zip": {f"mask_fg_bg/bg_00{n}": 24 for n in range(3)}}),
        ("tenk-sets", {},
         {f"{root}.zip": {f"{root}/BG": 3, f"{root}/BG_FG": 36, f"{root}/BG_FG Masks": 36,
                          f"{root}/DepthMaps": 36} for root in ("data_TenK100", "data_TenK101")}),
        ("numbered-flip", {"bg": 3},
         {f"output_{part}.zip": {f"bg_fg_{part}": 36, f"bg_fg_mask_{part}": 36, "depthMap": 36}
          for part in (1, 2)}),
    ],
)  # fmt: skip
def test_zips_folders_and_loose_files_are_those_of_the_reference(
    sets: dict[str, Opened],
    layout: str,
    loose: dict[str, int],
    folders: dict[str, dict[str, int]],
) -> None:
    opened = sets[layout]
    beside = Counter(name.partition("/")[0] for name in opened.files)
    assert beside == Counter({**loose, "truth.tsv": 1, **dict.fromkeys(folders, 1)})
    found = {
        name: Counter(info.filename.rpartition("/")[0] for info in infos if not info.is_dir())
        for name, infos in opened.infos.items()
    }
    assert found == {name: Counter(counts) for name, counts in folders.items()}


def test_zips_are_stored_deflated_and_with_folder_entries_as_the_reference_s(
    sets: dict[str, Opened],
) -> None:
    stored = {"modest_museum_dataset.zip", "dd_output_fg_bg.zip"}
    for layout, opened in sets.items():
        for name, infos in opened.infos.items():
            methods = {info.compress_type for info in infos if not info.is_dir()}
            assert methods == {zipfile.ZIP_STORED if name in stored else zipfile.ZIP_DEFLATED}
            assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
            entries = [info.filename for info in infos if info.is_dir()]
            assert len(entries) == (3 if layout == "numbered-flip" else 0)
            for entry in entries:  # the trap of reading a zip by position: the entry comes first
                inside = [info.filename for info in infos if info.filename.startswith(entry)]
                assert inside[0] == entry


@pytest.mark.parametrize(("layout", "zips"), [("relation-file", None), ("class-folders", None),
                                              ("global-number", 3), ("tenk-sets", 3),
                                              ("numbered-flip", 5)])  # fmt: skip
def test_the_truth_is_what_the_converter_s_layout_pairs(
    tmp_path: Path, layout: str, zips: int | None
) -> None:
    """Found by its names alone, every triplet whole, with its background, object and mirroring."""
    opened = synthesised(tmp_path, PARTIAL, layout=layout, zips=zips)
    members = Members(open_sources([tmp_path]))
    reader = find_layout("auto", members)
    assert reader.name == layout
    found = reader.match(members, LayoutOptions(positions_per_foreground=3))
    assert not found.rejected
    assert len(found.backgrounds) == 3
    names = {
        (members[t.composite].name, t.background, members[t.mask].name, members[t.depth].name): t
        for t in found.triplets
    }
    assert len(opened.truth) == len(found.triplets) == 101
    assert set(names) == set(opened.truth.values())
    counted_from = 0 if layout == "class-folders" else 1
    for scene, row in opened.truth.items():
        background, foreground, _ = scene.split("_")
        triplet = names[row]
        ids = (triplet.background, triplet.foreground)
        digits = [int("".join(filter(str.isdecimal, text or ""))) for text in ids]
        assert digits[0] == int(background) - 1 + counted_from
        assert digits[1] == int(foreground.removesuffix("f")) - 1 + counted_from
        assert triplet.mirrored == foreground.endswith("f")


def test_numbers_alone_tell_the_backgrounds_of_global_number(sets: dict[str, Opened]) -> None:
    """The rule of the reference: equal runs in every zip; `labels.txt` says the same."""
    for composite, background, mask, depth in sets["global-number"].truth.values():
        number = int(composite.rpartition("fg-bg")[2].removesuffix(".jpg"))
        part, position = divmod(number - 1, 36)
        assert composite.startswith(f"data_{part + 1}/")
        assert background == f"bg{position // 12 + 1}"
        assert (mask, depth) == (f"data_{part + 1}/Fg-Bg-Mask/fg-bg-mask{number}.jpg",
                                 f"data_{part + 1}/Depth/depth{number}.jpg")  # fmt: skip
    opened = sets["global-number"]
    lines = [line.split("\t") for line in opened.files["labels.txt"].decode().splitlines()]
    truth = {row[0]: (scene, row) for scene, row in opened.truth.items()}
    assert len(lines) == len(truth)
    for background, foreground, composite, mask, depth in lines:
        scene, row = truth[composite]
        assert row == (composite, Path(background).stem, mask, depth)
        assert foreground == f"Foreground/fg{int(scene[4:7])}.png"
        assert {background, foreground} <= set(opened.files)


def test_a_depth_number_of_tenk_sets_is_a_place_in_a_batch_and_means_nothing() -> None:
    layout = LAYOUTS["tenk-sets"](REFERENCE, 40)
    triplets = [triplet for triplet, _ in zip(REFERENCE.triplets(), range(800), strict=False)]
    found = [int(layout.images(t).depth.name[-8:-5]) for t in triplets]
    for batch in (found[:400], found[400:]):
        assert sorted(batch) == list(range(1, 401))
    positions = [triplet.position + 1 for triplet in triplets]
    assert np.mean(np.equal(found, positions)) < 0.02
    assert abs(np.corrcoef(found, positions)[0, 1]) < 0.2


def test_all_layouts_hold_the_same_scenes(sets: dict[str, Opened]) -> None:
    """The same composites byte for byte; masks and depth the same but for their form."""
    original = sets["relation-file"]
    assert len(original.truth) == 72
    for layout, opened in sets.items():
        assert set(opened.truth) == set(original.truth)
        for scene in list(original.truth)[::5]:
            expected, found = original.bytes_of(scene), opened.bytes_of(scene)
            assert found[0] == expected[0]
            _, mask, depth = (pixels(image.convert("L")) for image in opened.images(scene))
            _, known_mask, known_depth = map(pixels, original.images(scene))
            assert np.abs(mask - known_mask).max() <= (3 if layout == "tenk-sets" else 0)
            if layout == "tenk-sets":
                assert found[2] == expected[2]
            elif layout == "class-folders":
                assert np.abs(depth - known_depth).mean() < 1.5  # without the JPEG's noise


def test_a_partial_set_holds_the_same_scenes_in_every_layout(tmp_path: Path) -> None:
    found = []
    for layout in ("relation-file", "global-number", "tenk-sets"):
        opened = synthesised(tmp_path / layout, PARTIAL, layout=layout)
        found.append({scene: opened.bytes_of(scene)[0] for scene in opened.truth})
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("layout", "mask", "depth"),
    [("relation-file", ("JPEG", "L"), ("JPEG", "L")),
     ("global-number", ("JPEG", "L"), ("JPEG", "L")),
     ("class-folders", ("JPEG", "L"), ("PNG", "L")), ("tenk-sets", ("JPEG", "RGB"), ("JPEG", "L")),
     ("numbered-flip", ("JPEG", "L"), ("JPEG", "RGB"))],
)  # fmt: skip
def test_every_image_has_the_form_of_the_reference(
    sets: dict[str, Opened], layout: str, mask: tuple[str, str], depth: tuple[str, str]
) -> None:
    for scene in list(sets[layout].truth)[::9]:
        images = sets[layout].images(scene)
        assert [(image.format, image.mode) for image in images] == [("JPEG", "RGB"), mask, depth]
        assert {image.size for image in images} == {(224, 224)}
        if layout == "tenk-sets":
            channels = pixels(images[1])
            assert (channels == channels[..., :1]).all()


def test_depth_of_global_number_is_stretched_image_by_image(sets: dict[str, Opened]) -> None:
    """Compared with the stretch of the unstretched PNG, computed in floating point."""
    for scene in list(sets["global-number"].truth)[::9]:
        stretched = pixels(sets["global-number"].images(scene)[2])
        depth = pixels(sets["class-folders"].images(scene)[2])
        expected = (depth - depth.min()) * 255 / (depth.max() - depth.min())
        assert depth.max() < 235
        assert np.abs(stretched - expected).mean() < 2
        assert stretched.min() <= 5
        assert stretched.max() >= 250


def test_plasma_figures_turn_back_into_the_scene_s_depth(sets: dict[str, Opened]) -> None:
    scenes = list(sets["numbered-flip"].truth)
    figures = [np.asarray(sets["numbered-flip"].images(scene)[2]) for scene in scenes]
    frame = colormap.find_frame(figures)
    assert frame == (28, 27, 202, 200)
    for scene, figure in list(zip(scenes, figures, strict=True))[::6]:
        outside = figure.copy()
        outside[15:209, 15:209] = 255  # the JPEG blocks that the map touches, and their blur
        assert outside.min() == 255
        grey = np.asarray(Image.fromarray(figure).convert("L"))
        found = colormap.cut_out(colormap.invert(grey, "plasma"), frame, (224, 224))
        depth = pixels(sets["relation-file"].images(scene)[2])
        assert np.corrcoef(found.ravel(), depth.ravel())[0, 1] >= 0.99


def test_a_figure_s_colours_are_plasma_s_and_its_picture_is_the_map_s_right_way_up() -> None:
    """Against colours of matplotlib's table, copied by hand: its ends and its middle."""
    grey = np.zeros((224, 224, 1), np.uint8)
    grey[:, 75:150], grey[112:, 150:] = 128, 255
    with Image.open(io.BytesIO(plasma_figure_jpeg(grey, 95))) as image:
        figure = pixels(image)
    for place, colour in (
        ((113, 50), (13, 8, 135)), ((113, 115), (204, 71, 120)), ((180, 180), (240, 249, 33)),
        ((50, 180), (13, 8, 135)), ((10, 113), (255, 255, 255)), ((113, 210), (255, 255, 255)),
    ):  # fmt: skip
        assert np.abs(figure[place] - colour).max() <= 8


def test_composites_differ_from_their_background_where_the_mask_is(
    sets: dict[str, Opened],
) -> None:
    """In every layout, with the background that the converter's layout names."""
    for layout, opened in sets.items():
        members = Members(open_sources([opened.folder]))
        found = find_layout(layout, members).match(members, LayoutOptions())
        backgrounds = {name: pixels(Image.open(io.BytesIO(members.read(number))))
                       for name, number in found.backgrounds.items()}  # fmt: skip
        for scene in list(opened.truth)[::5]:
            composite, mask, _ = map(pixels, opened.images(scene))
            difference = np.abs(composite - backgrounds[opened.truth[scene][1]]).max(axis=2)
            mask = mask if mask.ndim == 2 else mask[..., 0]
            rows, columns = np.nonzero(mask > 8)
            far = np.ones(mask.shape, bool)
            far[max(rows.min() - 16, 0) : rows.max() + 17,
                max(columns.min() - 16, 0) : columns.max() + 17] = False  # fmt: skip
            assert difference[far].max(initial=0) < 40
            assert (difference[mask >= 250] > 15).mean() > 0.6
        suffix = next(iter(found.backgrounds.values()))
        expected = "PNG" if layout == "numbered-flip" else "JPEG"
        assert Image.open(io.BytesIO(members.read(suffix))).format == expected


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "relation-file"])
def test_any_number_of_processes_writes_equal_files(tmp_path: Path, layout: str) -> None:
    config = SynthConfig(count=401, size=32, seed=7, num_backgrounds=2, layout=layout)
    first, second = (
        synthesised(tmp_path / str(number), config, processes=number).files for number in (1, 2)
    )
    assert first == second


def test_the_number_of_zips_can_be_chosen(tmp_path: Path) -> None:
    for layout, names in (
        ("global-number", ["data_part1.zip", "data_part2.zip", "data_part3.zip"]),
        ("tenk-sets", ["data_TenK100.zip", "data_TenK101.zip", "data_TenK102.zip"]),
        ("numbered-flip", ["output_1.zip", "output_2.zip", "output_3.zip"]),
    ):
        config = SynthConfig(count=40, size=32, num_foregrounds=3, layout=layout, zips=3)
        report = synthesise(tmp_path / layout, config)
        assert [path.name for path in report.paths] == names
        held = [len(zipfile.ZipFile(path).namelist()) for path in report.paths]
        assert min(held) >= 30
        assert report.bytes == sum(path.stat().st_size for path in report.paths)
        entries = 3 * 3 if layout == "numbered-flip" else 0
        assert report.members == sum(held) - entries


def test_a_single_triplet_makes_a_set_of_every_layout(tmp_path: Path) -> None:
    for layout in LAYOUTS:
        opened = synthesised(tmp_path / layout, SynthConfig(count=1, size=32), layout=layout)
        assert list(opened.truth) == ["001_001f_01"]


def test_more_than_a_layout_has_names_for_is_refused(tmp_path: Path) -> None:
    config = SynthConfig(count=200, size=32, layout="tenk-sets", num_foregrounds=101)
    with pytest.raises(ShardError, match="101 foregrounds, and layout tenk-sets has names for 100"):
        synthesise(tmp_path / "out", config)
    config = SynthConfig(count=50, size=32, layout="global-number", num_foregrounds=4, zips=5)
    with pytest.raises(ShardError, match=r"zips is 5; .* deals 4 foregrounds"):
        synthesise(tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("layout", "zips", "found"),
    [("museum", None, "layout is 'museum'; allowed are relation-file, global-number"),
     ("relation-file", 2, "zips is 2; layout relation-file always has 1"),
     ("class-folders", 3, "zips is 3; layout class-folders always has 4"),
     ("tenk-sets", 0, "zips is 0; allowed are 1 to 100"),
     ("numbered-flip", 101, "zips is 101; allowed are 1 to 100")],
)  # fmt: skip
def test_wrong_layouts_and_numbers_of_zips_are_named(
    layout: str, zips: int | None, found: str
) -> None:
    with pytest.raises(ValueError, match=found):
        SynthConfig(count=1000, layout=layout, zips=zips)


@pytest.mark.parametrize("name", ["labels.txt", "Background/bg1.jpg", "truth.tsv"])
def test_a_loose_file_that_exists_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"precious")
    with pytest.raises(ShardError, match=f"{name.partition('/')[0]} exists already"):
        synthesise(tmp_path, SynthConfig(count=4, size=32, layout="global-number"))
    assert path.read_bytes() == b"precious"
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]


def test_an_interruption_leaves_nothing_of_zips_and_loose_files(tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    config = SynthConfig(count=300, size=32, layout="global-number")
    with pytest.raises(KeyboardInterrupt):
        synthesise(tmp_path, config, interrupt)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_no_hindrance(tmp_path: Path) -> None:
    clean = synthesised(tmp_path / "clean", SynthConfig(count=4, size=32), layout="numbered-flip")
    left = tmp_path / "killed" / UNFINISHED / "bg"
    left.mkdir(parents=True)
    (left / "1_bg.png").write_bytes(b"half of it")
    again = synthesised(tmp_path / "killed", SynthConfig(count=4, size=32), layout="numbered-flip")
    assert again.files == clean.files
