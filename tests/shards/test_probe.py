"""What a few triplets show: sizes, pairs that do not belong together, what depth values mean."""

import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from shards.convert import convert
from shards.dry_run import dry_run
from shards.error import ShardError
from shards.layouts.depth import DepthFormat
from shards.manifest import read_manifest
from shards.options import ConvertConfig
from shards.probe import probe
from shards.reading import Reading, read_sources
from shards.triplet import Triplet

ROOT = "modest_museum_dataset"


def reading_of(source: Path) -> Reading:
    return read_sources(ConvertConfig(sources=(source,), out=Path("unused")))


def look(
    reading: Reading, triplets: list[Triplet], depth: DepthFormat | None = None
) -> DepthFormat:
    found = probe(reading.members, triplets, reading.backgrounds, depth or reading.layout.depth)
    assert found.image_size == (224, 224)
    return found.depth


def test_pairs_that_belong_together_pass(source: Path) -> None:
    reading = reading_of(source)
    assert look(reading, list(reading.triplets)) == DepthFormat()


@pytest.mark.parametrize("part", ["background", "mask"])
def test_wrong_pairs_stop_the_conversion_with_three_examples(source: Path, part: str) -> None:
    reading = reading_of(source)
    triplets = list(reading.triplets)
    shifted = [getattr(t, part) for t in triplets[97:] + triplets[:97]]
    wrong = [t._replace(**{part: value}) for t, value in zip(triplets, shifted, strict=True)]
    with pytest.raises(ShardError, match="do not belong together") as error:
        look(reading, wrong)
    assert str(error.value).count(f"{ROOT}/bg_fg/") == 3
    probe(reading.members, wrong, reading.backgrounds, DepthFormat(), check_pairs=False)


def test_a_quarter_of_wrong_pairs_is_enough(source: Path) -> None:
    reading = reading_of(source)
    triplets = list(reading.triplets)
    wrong = [
        t._replace(mask=triplets[(n + 40) % len(triplets)].mask) if n % 4 == 0 else t
        for n, t in enumerate(triplets)
    ]
    with pytest.raises(ShardError, match="do not belong together"):
        look(reading, wrong)


def changed_depth(source: Path, folder: Path, change: str) -> Path:
    """A copy of the source zip with another kind of depth values."""
    folder.mkdir()
    (original,) = source.glob("*.zip")
    with (
        zipfile.ZipFile(original) as old,
        zipfile.ZipFile(folder / original.name, "w") as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if "/bg_fg_depth_map/" in name:
                depth = simplejpeg.decode_jpeg(content, "GRAY").astype(float)
                if change == "inverted":
                    depth = 255 - depth
                else:
                    depth = (depth - depth.min()) / np.ptp(depth) * 255
                content = simplejpeg.encode_jpeg(
                    depth.astype(np.uint8), colorspace="GRAY", colorsubsampling="Gray"
                )
            new.writestr(name, content)
    return folder


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("inverted", DepthFormat(polarity="near-bright")),
        ("stretched", DepthFormat(scaling="stretched")),
    ],
)
def test_what_depth_values_mean_is_seen_from_the_images(
    source: Path, tmp_path: Path, change: str, expected: DepthFormat
) -> None:
    reading = reading_of(changed_depth(source, tmp_path / "changed", change))
    assert look(reading, list(reading.triplets)) == expected


def test_an_option_overrules_what_is_seen(source: Path, tmp_path: Path) -> None:
    config = ConvertConfig(sources=(source,), out=tmp_path / "set", limit=40, processes=1,
                           depth_polarity="near-bright", depth_scaling="stretched")  # fmt: skip
    manifest = convert(config).manifest
    assert (manifest.depth["polarity"], manifest.depth["scaling"]) == ("near-bright", "stretched")
    assert sum(shard.samples for shard in manifest.shards) == 40
    assert manifest.accounting["not_selected"] == 3 * 280


def test_a_dry_run_says_what_a_conversion_writes(source: Path, tmp_path: Path) -> None:
    config = ConvertConfig(sources=(source,), out=tmp_path / "set", per_background=30, processes=1)
    told = dry_run(config)
    assert not (tmp_path / "set").exists()
    manifest = convert(config).manifest
    assert told.accounting == manifest.accounting
    assert told.split == manifest.split
    assert told.shards == len(manifest.shards)
    for split, samples in told.samples.items():
        assert samples == manifest.num_samples(split)
    tars = sum(record.bytes for name, record in manifest.files.items() if "-0" in name and
               name.endswith(".tar"))  # fmt: skip
    assert abs(told.bytes - tars) < 20_480 * told.shards


def without_backgrounds(source: Path, folder: Path, lost: str) -> Path:
    folder.mkdir()
    (original,) = source.glob("*.zip")
    with (
        zipfile.ZipFile(original) as old,
        zipfile.ZipFile(folder / original.name, "w") as new,
    ):
        for name in old.namelist():
            if not name.startswith(f"{ROOT}/bg/{lost}"):
                new.writestr(name, old.read(name))
    return folder


def test_missing_backgrounds_are_estimated_close_to_the_truth(source: Path, tmp_path: Path) -> None:
    bare = without_backgrounds(source, tmp_path / "bare", "")
    config = ConvertConfig(sources=(bare,), out=tmp_path / "set", processes=1)
    manifest = convert(replace(config, backgrounds="estimate")).manifest
    assert manifest.estimated_backgrounds == manifest.backgrounds
    assert len(manifest.backgrounds) == 4
    (original,) = source.glob("*.zip")
    with tarfile.open(tmp_path / "set" / "backgrounds.tar") as tar, zipfile.ZipFile(original) as z:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found = np.asarray(Image.open(io.BytesIO(file.read()))).astype(int)
            name = f"{ROOT}/bg/{member.name.partition('.')[0]}.jpeg"
            truth = simplejpeg.decode_jpeg(z.read(name)).astype(int)
            assert np.abs(found - truth).mean() < 5, "the noise of two JPEGs is left"
            assert np.percentile(np.abs(found - truth).max(axis=2), 99) < 40, "and no object"


def test_one_missing_background_rejects_its_triplets_or_is_estimated(
    source: Path, tmp_path: Path
) -> None:
    bare = without_backgrounds(source, tmp_path / "bare", "bg002")
    config = ConvertConfig(sources=(bare,), out=tmp_path / "set", processes=1, max_rejected=80)
    manifest = convert(config).manifest
    assert manifest.accounting["rejected"] == 240
    reasons = (tmp_path / "set" / "rejected.jsonl").read_text()
    assert reasons.count("has no background bg002") == 80
    estimated = convert(replace(config, out=tmp_path / "two", backgrounds="estimate")).manifest
    assert estimated.estimated_backgrounds == ("bg002",)
    assert estimated.backgrounds == ("bg001", "bg002", "bg003", "bg004")
    assert sum(shard.samples for shard in estimated.shards) == 320


def test_a_set_without_any_background_says_so(source: Path, tmp_path: Path) -> None:
    bare = without_backgrounds(source, tmp_path / "bare", "")
    config = ConvertConfig(sources=(bare,), out=tmp_path / "set", processes=1, split="background")
    convert(config)
    manifest = read_manifest(tmp_path / "set")
    assert manifest.backgrounds == ()
    assert not (tmp_path / "set" / "backgrounds.tar").exists()
    assert manifest.split["rule"] == "background", "names tell scenes apart without their images"
