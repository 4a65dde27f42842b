"""What is written is there, whatever the disk and the file system make of it."""

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards import disk_file
from shards.disk_file import DiskFile

BUFFER = 8192


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_file, "_WRITE_BYTES", BUFFER)
    monkeypatch.setattr(disk_file, "_BUFFER_BYTES", BUFFER)
    monkeypatch.setattr(disk_file, "_spare", [])


def write(path: Path, pieces: list[bytes]) -> None:
    file = DiskFile(path)
    try:
        for piece in pieces:
            changing = bytearray(piece)
            file.write(memoryview(changing))
            changing[:] = bytes(len(changing))
        file.finish()
    finally:
        file.close()


def content(length: int) -> bytes:
    return bytes(n * 7 % 251 for n in range(length))


@given(
    pieces=st.lists(
        st.tuples(st.integers(0, 3 * BUFFER), st.integers(0, 3 * BUFFER), st.booleans()), max_size=8
    )
)
def test_reserved_memory_is_written_as_far_as_it_is_appended(
    pieces: list[tuple[int, int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also where the first try was for another size, or where a copy comes between."""
    path, expected = tmp_path_factory.getbasetemp() / "reserved", b""
    file = DiskFile(path)
    try:
        for tried, length, is_copied in pieces:
            file.reserve(tried)[:] = b"x" * tried
            if is_copied:
                file.write(memoryview(content(length)))
            else:
                file.reserve(length)[:] = content(length)
                file.append(length)
            expected += content(length)
        file.finish()
    finally:
        file.close()
    assert path.read_bytes() == expected


@given(lengths=st.lists(st.integers(0, 3 * BUFFER), max_size=6))
def test_pieces_of_any_length_end_up_one_after_the_other(
    lengths: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-length"
    pieces = [content(length) for length in lengths]
    write(path, pieces)
    assert path.read_bytes() == b"".join(pieces)


def test_a_process_takes_the_memory_of_two_buffers_once(tmp_path: Path) -> None:
    disk_file.prepare()
    memory = {*map(id, disk_file._spare)}
    for number in range(3):
        write(tmp_path / f"{number}", [content(BUFFER - number)])
        assert {*map(id, disk_file._spare)} == memory
        assert (tmp_path / f"{number}").read_bytes() == content(BUFFER - number)


def no_direct_files(monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & disk_file._DIRECT:
            raise OSError(errno.EINVAL, "no such flag here")
        return original(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)


def no_direct_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.pwrite

    def refuse(file: int, data: memoryview, at: int) -> int:
        if fcntl.fcntl(file, fcntl.F_GETFL) & disk_file._DIRECT:
            raise OSError(errno.EINVAL, "not so")
        return original(file, data, at)

    monkeypatch.setattr(os, "pwrite", refuse)


def writes_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one begins at a place that no direct write may."""
    original = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: original(file, data[:1000], at))


@pytest.mark.parametrize("fault", [no_direct_files, no_direct_writes, writes_cut_short])
def test_where_the_page_cache_cannot_be_passed_it_is_used(
    fault: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    write(tmp_path / "file", [content(BUFFER * 3 + 17)])
    assert (tmp_path / "file").read_bytes() == content(BUFFER * 3 + 17)


def test_it_is_synced_after_the_last_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = os.fsync

    def sync(file: int) -> None:
        sizes.append(os.fstat(file).st_size)
        original(file)

    monkeypatch.setattr(os, "fsync", sync)
    write(tmp_path / "file", [content(BUFFER + 5)])
    assert sizes == [BUFFER + 5]


@pytest.mark.parametrize("lengths", [[BUFFER, 1, BUFFER], [BUFFER]])
def test_what_kept_the_disk_from_following_is_not_forgotten(
    lengths: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system tells a failed write once: the last sync would succeed over a hole."""

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "the disk failed")

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError, match="the disk failed"):
        write(tmp_path / "file", [content(length) for length in lengths])
    assert not [t for t in threading.enumerate() if t.name.startswith("maskdepth-disk")]
