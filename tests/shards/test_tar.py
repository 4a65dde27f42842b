import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.error import ShardError
from shards.tar import BLOCK, TarWriter, header, headers, read_members


@given(
    st.from_regex(r"[A-Za-z0-9_-]{1,60}\.(fgbg|mask)\.(jpg|png)", fullmatch=True),
    st.integers(0, 8**11 - 1),
)
def test_a_header_is_the_one_tarfile_writes(name: str, size: int) -> None:
    """The independent reference is the standard library, less the device fields it fills."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    assert header(name, size) == info.tobuf(format=tarfile.USTAR_FORMAT)


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[A-Za-z0-9_-]{1,90}\.(jpg|json)", fullmatch=True),
            st.integers(0, 8**11 - 1),
        ),
        min_size=1,
    )
)
def test_headers_made_together_are_the_ones_made_one_by_one(members: list[tuple[str, int]]) -> None:
    names = [name.encode() for name, _ in members]
    together = headers(names, np.array([size for _, size in members]))
    assert together.tobytes() == b"".join(header(name, size) for name, size in members)


@pytest.mark.parametrize(("name", "size"), [(b"a" * 100, 1), (b"a", 8**11)])
def test_headers_made_together_refuse_what_one_alone_refuses(name: bytes, size: int) -> None:
    with pytest.raises(ShardError, match="rename the source member"):
        headers([b"fine", name], np.array([1, size]))


@pytest.mark.parametrize("name", ["a" * 100, "two words.jpg", "grün.jpg", "w?.jpg"])
def test_a_name_that_readers_would_stumble_over_is_refused(name: str) -> None:
    with pytest.raises(ShardError, match="rename the source member"):
        header(name, 1)


def test_offsets_point_at_the_bytes_and_the_end_is_regular(tmp_path: Path) -> None:
    members = {"a.jpg": b"x" * 513, "b.json": b"", "c.png": b"y" * 1024}
    with TarWriter(tmp_path / "t.tar") as tar:
        offsets = {name: tar.add(name, content) for name, content in members.items()}
    data = (tmp_path / "t.tar").read_bytes()
    for name, content in members.items():
        assert offsets[name] % BLOCK == 0
        assert data[offsets[name] : offsets[name] + len(content)] == content
    assert len(data) == tar.size_bytes
    assert len(data) % tarfile.RECORDSIZE == 0
    assert dict(read_members(tmp_path / "t.tar")) == members
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == list(members)


def test_a_file_that_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "backgrounds.tar").write_bytes(b"no tar at all")
    with pytest.raises(ShardError, match=r"backgrounds\.tar cannot be read"):
        list(read_members(tmp_path / "backgrounds.tar"))
