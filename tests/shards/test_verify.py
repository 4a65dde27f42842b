import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shards.error import ShardError
from shards.manifest import read_manifest
from shards.verify import verify


@pytest.fixture
def copied(small_set: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_set, tmp_path / "set"))


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_set_has_no_faults(small_set: Path, deep: bool) -> None:
    checked = []
    assert not verify(small_set, deep=deep, on_progress=lambda done, total: checked.append(done))
    assert checked[-1] == sum(record.bytes for record in read_manifest(small_set).files.values())


@given(st.data())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_flipped_bit_is_found_and_in_a_shard_the_sample_too(
    copied: Path, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(path.name for path in copied.iterdir())))
    content = (copied / name).read_bytes()
    if not content:
        return
    position = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    (copied / name).write_bytes(flipped)
    try:
        if name == "manifest.json":
            with pytest.raises(ShardError, match=r"manifest\.json"):
                verify(copied, deep=False)
            return
        faults = verify(copied, deep=False)
        assert [fault.file for fault in faults] == [name]
        in_samples = name.endswith(".tar") and name != "backgrounds.tar"
        if in_samples and position < len(content) - 10_240:
            assert "sample" in faults[0].found
    finally:
        (copied / name).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-81]), "is 81 bytes shorter than"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "is 1 bytes longer than"),
    ],
)
def test_all_faults_are_reported_at_once(
    copied: Path, damage: Callable[[Path], None], found: str
) -> None:
    damage(copied / "train-000000.tar")
    damage(copied / "val-000001.npy")
    faults = verify(copied, deep=False)
    assert {fault.file for fault in faults} == {"train-000000.tar", "val-000001.npy"}
    assert all(found in fault.found for fault in faults)


def test_a_shard_nobody_vouches_for_is_a_fault(copied: Path) -> None:
    shutil.copy(copied / "train-000000.tar", copied / "train-000009.tar")
    (fault,) = verify(copied, deep=False)
    assert str(fault).startswith("train-000009.tar: is not in the manifest")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "is damaged"),
        ("[]", "no manifest of a maskdepth set"),
        (json.dumps({"format": "maskdepth-set", "version": 9}), "format version 9"),
        (json.dumps({"format": "maskdepth-set", "version": 1}), "is damaged"),
    ],
)
def test_a_damaged_manifest_is_named(copied: Path, text: str, found: str) -> None:
    (copied / "manifest.json").write_text(text)
    with pytest.raises(ShardError, match=found):
        verify(copied, deep=False)


def test_a_folder_without_a_manifest_is_no_finished_set(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"no manifest\.json, so it is no finished set"):
        verify(tmp_path, deep=False)
    with pytest.raises(ShardError, match="is no folder"):
        verify(tmp_path / "nowhere", deep=False)
