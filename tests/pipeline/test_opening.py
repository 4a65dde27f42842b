"""A set that is not what its manifest says is refused at the door, all faults at once."""

from pathlib import Path

import pytest

from pipeline.error import LoaderError
from pipeline.opening import open_set
from shards.error import ShardError
from shards.manifest import read_manifest


def test_a_whole_set_opens_with_and_without_hashes(small_set: Path) -> None:
    assert open_set(small_set) == open_set(small_set, verify_hashes=True)


def test_missing_truncated_and_grown_files_are_named_together_with_the_next_action(
    copied_set: Path,
) -> None:
    (copied_set / "train-000001.tar").unlink()
    tar = copied_set / "val-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-81])
    with (copied_set / "backgrounds.tar").open("ab") as file:
        file.write(b"more")
    with pytest.raises(LoaderError) as caught:
        open_set(copied_set)
    message = str(caught.value)
    assert "train-000001.tar is missing" in message
    assert "val-000000.tar is 81 bytes shorter than the manifest says" in message
    assert "backgrounds.tar is 4 bytes longer" in message
    assert f"run `maskdepth verify {copied_set}`" in message
    assert "\n" not in message


def test_a_flipped_byte_passes_the_sizes_and_fails_the_hashes(copied_set: Path) -> None:
    tar = copied_set / "train-000002.tar"
    content = bytearray(tar.read_bytes())
    content[5000] ^= 1
    tar.write_bytes(content)
    open_set(copied_set)
    with pytest.raises(LoaderError, match=r"train-000002.tar has another SHA-256"):
        open_set(copied_set, verify_hashes=True)


@pytest.mark.parametrize("name", ["train-000002.npy", "backgrounds.tar"])
def test_what_no_crc_guards_is_always_hashed(copied_set: Path, name: str) -> None:
    """Another background number, or another background, would train on wrong pairs unseen."""
    content = bytearray((copied_set / name).read_bytes())
    content[-700] ^= 1
    (copied_set / name).write_bytes(content)
    with pytest.raises(LoaderError, match=f"{name} has another SHA-256"):
        open_set(copied_set)


def test_a_folder_without_a_manifest_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="convert"):
        open_set(tmp_path)


def test_a_long_list_of_faults_is_cut_and_says_so(copied_set: Path) -> None:
    names = [name for name in read_manifest(copied_set).files if name != "rejected.jsonl"]
    for name in names:
        (copied_set / name).unlink()
    with pytest.raises(LoaderError) as caught:
        open_set(copied_set)
    told = str(caught.value).count("is missing")
    assert told == min(len(names), 20)
    assert len(names) <= 20 or f"and {len(names) - 20} more" in str(caught.value)
