import dataclasses
import io
import os
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from shards.archive import open_sources
from shards.error import ShardError
from shards.layouts import find_layout
from shards.layouts.matching import LayoutOptions
from shards.processes import Processes
from shards.synth import SynthConfig, SynthReport, synthesise
from shards.synthetic.pairing import Plan
from shards.triplet import Members

ROOT = "modest_museum_dataset"


class Museum:
    """A set opened the way a user would: with zipfile and Pillow."""

    def __init__(self, report: SynthReport) -> None:
        self.zip = zipfile.ZipFile(report.paths[0])
        self.rows = self.table("file_map.txt")
        self.places = {
            row[0].removesuffix(".jpeg"): tuple(map(int, row[1:])) for row in self.table("bbox.txt")
        }

    def table(self, name: str) -> list[list[str]]:
        """Rows of a text member."""
        text = self.zip.read(f"{ROOT}/{name}").decode("ascii")
        return [line.split("\t") for line in text.splitlines()]

    def image(self, member: str) -> Image.Image:
        """An image member, not yet decoded."""
        return Image.open(io.BytesIO(self.zip.read(f"{ROOT}/{member}")))

    def pixels(self, member: str) -> np.ndarray:
        """An image member's values, as numbers that can be subtracted."""
        return np.asarray(self.image(member)).astype(np.int64)

    def triplet(self, row: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Background, composite, mask, depth."""
        return (
            self.pixels(f"bg/{row[0]}.jpeg"),
            self.pixels(f"bg_fg/{row[1]}.jpeg"),
            self.pixels(f"bg_fg_mask/{row[2]}.jpeg"),
            self.pixels(f"bg_fg_depth_map/{row[3]}.jpeg"),
        )


@pytest.fixture(scope="module")
def museum(tmp_path_factory: pytest.TempPathFactory) -> Museum:
    """300 triplets at native size: 5 backgrounds, one of each kind of scene, 12 figures."""
    config = SynthConfig(count=300, seed=3, quality=90, num_backgrounds=5, num_foregrounds=12)
    return Museum(synthesise(tmp_path_factory.mktemp("museum"), config))


def test_equal_seeds_give_equal_bytes_for_any_number_of_processes(tmp_path: Path) -> None:
    config = SynthConfig(count=450, size=48, seed=7)
    contents = [
        synthesise(tmp_path / str(number), dataclasses.replace(config, processes=number))
        .paths[0]
        .read_bytes()
        for number in (1, 2)
    ]
    assert contents[0] == contents[1]


def test_another_seed_gives_other_pictures(tmp_path: Path) -> None:
    sets = [
        Museum(synthesise(tmp_path / str(seed), SynthConfig(count=4, size=48, seed=seed)))
        for seed in (1, 2)
    ]
    for member in ("bg/bg001.jpeg", "fg/fg001.png", f"bg_fg/{sets[0].rows[0][1]}.jpeg"):
        assert sets[0].zip.read(f"{ROOT}/{member}") != sets[1].zip.read(f"{ROOT}/{member}")


def test_members_tables_and_report_agree(tmp_path: Path) -> None:
    """Every member is related by the tables, every related name is a member, all are counted."""
    config = SynthConfig(count=101, size=48, num_backgrounds=3, num_foregrounds=7)
    report = synthesise(tmp_path, config)
    museum, positions = Museum(report), report.positions
    assert positions == 3
    backgrounds = [f"bg{number:03d}" for number in range(1, 4)]
    foregrounds = [f"fg{number:03d}" for number in range(1, 8)]
    expected = {f"{ROOT}/file_map.txt", f"{ROOT}/bbox.txt"}
    expected |= {f"{ROOT}/bg/{stem}.jpeg" for stem in backgrounds}
    expected |= {f"{ROOT}/fg/{stem}.png" for stem in foregrounds}
    expected |= {f"{ROOT}/fg_mask/{stem}_mask.png" for stem in foregrounds}
    for background, composite, mask, depth in museum.rows:
        stems = composite.split("_")
        assert stems[0] == background
        assert stems[1] in foregrounds
        assert int(stems[2]) in {*range(1, positions + 1), *range(21, 21 + positions)}
        assert (mask, depth) == (f"{composite}_mask", f"{composite}_depth_map")
        expected |= {
            f"{ROOT}/bg_fg/{composite}.jpeg",
            f"{ROOT}/bg_fg_mask/{mask}.jpeg",
            f"{ROOT}/bg_fg_depth_map/{depth}.jpeg",
        }
    names = museum.zip.namelist()
    assert len(names) == len(set(names)) == report.members
    assert set(names) == expected
    assert [row[1] for row in museum.rows] == sorted(museum.places)
    assert (report.triplets, report.backgrounds, report.foregrounds) == (101, 3, 7)
    assert len(museum.rows) == 101
    assert report.bytes == report.paths[0].stat().st_size
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"modest_museum_dataset.zip", "truth.tsv"}


def test_the_zip_is_whole_stored_and_dateless(museum: Museum) -> None:
    assert museum.zip.testzip() is None
    for info in museum.zip.infolist():
        assert info.compress_type == zipfile.ZIP_STORED
        assert info.date_time == (1980, 1, 1, 0, 0, 0)


def test_every_image_has_the_frame_s_size_and_its_own_mode(museum: Museum) -> None:
    for row in museum.rows[::40]:
        background, composite, mask, depth = museum.triplet(row)
        assert background.shape == composite.shape == (224, 224, 3)
        assert mask.shape == depth.shape == (224, 224)
        assert background.min() >= 0


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_count_is_dealt_evenly(data: st.DataObject) -> None:
    """Exactly `count` distinct triplets in name order, no picture favoured by more than a turn."""
    backgrounds = data.draw(st.integers(1, 9))
    foregrounds = data.draw(st.integers(1, 9))
    count = data.draw(st.integers(max(backgrounds, foregrounds), 500))
    plan = Plan(count=count, num_backgrounds=backgrounds, num_foregrounds=foregrounds)
    triplets = list(plan.triplets())
    keys = [(t.background, t.foreground, t.mirrored, t.position) for t in triplets]
    assert len(set(keys)) == count
    assert keys == sorted(keys)
    assert {t.position for t in triplets} == set(range(plan.num_positions))
    uses = Counter(t.background for t in triplets)
    assert len(uses) == backgrounds
    assert max(uses.values()) - min(uses.values()) <= 1
    uses = Counter(t.foreground for t in triplets)
    assert len(uses) == foregrounds
    # the diagonals of a table shift once per repeat, which can favour a column once each
    assert max(uses.values()) - min(uses.values()) <= max(backgrounds, 2)


@pytest.mark.parametrize("count", [1, 7, 99, 241, 242, 300])
def test_the_converter_s_layout_reads_the_set_whole(tmp_path: Path, count: int) -> None:
    """Every triplet with its background, foreground and mirroring, also beyond 20 positions."""
    config = SynthConfig(count=count, size=32, num_backgrounds=1, num_foregrounds=min(count, 6))
    report = synthesise(tmp_path, config)
    members = Members(open_sources(report.paths))
    layout = find_layout("auto", members)
    found = layout.match(members, LayoutOptions())
    plan = Plan(count=count, num_backgrounds=1, num_foregrounds=report.foregrounds)
    assert not found.rejected
    assert not found.debris
    assert sorted((t.background, t.foreground, t.mirrored) for t in found.triplets) == sorted(
        (f"bg{t.background + 1:03d}", f"fg{t.foreground + 1:03d}", t.mirrored)
        for t in plan.triplets()
    )


def test_left_out_triplets_are_plain_and_mirrored_ones() -> None:
    plan = Plan(count=100, num_backgrounds=10, num_foregrounds=10)
    mirrored = Counter(triplet.mirrored for triplet in plan.triplets())
    assert mirrored == {True: 50, False: 50}


def test_the_mask_is_where_the_composite_differs_from_the_background(museum: Museum) -> None:
    """Far from the mask nothing but compression noise; well inside it most pixels are others."""
    changed = []
    for row in museum.rows[::10]:
        background, composite, mask, _ = museum.triplet(row)
        difference = np.abs(composite - background).max(axis=2)
        left, top, width, height = museum.places[row[1]]
        near = np.zeros(mask.shape, bool)  # a JPEG block pair of 16 pixels around the rectangle
        near[max(top - 16, 0) : top + height + 16, max(left - 16, 0) : left + width + 16] = True
        assert difference[~near].max(initial=0) < 40
        assert mask[~near].max(initial=0) < 8
        changed.append((difference[mask >= 250] > 15).mean())
    assert np.mean(changed) > 0.9


def test_masks_touch_the_sides_of_the_noted_rectangles(museum: Museum) -> None:
    for row in museum.rows[::10]:
        left, top, width, height = museum.places[row[1]]
        assert left >= 0
        assert top >= 0
        assert left + width <= 224
        assert top + height <= 224
        assert height <= 0.56 * 224
        rows, columns = np.nonzero(museum.triplet(row)[2] >= 100)
        assert abs(rows.min() - top) <= 4
        assert abs(rows.max() + 1 - top - height) <= 4
        assert abs(columns.min() - left) <= 4
        assert abs(columns.max() + 1 - left - width) <= 4


def test_masks_are_the_foreground_s_alpha(museum: Museum) -> None:
    """Compared with Pillow's own resizing of the cut-out's alpha."""
    row = next(row for row in museum.rows if row[1].endswith("_01"))
    left, top, width, height = museum.places[row[1]]
    with museum.image(f"fg/{row[1].split('_')[1]}.png") as cutout:
        alpha = cutout.getchannel("A").resize((width, height), Image.Resampling.BOX)
    mask = museum.triplet(row)[2][top : top + height, left : left + width]
    assert np.abs(mask - np.asarray(alpha)).mean() < 6
    stem = row[1].split("_")[1]
    with museum.image(f"fg_mask/{stem}_mask.png") as mask_png:
        assert np.array_equal(np.asarray(mask_png), museum.pixels(f"fg/{stem}.png")[..., 3])


def test_mirrored_triplets_mirror_the_object_in_its_place(museum: Museum) -> None:
    compared = 0
    for row in museum.rows[::7]:
        pair, position = row[1].rsplit("_", 1)
        twin = f"{pair}_{int(position) + 20:02d}"
        if twin not in museum.places:
            continue
        left, top, width, height = museum.places[row[1]]
        assert museum.places[twin] == (left, top, width, height)
        window = np.s_[top : top + height, left : left + width]
        plain = museum.pixels(f"bg_fg_mask/{row[1]}_mask.jpeg")[window]
        mirrored = museum.pixels(f"bg_fg_mask/{twin}_mask.jpeg")[window]
        assert np.abs(plain[:, ::-1] - mirrored).mean() < 6
        compared += 1
    assert compared >= 10


def test_the_free_difference_baseline_finds_the_task_as_hard_as_photographs(
    tmp_path: Path,
) -> None:
    """|composite - background| > 40 in any channel: mean IoU 0.75 to 0.90, and not one value."""
    config = SynthConfig(count=240, num_backgrounds=20, num_foregrounds=24)
    museum = Museum(synthesise(tmp_path, config))
    scores = []
    for row in museum.rows:
        background, composite, mask, _ = museum.triplet(row)
        guess, truth = np.abs(composite - background).max(axis=2) > 40, mask >= 128
        scores.append((guess & truth).sum() / (guess | truth).sum())
    assert 0.75 <= np.mean(scores) <= 0.90
    assert np.std(scores) > 0.05


def test_depth_is_dark_near_and_bright_far(museum: Museum) -> None:
    """Averaged over all, every eighth of the frame is darker than the one above."""
    depths = np.stack([museum.triplet(row)[3] for row in museum.rows[::5]])
    bands = depths.mean(axis=0).reshape(8, 28, 224).mean(axis=(1, 2))
    assert (np.diff(bands) < 0).all()
    assert depths.min() >= 10
    assert depths.max() <= 230
    assert 60 < depths.mean() < 150


def test_an_object_is_darker_the_lower_it_stands(museum: Museum) -> None:
    levels: dict[str, list[tuple[int, float]]] = {}
    for row in museum.rows:
        _, _, mask, depth = museum.triplet(row)
        _, top, _, height = museum.places[row[1]]
        levels.setdefault(row[0], []).append((top + height, float(np.median(depth[mask > 252]))))
    for pairs in levels.values():
        feet, values = np.array(sorted(pairs)).T
        assert (np.diff(values) <= 2).all()  # never brighter, but for compression
        assert values[0] - values[-1] > 20
        assert len(np.unique(feet)) > 10


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of three photographs of other sizes, and one of two cut-outs with a frame."""
    rng = np.random.default_rng(0)
    backgrounds, foregrounds = tmp_path / "backgrounds", tmp_path / "foregrounds"
    backgrounds.mkdir()
    foregrounds.mkdir()
    for name, size in (("a.png", (90, 60)), ("b.jpg", (300, 410)), ("c.webp", (64, 64))):
        small = Image.fromarray(rng.integers(90, 160, (4, 4, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(backgrounds / name)
    for name, colour in (("x.png", (250, 20, 20)), ("y.webp", (20, 20, 250))):
        cutout = Image.new("RGBA", (120, 160), (0, 0, 0, 0))
        cutout.paste((*colour, 255), (30, 20, 90, 140))
        cutout.putpixel((30, 20), (*colour, 0))
        cutout.save(foregrounds / name)
    (backgrounds / "notes.txt").write_text("not a picture")
    return backgrounds, foregrounds


def test_the_user_s_pictures_become_backgrounds_and_objects(
    tmp_path: Path, pictures: tuple[Path, Path]
) -> None:
    config = SynthConfig(
        count=24, size=64, quality=95, backgrounds=pictures[0], foregrounds=pictures[1]
    )
    report = synthesise(tmp_path / "out", config)
    museum = Museum(report)
    assert (report.backgrounds, report.foregrounds) == (3, 2)
    for number, name in enumerate(("a.png", "b.jpg", "c.webp"), start=1):
        with Image.open(pictures[0] / name) as original:
            expected = ImageOps.fit(original.convert("RGB"), (64, 64))
        stored = museum.pixels(f"bg/bg{number:03d}.jpeg")
        assert np.abs(stored - np.asarray(expected)).mean() < 4
    for row in museum.rows:
        left, top, width, height = museum.places[row[1]]
        assert width / height == pytest.approx(60 / 120, abs=0.06)
        centre = museum.triplet(row)[1][top + height // 2, left + width // 2]
        colour = (250, 20, 20) if "fg001" in row[1] else (20, 20, 250)
        assert np.abs(centre - colour).max() < 30


def test_fewer_of_the_user_s_pictures_can_be_asked_for(
    tmp_path: Path, pictures: tuple[Path, Path]
) -> None:
    config = SynthConfig(count=5, size=48, backgrounds=pictures[0], num_backgrounds=2)
    assert synthesise(tmp_path / "out", config).backgrounds == 2


def test_every_unusable_picture_is_named_at_once(
    tmp_path: Path, pictures: tuple[Path, Path]
) -> None:
    _, foregrounds = pictures
    Image.new("RGB", (20, 20)).save(foregrounds / "plain.png")
    Image.new("RGBA", (20, 20), (9, 9, 9, 0)).save(foregrounds / "ghost.png")
    Image.new("RGBA", (20, 20), (9, 9, 9, 255)).save(foregrounds / "solid.png")
    (foregrounds / "torn.png").write_bytes((foregrounds / "x.png").read_bytes()[:60])
    config = SynthConfig(count=12, size=48, foregrounds=foregrounds)
    with pytest.raises(ShardError) as caught:
        synthesise(tmp_path / "out", config)
    for text in ("plain.png has no alpha", "ghost.png is wholly transparent", "solid.png is opaque",
                 "torn.png cannot be read"):  # fmt: skip
        assert text in str(caught.value)
    assert "x.png" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_folders_without_enough_pictures_are_refused(
    tmp_path: Path, pictures: tuple[Path, Path]
) -> None:
    (tmp_path / "empty").mkdir()
    for folder, wanted, found in (
        (tmp_path / "empty", None, "holds no pictures"),
        (tmp_path / "absent", None, "is no folder"),
        (pictures[0], 4, "holds 3 pictures, 4 are wanted"),
    ):
        config = SynthConfig(count=9, size=48, backgrounds=folder, num_backgrounds=wanted)
        with pytest.raises(ShardError, match=found):
            synthesise(tmp_path / "out", config)


def test_an_existing_zip_is_refused_and_left_alone(tmp_path: Path) -> None:
    zip_path = tmp_path / "modest_museum_dataset.zip"
    zip_path.write_bytes(b"precious")
    with pytest.raises(ShardError, match="exists already"):
        synthesise(tmp_path, SynthConfig(count=1, size=48))
    assert zip_path.read_bytes() == b"precious"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ShardError, match="cannot be written"):
        synthesise(tmp_path / "file" / "out", SynthConfig(count=1, size=48))


def test_progress_reaches_the_count_and_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    done: list[int] = []
    synthesise(tmp_path / "whole", SynthConfig(count=401, size=32), done.append)
    assert done == sorted(done)
    assert done[-1] == 401
    assert len(done) > 2

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise(tmp_path / "cut", SynthConfig(count=401, size=32), interrupt)
    assert list((tmp_path / "cut").iterdir()) == []


def test_a_killed_process_is_told_in_one_line() -> None:
    with Processes(2) as processes, pytest.raises(ShardError, match="was killed"):
        list(processes.map(os._exit, [1, 1]))


@pytest.mark.parametrize(
    ("field", "value"),
    [("count", 0), ("size", 31), ("seed", -1), ("quality", 0), ("quality", 101), ("processes", 0),
     ("num_backgrounds", 0), ("num_foregrounds", 11)],
)  # fmt: skip
def test_values_out_of_range_are_named(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        SynthConfig(**{"count": 10, field: value})
