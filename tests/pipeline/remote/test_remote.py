"""A remote folder gives files that are whole, or says in one line why not."""

import errno
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.error import LoaderError
from pipeline.remote.folder import FetchError, RemoteConfig, RemoteFolder, is_remote
from shards.manifest import FileRecord

CONTENT = bytes(range(256)) * 400
RECORD = FileRecord(bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())
QUICK = RemoteConfig(retries=3, backoff_s=0.5, timeout_s=1.0)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, which take no time."""
    found: list[float] = []
    monkeypatch.setattr("pipeline.remote.folder._sleep", lambda seconds, _: found.append(seconds))
    return found


@pytest.fixture
def folder(web: Any) -> RemoteFolder:
    """One file behind a web server."""
    (web.folder / "shard.tar").write_bytes(CONTENT)
    return RemoteFolder(web.url, QUICK)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    path = tmp_path / "part"
    path.touch()
    return path


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("s3://bucket/set", True),
        ("https://host/set", True),
        ("FILE:///set", True),
        ("sets/a", False),
        ("/data/s3:/x", False),
        ("C:/set", False),
    ],
)
def test_a_url_is_told_from_a_path(location: str, expected: bool) -> None:
    assert is_remote(location) == expected


def test_a_file_arrives_whole_at_the_first_try(folder: RemoteFolder, web: Any, into: Path) -> None:
    folder.fetch("shard.tar", into, RECORD)
    assert into.read_bytes() == CONTENT
    assert web.fetched == ["shard.tar"]


@pytest.mark.parametrize("fault", ["hang", "wrong", "cut", "503", "403"])
def test_a_fault_is_tried_again_after_waits_that_double(
    folder: RemoteFolder, web: Any, into: Path, waits: list[float], fault: str
) -> None:
    web.faults["shard.tar"] = [fault] * 3
    folder.fetch("shard.tar", into, RECORD)
    assert into.read_bytes() == CONTENT
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("hang", "nothing arrived for 1 s"),
        ("wrong", "another SHA-256"),
        ("cut", "payload|shorter"),
        ("503", "503"),
    ],
)
def test_a_fault_that_stays_is_told_with_the_number_of_tries(
    folder: RemoteFolder, web: Any, into: Path, waits: list[float], fault: str, told: str
) -> None:
    web.faults["shard.tar"] = [fault] * 4
    with pytest.raises(FetchError, match=rf"(?i)({told}).*, tried 4 times$"):
        folder.fetch("shard.tar", into, RECORD)
    assert len(waits) == 3


def test_a_file_that_is_not_there_is_not_tried_again(
    folder: RemoteFolder, into: Path, waits: list[float]
) -> None:
    with pytest.raises(FetchError, match="it is not there"):
        folder.fetch("other.tar", into, RECORD)
    assert not waits


def test_a_slow_file_is_waited_for_as_long_as_something_arrives(
    into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time-out is for silence, not for the whole: shards are large and lines are slow."""
    folder = RemoteFolder("http://127.0.0.1:1", QUICK)

    async def drip(_: str, path: str, **__: object) -> None:
        import asyncio

        with Path(path).open("wb", buffering=0) as file:
            for at in range(0, len(CONTENT), len(CONTENT) // 8):
                await asyncio.sleep(0.15)
                file.write(CONTENT[at : at + len(CONTENT) // 8])

    monkeypatch.setattr(folder._files, "_get_file", drip)
    folder.fetch("shard.tar", into, RECORD)
    assert into.read_bytes() == CONTENT


def test_a_fetch_that_nobody_waits_for_ends_at_once(
    folder: RemoteFolder, web: Any, into: Path
) -> None:
    patient = RemoteFolder(web.url, RemoteConfig(timeout_s=60))
    web.faults["shard.tar"] = ["hang"]
    began = time.monotonic()
    with pytest.raises(FetchError, match="nobody waits"):
        patient.fetch("shard.tar", into, RECORD, cancelled=lambda: True)
    assert time.monotonic() - began < 2


def test_a_full_disk_is_no_fault_of_the_remote_and_is_not_tried_again(
    into: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = RemoteFolder("memory://somewhere", QUICK)
    monkeypatch.setattr(folder._files, "get_file", full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        folder.fetch("shard.tar", into, RECORD)
    assert not waits


def test_sizes_are_compared_without_reading_a_file(folder: RemoteFolder, web: Any) -> None:
    (web.folder / "cut.tar").write_bytes(CONTENT[:-81])
    records = dict.fromkeys(["shard.tar", "cut.tar", "gone.tar"], RECORD)
    assert folder.size_faults(records) == [
        "cut.tar is 81 bytes shorter than the manifest says",
        "gone.tar cannot be had: it is not there",
    ]
    assert "shard.tar" not in web.fetched


def test_where_a_protocol_lists_sizes_no_file_is_asked_for_singly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = MemoryFileSystem()
    for number in range(3):
        files.pipe_file(f"/sizes/{number}.tar", CONTENT[number:])
    monkeypatch.delattr(MemoryFileSystem, "info")
    folder = RemoteFolder("memory://sizes", QUICK)
    assert folder.size_faults({f"{i}.tar": RECORD for i in range(3)}) == [
        "1.tar is 1 bytes shorter than the manifest says",
        "2.tar is 2 bytes shorter than the manifest says",
    ]


@pytest.mark.parametrize(("url", "extra"), [("s3://b/s", "s3"), ("gs://b/s", "gs")])
def test_a_protocol_whose_package_is_missing_names_the_extra(
    url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        msg = "Install something to access this"
        raise ImportError(msg)

    monkeypatch.setattr("pipeline.remote.folder.url_to_fs", missing)
    with pytest.raises(LoaderError, match=rf"{url} needs .*; install .* \[{extra}\]"):
        RemoteFolder(url, QUICK)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(LoaderError, match=r"s4://b/s cannot be opened .*give s3://"):
        RemoteFolder("s4://b/s", QUICK)


@pytest.mark.parametrize(
    ("name", "value"),
    [("cache_gb", 0), ("timeout_s", -1), ("fetches", 0), ("retries", -1), ("backoff_s", -0.1)],
)
def test_an_impossible_configuration_is_refused_naming_the_value(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"remote {name} is {value}; it must be"):
        RemoteConfig(**{name: value})  # type: ignore[arg-type]
