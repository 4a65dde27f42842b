"""A conversion from end to end: the bytes are the source's, the same everywhere, all accounted."""

import gc
import io
import json
import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import webdataset
from nvidia.dali import fn
from nvidia.dali.pipeline import pipeline_def

from shards.convert import convert
from shards.error import ShardError
from shards.index import PARTS, read_rows
from shards.manifest import read_manifest
from shards.options import ConvertConfig

ROOT = "modest_museum_dataset"


def config(source: Path, out: Path, **options: object) -> ConvertConfig:
    settings = ConvertConfig(
        sources=(source,), out=out, samples_per_shard=64, val=0.25, seed=1, processes=1
    )
    return replace(settings, **options)  # type: ignore[arg-type]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rewritten(source: Path, folder: Path, changes: dict[str, bytes | None]) -> Path:
    """A copy of the source zip with members replaced, added, or (None) left out."""
    folder.mkdir()
    (original,) = source.glob("*.zip")
    with (
        zipfile.ZipFile(original) as old,
        zipfile.ZipFile(folder / original.name, "w") as new,
    ):
        for name in old.namelist():
            content = changes.get(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name in changes.keys() - set(old.namelist()):
            new.writestr(name, changes[name] or b"")
    return folder


def composites(source: Path) -> list[str]:
    (path,) = source.glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        return [name for name in archive.namelist() if name.startswith(f"{ROOT}/bg_fg/")]


@pytest.fixture(scope="session")
def relation(source: Path) -> dict[str, tuple[bytes, ...]]:
    """Key to background, composite, mask and depth bytes, read with zipfile."""
    (path,) = source.glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        lines = archive.read(f"{ROOT}/file_map.txt").decode().split("\n")
        rows = [line.split("\t") for line in lines if line]
        folders = ("bg", "bg_fg", "bg_fg_mask", "bg_fg_depth_map")
        return {
            row[1]: tuple(
                archive.read(f"{ROOT}/{folder}/{stem}.jpeg")
                for folder, stem in zip(folders, row, strict=True)
            )
            for row in rows
        }


def test_every_sample_holds_the_sources_own_bytes(
    small_set: Path, relation: dict[str, tuple[bytes, ...]]
) -> None:
    manifest = read_manifest(small_set)
    with tarfile.open(small_set / "backgrounds.tar") as archive:
        backgrounds = [archive.extractfile(member).read() for member in archive]  # type: ignore[union-attr]
    seen = {}
    for shard in manifest.shards:
        tar = (small_set / f"{shard.name}.tar").read_bytes()
        rows = read_rows(small_set / f"{shard.name}.npy", shard.samples)
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            keys = [name.partition(".")[0] for name in archive.getnames()[::4]]
        for key, row in zip(keys, rows, strict=True):
            images = [
                tar[offset : offset + size]
                for offset, size in zip(row["offset"], row["size"], strict=True)
            ]
            seen[key] = (backgrounds[row["background"]], *images)
    assert seen == relation


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its shards open
def test_webdataset_reads_the_shards(
    small_set: Path, relation: dict[str, tuple[bytes, ...]]
) -> None:
    urls = [str(path) for path in sorted(small_set.glob("[tv]*.tar"))]
    found = {}
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        info = json.loads(sample["json"])
        assert sorted(key for key in sample if not key.startswith("__")) == [
            "depth.jpg", "fgbg.jpg", "json", "mask.jpg"
        ]  # fmt: skip
        key = sample["__key__"]
        found[key] = (sample["fgbg.jpg"], sample["mask.jpg"], sample["depth.jpg"])
        assert info["member"] == f"{ROOT}/bg_fg/{key}.jpeg"
        assert key.startswith(f"{info['background']}_{info['foreground']}_")
        assert info["size"] == [224, 224]
    gc.collect()
    assert found == {key: images[1:] for key, images in relation.items()}


def test_dalis_own_reader_reads_the_shards_by_our_index(
    small_set: Path, relation: dict[str, tuple[bytes, ...]]
) -> None:
    shards = sorted(small_set.glob("train-*.tar"))
    manifest = read_manifest(small_set)

    @pipeline_def(batch_size=40, num_threads=1, device_id=None)
    def read():  # type: ignore[no-untyped-def]
        return tuple(
            fn.readers.webdataset(
                paths=[str(path) for path in shards],
                index_paths=[str(path.with_suffix(".idx")) for path in shards],
                ext=["fgbg.jpg", "mask.jpg", "depth.jpg"],
                missing_component_behavior="error",
            )
        )

    pipeline = read()
    pipeline.build()
    found = []
    for _ in range(manifest.num_samples("train") // 40):
        outputs = [output.as_cpu() for output in pipeline.run()]
        found.extend(
            tuple(np.asarray(output[position]).tobytes() for output in outputs)
            for position in range(40)
        )
    train = {
        images[1:] for key, images in relation.items()
        if key.split("_")[1] not in manifest.split["held_out_foregrounds"]
    }  # fmt: skip
    assert len(found) == len(train)
    assert set(found) == train


@pytest.mark.parametrize("processes", [1, 2])
def test_the_same_sources_give_the_same_bytes(
    source: Path, small_set: Path, tmp_path: Path, processes: int
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(source, moved)
    convert(config(moved, tmp_path / "again", processes=processes))
    assert files(tmp_path / "again") == files(small_set)


def test_statistics_are_those_of_the_decoded_images(
    small_set: Path, relation: dict[str, tuple[bytes, ...]]
) -> None:
    manifest = read_manifest(small_set)
    for position, part in enumerate(PARTS, start=1):
        colours = "RGB" if part == "composite" else "GRAY"
        images = [simplejpeg.decode_jpeg(images[position], colours) for images in relation.values()]
        pixels = np.concatenate([image.reshape(-1, image.shape[2]) for image in images]) / 255
        np.testing.assert_allclose(manifest.statistics[part].mean, pixels.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(manifest.statistics[part].std, pixels.std(axis=0), atol=1e-6)
    held_out = manifest.split["held_out_foregrounds"]
    depths = [simplejpeg.decode_jpeg(images[3], "GRAY")[..., 0] for key, images in relation.items()
              if key.split("_")[1] not in held_out]  # fmt: skip
    mean = np.mean(depths, axis=0) / 255
    assert np.abs(manifest.mean_depth(224) - mean).mean() < 0.01


def test_the_accounting_adds_up(source: Path, small_set: Path) -> None:
    (path,) = source.glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        members = len(archive.namelist()) + 1  # truth.tsv lies beside the zip
    accounting = dict(read_manifest(small_set).accounting)
    assert accounting.pop("members") == members == sum(accounting.values())
    assert (accounting["used"], accounting["backgrounds"], accounting["rejected"]) == (960, 4, 0)


def test_damaged_triplets_are_listed_and_nothing_is_finished(source: Path, tmp_path: Path) -> None:
    first, second, third, *_ = composites(source)
    (path,) = source.glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        cut = archive.read(second)[:-40]
    bad = rewritten(source, tmp_path / "bad", {first: b"", second: cut, third: None})
    out = tmp_path / "set"
    with pytest.raises(ShardError, match=r"3 triplets .* rejected, 0 are accepted.*--max-rejected"):
        convert(config(bad, out))
    assert not (out / "manifest.json").exists()
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    reasons = {line["key"]: line["reason"] for line in lines}
    stem = {name: Path(name).stem for name in (first, second, third)}
    assert reasons[stem[first]] == "composite is empty"
    assert reasons[stem[second]].startswith("composite does not decode cleanly")
    assert reasons[stem[third]] == "has no composite"
    manifest = convert(config(bad, out, max_rejected=3)).manifest
    accounting = dict(manifest.accounting)
    assert accounting.pop("members") == sum(accounting.values())
    assert accounting["rejected"] == 3 + 3 + 2
    assert sum(shard.samples for shard in manifest.shards) == 317


def test_another_size_is_rejected(source: Path, tmp_path: Path) -> None:
    name = composites(source)[5]
    small = simplejpeg.encode_jpeg(np.zeros((96, 96, 3), np.uint8))
    bad = rewritten(source, tmp_path / "bad", {name: small})
    with pytest.raises(ShardError, match="composite is 96 x 96 px, the set is 224 x 224"):
        convert(config(bad, tmp_path / "set", check="headers"))


def test_a_damaged_background_takes_its_triplets_with_it(source: Path, tmp_path: Path) -> None:
    bad = rewritten(source, tmp_path / "bad", {f"{ROOT}/bg/bg002.jpeg": b"\xff\xd8 no image"})
    manifest = convert(config(bad, tmp_path / "set", max_rejected=1000)).manifest
    assert manifest.backgrounds == ("bg001", "bg003", "bg004")
    assert manifest.accounting["rejected"] == 1 + 3 * 80
    assert sum(shard.samples for shard in manifest.shards) == 240


def test_without_decoding_the_bytes_are_the_same(
    source: Path, small_set: Path, tmp_path: Path
) -> None:
    convert(config(source, tmp_path / "set", check="none"))
    unchecked, strict = files(tmp_path / "set"), files(small_set)
    for name in strict.keys() - {"manifest.json"}:
        assert unchecked[name] == strict[name]
    assert unchecked["manifest.json"] != strict["manifest.json"]


def test_a_finished_set_is_left_alone(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    assert not convert(config(source, out)).already_finished
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert convert(config(source, out)).already_finished
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    with pytest.raises(ShardError, match="finished set made with other options"):
        convert(config(source, out, seed=2))


def test_a_damaged_shard_is_written_again(source: Path, small_set: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    shutil.copytree(small_set, out)
    (out / "train-000001.tar").write_bytes(b"gone")
    convert(config(source, out))
    assert files(out) == files(small_set)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"split": "colour"}, "unknown split 'colour'; use one of: foreground"),
        ({"check": "maybe"}, "unknown check 'maybe'"),
        ({"val": 1.5}, "val is 1.5"),
        ({"seed": -1}, "seed is -1"),
        ({"processes": 0}, "processes is 0"),
    ],
)
def test_a_wrong_option_is_named_with_the_right_ones(
    tmp_path: Path, options: dict[str, object], found: str
) -> None:
    with pytest.raises(ValueError, match=found):
        config(tmp_path, tmp_path, **options)


def test_an_unknown_layout_is_named_with_the_known_ones(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="unknown layout 'zoo'; use auto, one of: global-number"):
        convert(config(source, tmp_path / "set", layout="zoo"))
