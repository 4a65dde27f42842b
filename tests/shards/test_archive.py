import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.archive import MemberError, ZipArchive, open_sources, open_zip
from shards.error import ShardError


def make_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def content_of(archive: ZipArchive) -> dict[str, bytes]:
    return {member.name: archive.read(member) for member in archive.members}


@given(
    members=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40),
        st.binary(min_size=1, max_size=300),
        max_size=8,
    ),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
def test_members_are_the_ones_zipfile_sees(
    tmp_path_factory: pytest.TempPathFactory, members: dict[str, bytes], method: int
) -> None:
    path = make_zip(tmp_path_factory.mktemp("zip") / "a.zip", members, method)
    with zipfile.ZipFile(path) as reference:
        expected = {name: reference.read(name) for name in reference.namelist()}
    archive = open_zip(path, "a.zip")
    assert content_of(archive) == expected
    archive.close()


def test_a_zip64_archive_with_a_program_before_it_is_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("a.jpg", "w", force_zip64=True) as f:
        f.write(b"image")
    path = tmp_path / "a.zip"
    path.write_bytes(b"#!/bin/sh\n" + buffer.getvalue())
    assert content_of(open_zip(path, "a.zip")) == {"a.jpg": b"image"}


@given(st.lists(st.sampled_from([b"a", b"PK\1\2", b"PK\1\2" + bytes(60), b"PK\5\5"]), max_size=6))
def test_signatures_inside_names_and_comments_are_no_entries(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    """The directory is listed by its signatures, and whatever looks like one may lie in it."""
    path = tmp_path_factory.mktemp("zip") / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, piece in enumerate(pieces):
            info = zipfile.ZipInfo(f"{number} {piece.decode('ascii')}".replace("\0", "."))
            info.comment = piece + b"PK\1\2"
            archive.writestr(info, piece)
    with zipfile.ZipFile(path) as reference:
        expected = {name: reference.read(name) for name in reference.namelist()}
    archive_ = open_zip(path, "a.zip")
    assert content_of(archive_) == expected
    archive_.close()


def test_a_directory_longer_than_a_block_is_listed_whole(tmp_path: Path) -> None:
    """Entries of every length straddle the borders at which it is read."""
    names = [f"{number}{'x' * (number * 7919 % 300)}" for number in range(9_000)]
    path = make_zip(tmp_path / "a.zip", dict.fromkeys(names, b"."))
    listed = open_zip(path, "a.zip").members
    assert listed.names == names
    assert [member.name for member in listed[10:13]] == names[10:13]
    assert listed[-1].name == names[-1]


def test_a_folder_gives_its_zips_and_its_loose_files(tmp_path: Path) -> None:
    (tmp_path / "Background").mkdir()
    (tmp_path / "Background" / "bg1.jpg").write_bytes(b"one")
    (tmp_path / "labels.txt").write_bytes(b"labels")
    make_zip(tmp_path / "part1.zip", {"a": b"a"})
    loose, part = open_sources([tmp_path])
    assert [member.name for member in loose.members] == ["Background/bg1.jpg", "labels.txt"]
    assert loose.read(loose.members[0]) == b"one"
    assert part.name == "part1.zip"


def test_among_several_sources_a_folder_brings_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "Background" / "more").mkdir(parents=True)
    (tmp_path / "Background" / "more" / "bg1.jpg").write_bytes(b"one")
    (tmp_path / "labels.txt").write_bytes(b"labels")
    part = make_zip(tmp_path / "part1", {"a": b"a"})  # a zip by what is in it
    found = open_sources([tmp_path / "Background", tmp_path / "labels.txt", part])
    contents = {
        member.name: archive.read(member) for archive in found for member in archive.members
    }
    assert contents == {"Background/more/bg1.jpg": b"one", "labels.txt": b"labels", "a": b"a"}


