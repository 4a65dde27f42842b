"""The folder holds no more than it may, nothing in use leaves it, and a kill leaves no puzzle."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.remote.fetched_files import FetchedFiles, NoRoomError
from shards.manifest import FileRecord

RECORD = FileRecord(bytes=100, sha256="")
SET = "0" * 64


@pytest.fixture
def files(tmp_path: Path) -> FetchedFiles:
    """Room for three files of 100 bytes."""
    return FetchedFiles(tmp_path / "cache", 350)


def _path(files: FetchedFiles, number: int) -> Path:
    return files.folder / SET / f"train-{number:06d}.tar"


def _add(files: FetchedFiles, number: int) -> Path:
    path = _path(files, number)
    with files.arriving(path, RECORD) as part:
        assert part is not None
        part.write_bytes(bytes(100))
    return path


def _there(files: FetchedFiles) -> list[int]:
    return sorted(int(path.stem[-6:]) for path in (files.folder / SET).glob("*.tar"))


def test_what_arrived_can_be_opened_and_read(files: FetchedFiles) -> None:
    path = _add(files, 1)
    descriptor = files.open(path, RECORD)
    assert descriptor is not None
    assert os.pread(descriptor, 200, 0) == bytes(100)
    os.close(descriptor)
    assert files.open(_path(files, 2), RECORD) is None


def test_the_file_used_longest_ago_makes_room(files: FetchedFiles) -> None:
    for number in range(3):
        os.utime(_add(files, number), (number, number))
    descriptor = files.open(_path(files, 0), RECORD)  # used again
    assert descriptor is not None
    os.close(descriptor)
    _add(files, 3)
    assert _there(files) == [0, 2, 3]


def test_what_is_in_use_stays_and_what_is_on_its_way_counts(files: FetchedFiles) -> None:
    held = [files.open(_add(files, number), RECORD) for number in range(2)]
    with files.arriving(_path(files, 2), RECORD) as part:
        assert part is not None
        with (
            pytest.raises(NoRoomError, match="300 of 350 bytes"),
            files.arriving(_path(files, 3), RECORD),
        ):
            pytest.fail("there is no room")
        part.write_bytes(bytes(100))
    assert _there(files) == [0, 1, 2]
    for descriptor in held:
        assert descriptor is not None
        os.close(descriptor)


def test_a_failed_arrival_leaves_nothing(files: FetchedFiles) -> None:
    def arrive_by_half() -> None:
        with files.arriving(_path(files, 1), RECORD) as part:
            assert part is not None
            part.write_bytes(bytes(50))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        arrive_by_half()
    assert [*(files.folder / SET).iterdir()] == []


def test_one_fetches_what_two_want(files: FetchedFiles) -> None:
    other = FetchedFiles(files.folder, files.max_bytes)
    with files.arriving(_path(files, 1), RECORD) as part:
        assert part is not None
        with other.arriving(_path(files, 1), RECORD) as second:
            assert second is None
        part.write_bytes(bytes(100))
    with other.arriving(_path(files, 1), RECORD) as second:
        assert second is None  # it has arrived meanwhile
    assert _there(files) == [1]


def test_indices_backgrounds_and_strangers_files_never_make_room(files: FetchedFiles) -> None:
    stranger = files.folder / "mine.tar"
    stranger.write_bytes(bytes(500))
    folder = files.folder / SET
    folder.mkdir()
    for name in ("backgrounds.tar", "train-000000.npy", "manifest.json"):
        (folder / name).write_bytes(bytes(60))
    _add(files, 1)
    _add(files, 2)
    assert stranger.exists()
    assert {path.name for path in folder.iterdir()} == {
        "backgrounds.tar", "train-000000.npy", "manifest.json", "train-000002.tar",
    }  # fmt: skip


def test_a_file_of_another_length_is_dropped(files: FetchedFiles) -> None:
    path = _add(files, 1)
    os.truncate(path, 99)
    assert files.open(path, RECORD) is None
    assert not path.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.remote.fetched_files import FetchedFiles
from shards.manifest import FileRecord
files, record = FetchedFiles(Path(sys.argv[1]), 350), FileRecord(bytes=100, sha256="")
held = files.open(Path(sys.argv[2]), record)
with files.arriving(Path(sys.argv[3]), record) as part:
    part.write_bytes(bytes(40))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_held_or_fetched_is_free_again(files: FetchedFiles) -> None:
    held, half = _add(files, 1), _path(files, 2)
    _add(files, 3)
    command = [sys.executable, "-c", KILLED, files.folder, held, half]
    done = subprocess.run(list(map(str, command)), check=False)
    assert done.returncode == -9
    parts = [*(files.folder / SET).glob("*.part")]
    assert [path.stat().st_size for path in parts] == [40]
    _add(files, 2)  # takes the half one's place
    assert _there(files) == [1, 2, 3]
    assert not [*(files.folder / SET).glob("*.part")]
    os.utime(held, (0, 0))
    _add(files, 4)
    assert _there(files) == [2, 3, 4]


def test_half_a_file_that_nobody_fetches_makes_room(files: FetchedFiles) -> None:
    folder = files.folder / SET
    folder.mkdir()
    (folder / "train-000009.tar.300.part").write_bytes(bytes(10))
    _add(files, 1)
    assert [path.name for path in folder.iterdir()] == ["train-000001.tar"]
