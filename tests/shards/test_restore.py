import shutil
from pathlib import Path

import pytest

from shards.convert import convert
from shards.error import ShardError
from shards.options import ConvertConfig
from shards.restore import restore
from shards.verify import verify

LAYOUT = """
name = "museum"
composite = '.*/bg_fg/(?P<key>(?P<background>bg\\d+)_(?P<foreground>fg\\d+)_\\d+)\\.jpeg'
mask = '.*/bg_fg_mask/(?P<key>.+)_mask\\.jpeg'
depth = '.*/bg_fg_depth_map/(?P<key>.+)_depth_map\\.jpeg'
background = '.*/bg/(?P<background>bg\\d+)\\.jpeg'
"""


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def copied(small_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_set, tmp_path / "set"))


def test_a_whole_set_needs_nothing(copied: Path, source: Path) -> None:
    assert restore(copied, [source]) == ()


def test_damaged_and_missing_files_come_back_as_they_were(
    copied: Path, small_set: Path, source: Path
) -> None:
    tar = bytearray((copied / "train-000001.tar").read_bytes())
    tar[70_000] ^= 1
    (copied / "train-000001.tar").write_bytes(tar)
    for name in ("val-000000.idx", "train-000003.npy", "backgrounds.tar"):
        (copied / name).unlink()
    restored = restore(copied, [source])
    assert sorted(restored) == [
        "backgrounds.tar", "train-000001.tar", "train-000003.npy", "val-000000.idx"
    ]  # fmt: skip
    assert files(copied) == files(small_set)
    assert not verify(copied, deep=False)


def test_the_list_of_rejected_triplets_comes_back_too(
    copied: Path, small_set: Path, source: Path
) -> None:
    (copied / "rejected.jsonl").write_text("gone")
    assert restore(copied, [source]) == ("rejected.jsonl",)
    assert files(copied) == files(small_set)


def test_only_what_is_damaged_is_written(copied: Path, source: Path) -> None:
    (copied / "train-000002.tar").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in copied.iterdir()}
    seen: list[tuple[int, int]] = []
    restore(copied, [source], lambda done, total, _: seen.append((done, total)))
    assert seen[-1] == (64, 64)
    after = {path.name: path.stat().st_mtime_ns for path in copied.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"train-000002.tar"}


def test_other_sources_are_refused_and_nothing_is_touched(
    copied: Path, source: Path, tmp_path: Path
) -> None:
    (copied / "train-000002.tar").write_bytes(b"damaged")
    (zip_path,) = source.glob("*.zip")
    renamed = tmp_path / "renamed.zip"
    shutil.copy(zip_path, renamed)
    with pytest.raises(ShardError, match=r"not the sources .*renamed\.zip does not belong"):
        restore(copied, [renamed])
    assert (copied / "train-000002.tar").read_bytes() == b"damaged"


def test_a_set_of_a_users_own_layout_is_restored_without_its_file(
    source: Path, tmp_path: Path
) -> None:
    layout = tmp_path / "museum.toml"
    layout.write_text(LAYOUT)
    out = tmp_path / "set"
    convert(ConvertConfig(sources=(source,), out=out, layout=str(layout), processes=1))
    layout.unlink()
    whole = files(out)
    (out / "train-000000.tar").unlink()
    assert restore(out, [source]) == ("train-000000.tar",)
    assert files(out) == whole
