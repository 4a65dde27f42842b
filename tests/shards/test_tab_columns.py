"""Relation files: columns at once where a file is regular, line by line where it is not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.archive import FolderArchive
from shards.error import ShardError
from shards.layouts import matching
from shards.members import Member, MemberTable
from shards.triplet import Members

CELLS = st.text("ab./_\u00e9 \x0b\x85", max_size=3)
LINES = st.lists(CELLS, min_size=2, max_size=4).map("\t".join)


def members_of(folder: Path, *contents: bytes) -> Members:
    rows = []
    for number, content in enumerate(contents):
        (folder / f"{number}.txt").write_bytes(content)
        rows.append(Member(f"{number}.txt", len(content), -1, -1, len(content), 0, False))
    return Members([FolderArchive(folder, "folder", MemberTable.of(rows))])


def read(folder: Path, *contents: bytes) -> list[list[str]] | str:
    """The columns, or the error."""
    try:
        return matching.tab_columns(members_of(folder, *contents), range(len(contents)), fields=3)
    except ShardError as error:
        return str(error)


@given(lines=st.lists(LINES, max_size=4), end=st.sampled_from(["", "\n", "\r\n", "\n\n", "\t"]))
def test_columns_are_what_line_by_line_reading_gives(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str
) -> None:
    content = ("\n".join(lines) + end).encode()
    folder = tmp_path_factory.mktemp("files")
    found = read(folder, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "_is_regular", lambda *_: False)
        assert read(folder, content) == found


def test_a_regular_file_is_read_at_once_and_files_follow_upon_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "_rows", lambda *_: pytest.fail("read line by line"))
    found = read(tmp_path, b"a\tb\tc\nd\te\tf\n", b"g\th\ti\n")
    assert found == [["a", "d", "g"], ["b", "e", "h"], ["c", "f", "i"]]


@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        (b"a\tb\tc\nd\te\n", "line 2 has 2 fields instead of 3"),
        (b"a\tb\tc\td\te\tf\n", "line 1 has 6 fields instead of 3"),
        (b"a\tb\tc\n" + b"x" * 5000 + b"\tb\tc\n", "line 2 is too long"),
        (b"a\tb\t\xff\n", "cannot be read"),
    ],
)
def test_an_irregular_file_is_refused_by_line(tmp_path: Path, content: bytes, trouble: str) -> None:
    found = read(tmp_path, content)
    assert isinstance(found, str)
    assert trouble in found
    assert "folder: 0.txt" in found
