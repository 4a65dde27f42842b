"""The contenders do the work that their figures claim, on a small scale."""

import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks import convert as bench
from benchmarks.many_members import measure, write_zip
from benchmarks.memory import measure_memory, tree_pss_bytes
from shards.convert import convert
from shards.manifest import read_manifest
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise

COUNT = 24


@pytest.fixture(scope="module")
def zip_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    synthesise(folder, SynthConfig(count=COUNT, size=48))
    (found,) = folder.glob("*.zip")
    return found


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(bench.PROCESSES) as threads:
        yield threads


def members(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.glob("*-*.tar"):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def test_the_peer_writes_the_same_images_as_we_do(
    zip_path: Path, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    assert bench._shard_writer(zip_path, tmp_path, pool, COUNT, 10, {})() > 0  # type: ignore[arg-type]
    assert bench._convert(zip_path, tmp_path / "set", "none", COUNT, 10)() > 0
    theirs, ours = members(tmp_path / "peer"), members(tmp_path / "set")
    assert theirs.keys() == ours.keys()
    assert len(ours) == 4 * COUNT
    for name, content in ours.items():
        if name.endswith(".json"):
            told = json.loads(content)
            assert json.load(io.BytesIO(theirs[name]))["foreground"] == told["foreground"]
        else:
            assert theirs[name] == content, name


def test_the_ceilings_do_the_work_of_all_triplets(
    zip_path: Path, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    assert bench._raw(zip_path, tmp_path, pool, COUNT)() > 0  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir()), "what was written is removed"
    halves = [bench._decode_half(zip_path, number) for number in range(bench.PROCESSES)]
    assert bench._decoding(zip_path, pool)() > min(halves) / 4  # type: ignore[arg-type]


def test_memory_of_processes_is_added_up() -> None:
    found = measure_memory(_fill, 300_000_000)
    assert found.value == 300_000_000
    assert found.peak_bytes > 300_000_000
    assert tree_pss_bytes(1 << 22) == 0, "no such process"


def test_a_process_without_a_result_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="_give_up ended without a result"):
        measure_memory(_give_up)


def test_tiny_triplets_convert_and_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measure(tmp_path, processes=1, samples=500)
    assert found["members"] == 100 + 3 * 500
    assert found["seconds"].keys() == {"listing", "matching", "planning", "in all"}
    assert found["peak_bytes"] < found["allowed_bytes"]
    assert "1,600 members" in capsys.readouterr().out
    assert read_manifest(tmp_path / "many").accounting["used"] == 1500


def test_tiny_triplets_belong_together(tmp_path: Path) -> None:
    """The pairing check and strict decoding accept them."""
    assert write_zip(tmp_path / "many.zip", 200) == 700
    report = convert(ConvertConfig(sources=(tmp_path / "many.zip",), out=tmp_path / "set"))
    assert report.manifest.accounting["rejected"] == 0


def _fill(num_bytes: int) -> int:
    filled = bytearray(b"x") * num_bytes
    time.sleep(0.3)
    return len(filled)


def _give_up() -> None:
    os._exit(3)
