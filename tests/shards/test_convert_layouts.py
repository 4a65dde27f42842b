"""All five layouts, zips to sets, against the truth that the synthesiser writes beside them."""

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from shards.convert import convert
from shards.layouts import LAYOUTS
from shards.manifest import read_manifest
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise

SYNTH = SynthConfig(count=120, seed=11, num_backgrounds=3, num_foregrounds=5)


class Sample(NamedTuple):
    info: dict[str, object]
    images: tuple[bytes, bytes, bytes]
    names: tuple[str, str, str]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Layout to its source folder and its set."""
    found = {}
    for layout in LAYOUTS:
        folder = tmp_path_factory.mktemp(layout)
        synthesise(folder / "source", replace(SYNTH, layout=layout))
        config = ConvertConfig(sources=(folder / "source",), out=folder / "set", processes=1)
        manifest = convert(config).manifest
        assert manifest.layout == layout, "found from the names"
        found[layout] = (folder / "source", folder / "set")
    return found


def samples(set_path: Path) -> Iterator[Sample]:
    for shard in read_manifest(set_path).shards:
        with tarfile.open(set_path / f"{shard.name}.tar") as tar:
            members = tar.getmembers()
            for at in range(0, len(members), 4):
                contents = [tar.extractfile(m).read() for m in members[at : at + 4]]  # type: ignore[union-attr]
                names = [member.name for member in members[at : at + 3]]
                yield Sample(json.loads(contents[3]), tuple(contents[:3]), tuple(names))  # type: ignore[arg-type]


def truth(source: Path) -> dict[str, list[str]]:
    lines = (source / "truth.tsv").read_text().splitlines()
    return {line.split("\t")[0]: line.split("\t") for line in lines}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_zips_folders_and_files_may_be_named_one_by_one(
    layout: str, converted: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    source, whole = converted[layout]
    parts = tuple(source.iterdir())
    manifest = convert(ConvertConfig(sources=parts, out=tmp_path / "set", processes=1)).manifest
    assert manifest.layout == layout
    assert manifest.backgrounds == read_manifest(whole).backgrounds
    assert [one.images for one in samples(tmp_path / "set")] == [
        one.images for one in samples(whole)
    ]


def members(source: Path) -> dict[str, bytes]:
    found = {}
    for path in source.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            found |= {name: archive.read(name) for name in archive.namelist()}
    return found


def grey(content: bytes) -> npt.NDArray[np.int64]:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("L")).astype(int)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_sample_is_what_the_truth_says(
    converted: dict[str, tuple[Path, Path]], layout: str
) -> None:
    source, set_path = converted[layout]
    manifest = read_manifest(set_path)
    accounting = dict(manifest.accounting)
    assert accounting.pop("members") == sum(accounting.values())
    assert accounting["rejected"] == accounting["not_selected"] == 0
    rows, contents = truth(source), members(source)
    for sample in samples(set_path):
        composite, background, mask, depth, _ = rows.pop(str(sample.info["member"]))
        assert sample.info["background"] == background
        assert sample.images[0] == contents[composite]
        targets = ((mask, layout != "tenk-sets"), (depth, layout != "numbered-flip"))
        for number, (name, kept) in enumerate(targets, start=1):
            if kept:
                assert sample.images[number] == contents[name]
            else:
                assert sample.names[number].endswith(".png")
        if layout == "tenk-sets":
            assert np.abs(grey(sample.images[1]) - grey(contents[mask])).max() <= 1
    assert not rows


def test_figures_become_the_depth_that_other_layouts_store(
    converted: dict[str, tuple[Path, Path]],
) -> None:
    """Reference 003 against 004, scene by scene: correlation .99, edges within a pixel."""
    by_scene: dict[str, list[bytes]] = {}
    for layout in ("relation-file", "numbered-flip"):
        source, set_path = converted[layout]
        rows = truth(source)
        for sample in samples(set_path):
            by_scene.setdefault(rows[str(sample.info["member"])][4], []).append(sample.images[2])
    assert len(by_scene) == 120
    for scene, (stored, recovered) in by_scene.items():
        one, other = grey(stored).astype(float), grey(recovered).astype(float)
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] >= 0.99, scene
        assert shift(one, other) <= 1, scene


def shift(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> int:
    """By how many pixels the edges of two images are apart: the peak of their correlation."""
    edges = [np.hypot(*np.gradient(image)) for image in (one, other)]
    spectra = [np.fft.fft2(image - image.mean()) for image in edges]
    peak = np.fft.ifft2(spectra[0] * np.conj(spectra[1])).real
    rows, columns = np.unravel_index(peak.argmax(), peak.shape)
    return max(min(int(at), size - int(at)) for at, size in
               ((rows, peak.shape[0]), (columns, peak.shape[1])))  # fmt: skip


def test_the_manifest_tells_what_was_repaired(converted: dict[str, tuple[Path, Path]]) -> None:
    repaired = {name: dict(read_manifest(paths[1]).repaired) for name, paths in converted.items()}
    none = {"mask": 0, "depth": 0}
    assert repaired == {
        "global-number": none, "class-folders": none, "relation-file": none,
        "tenk-sets": {"mask": 120, "depth": 0}, "numbered-flip": {"mask": 0, "depth": 120},
    }  # fmt: skip
    depth = {name: read_manifest(paths[1]).depth for name, paths in converted.items()}
    assert depth["numbered-flip"]["frame"] == [28, 27, 202, 200]
    assert {name: found["scaling"] for name, found in depth.items()} == {
        "global-number": "stretched", "numbered-flip": "stretched",
        "class-folders": "absolute", "tenk-sets": "absolute", "relation-file": "absolute",
    }  # fmt: skip
    assert {found["polarity"] for found in depth.values()} == {"near-dark"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_unpacked_source_gives_the_same_images(
    converted: dict[str, tuple[Path, Path]], layout: str, tmp_path: Path
) -> None:
    source, set_path = converted[layout]
    for path in source.iterdir():
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                archive.extractall(tmp_path / "unpacked" / path.stem)
        elif path.is_dir():
            shutil.copytree(path, tmp_path / "unpacked" / path.name)
        else:
            (tmp_path / "unpacked").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "unpacked")
    config = ConvertConfig(sources=(tmp_path / "unpacked",), out=tmp_path / "set", processes=1)
    manifest = convert(config).manifest
    assert manifest.layout == layout
    assert manifest.accounting["rejected"] == 0
    assert {sample.names[0]: sample.images for sample in samples(tmp_path / "set")} == {
        sample.names[0]: sample.images for sample in samples(set_path)
    }