def test_sources_are_ordered_by_name_and_not_by_argument(tmp_path: Path) -> None:
    paths = [make_zip(tmp_path / f"{name}.zip", {name: b"x"}) for name in "ab"]
    one, other = open_sources(paths), open_sources(paths[::-1])
    assert [archive.digest for archive in one] == [archive.digest for archive in other]


def patched(offset: int, value: bytes) -> Callable[[bytearray], None]:
    def patch(data: bytearray) -> None:
        data[offset : offset + len(value)] = value

    return patch


def in_both_headers(in_local: int, in_central: int, value: bytes) -> Callable[[bytearray], None]:
    def patch(data: bytearray) -> None:
        patched(in_local, value)(data)
        in_directory(in_central, value)(data)

    return patch


def in_directory(offset: int, value: bytes) -> Callable[[bytearray], None]:
    def patch(data: bytearray) -> None:
        at = data.index(b"PK\1\2") + offset
        data[at : at + len(value)] = value

    return patch


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (patched(14, b"\0\0\0\0"), None),  # the local CRC is not what we trust
        (patched(0, b"XX"), "no local header"),
        (patched(32, b"!"), "CRC-32"),
        (in_directory(8, b"\1\0"), "encrypted"),
        (in_both_headers(8, 10, b"\x0c\0"), "compression method 12"),
        (in_directory(10, b"\x0c\0"), "another compression"),
        (in_directory(24, struct.pack("<L", 1 << 30)), "declares 1073741824 bytes"),
        (in_directory(24, struct.pack("<L", 0)), "is empty"),
        (in_both_headers(22, 24, struct.pack("<L", 3)), "CRC-32"),
    ],
)
def test_a_damaged_member_is_refused_by_reason(
    tmp_path: Path, damage: Callable[[bytearray], None], found: str | None
) -> None:
    path = make_zip(tmp_path / "a.zip", {"a": b"0123456789"})
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    archive = open_zip(path, "a.zip")
    if found is None:
        assert archive.read(archive.members[0]) == b"0123456789"
        return
    with pytest.raises(MemberError, match=found):
        archive.read(archive.members[0])


def test_a_bomb_is_not_unpacked_past_its_declaration(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a": bytes(10_000_000)}, zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    in_both_headers(22, 24, struct.pack("<L", 100))(data)
    path.write_bytes(data)
    archive = open_zip(path, "a.zip")
    with pytest.raises(MemberError, match="CRC-32"):
        archive.read(archive.members[0])


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda data: data[: len(data) // 2], "is no zip, or its end is missing"),
        (lambda _: b"not a zip", "is no zip"),
        (lambda data: data[:-22] + patched_end(data, 4, b"\1\0"), "one part of a zip split"),
        (lambda data: data[:-22] + patched_end(data, 10, b"\xff\x00"), "does not fit the file"),
        (lambda data: data[:-22] + patched_end(data, 16, b"\xff\xff\xff\x7f"), "does not fit"),
    ],
)
def test_a_damaged_directory_is_an_error_that_names_the_file(
    tmp_path: Path, damage: Callable[[bytes], bytes], found: str
) -> None:
    path = make_zip(tmp_path / "a.zip", {"a": b"0123456789" * 9})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ShardError, match=found) as error:
        open_zip(path, "a.zip")
    assert str(path) in str(error.value)


def patched_end(data: bytes, offset: int, value: bytes) -> bytes:
    end = bytearray(data[-22:])
    end[offset : offset + len(value)] = value
    return bytes(end)


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a": b"x" * 50, "b": b"x" * 50})
    data = bytearray(path.read_bytes())
    second = data.rindex(b"PK\1\2")
    data[second + 42 : second + 46] = struct.pack("<L", 0)
    path.write_bytes(data)
    with pytest.raises(ShardError, match="overlaps"):
        open_zip(path, "a.zip")


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"nowhere\.zip does not exist"):
        open_sources([tmp_path / "nowhere.zip"])
