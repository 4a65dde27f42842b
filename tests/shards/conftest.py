"""Forged zips: every field of every header at the test's command, and a tiny data set to poison."""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shards.synth import SynthConfig, synthesise

LOCAL = "signature:4s version:H flags:H method:H time:H date:H crc:L stored_size:L size:L \
name_bytes:H extra_bytes:H"
CENTRAL = "signature:4s made_by:H version:H flags:H method:H time:H date:H crc:L stored_size:L \
size:L name_bytes:H extra_bytes:H comment_bytes:H disk:H internal:H external:L offset:L"
END = "signature:4s disk:H first_disk:H here:H entries:H directory_bytes:L directory_offset:L \
comment_bytes:H"
END64 = "signature:4s record_bytes:Q made_by:H version:H disk:L first_disk:L here:Q entries:Q \
directory_bytes:Q directory_offset:Q"
LOCATOR = "signature:4s disk:L offset:Q disks:L"


@dataclass
class Forged:
    """A member of a forged zip; `local` and `central` override what its headers say."""

    name: bytes
    content: bytes = b""
    method: int = 0
    stored: bytes | None = None
    """Its bytes in the zip; None: the content, by the method."""
    local: dict[str, int | bytes] = field(default_factory=dict)
    central: dict[str, int | bytes] = field(default_factory=dict)
    local_extra: bytes = b""
    extra: bytes = b""

    def both(self, **values: int) -> "Forged":
        """Override a field in both headers."""
        self.local |= values
        self.central |= values
        return self


Pack = Callable[..., bytes]
PeakOver = Callable[[], Iterator[list[int]]]


def _packed(layout: str, values: Mapping[str, object]) -> bytes:
    known = {"version": 20, "made_by": 20, **values}
    fields = [field.split(":") for field in layout.split()]
    codes = "<" + "".join(code for _, code in fields)
    return struct.pack(codes, *(known.get(name, 0) for name, _ in fields))


def _pack(
    members: Sequence[Forged],
    *,
    end: Mapping[str, int] | None = None,
    end64: Mapping[str, int] | None = None,
    locator: Mapping[str, int] | None = None,
    comment: bytes = b"",
    prefix: bytes = b"",
) -> bytes:
    """A zip; `end`, `end64` and `locator` override its end records (the latter two make them)."""
    body, directory = bytearray(), bytearray()
    for member in members:
        stored = member.stored
        if stored is None:
            stored = member.content
            if member.method == 8:
                stored = zlib.compress(member.content, 6, wbits=-15)
        common: dict[str, object] = {
            "method": member.method, "flags": 0 if member.name.isascii() else 1 << 11,
            "crc": zlib.crc32(member.content), "stored_size": len(stored),
            "size": len(member.content), "name_bytes": len(member.name),
        }  # fmt: skip
        inside = {**common, "extra_bytes": len(member.local_extra), **member.local}
        listed = {**common, "extra_bytes": len(member.extra), "offset": len(body), **member.central}
        local_name = inside.pop("name", member.name)
        assert isinstance(local_name, bytes)
        body += _packed(LOCAL, {"signature": b"PK\3\4", **inside})
        body += local_name + member.local_extra + stored
        directory += _packed(CENTRAL, {"signature": b"PK\1\2", **listed})
        directory += member.name + member.extra
    count, offset = len(members), len(body)
    true = {"here": count, "entries": count, "directory_bytes": len(directory),
            "directory_offset": offset}  # fmt: skip
    tail = b""
    if end64 is not None or locator is not None:
        large = {"signature": b"PK\6\6", "record_bytes": 44, **true, **(end64 or {})}
        where = {"offset": offset + len(directory), "disks": 1, **(locator or {})}
        tail = _packed(END64, large) + _packed(LOCATOR, {"signature": b"PK\6\7", **where})
        true = {"here": 0xFFFF, "entries": 0xFFFF, "directory_bytes": 0xFFFFFFFF,
                "directory_offset": 0xFFFFFFFF}  # fmt: skip
    small = {"signature": b"PK\5\6", **true, "comment_bytes": len(comment), **(end or {})}
    return prefix + bytes(body) + bytes(directory) + tail + _packed(END, small) + comment


@contextmanager
def _peak_over() -> Iterator[list[int]]:
    """How far the process grew meanwhile: `[bytes]`, filled at the end; counts C's memory too."""
    growth: list[int] = []
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    yield growth
    growth.append(_status("VmHWM") - before)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@pytest.fixture(scope="session")
def forged() -> type[Forged]:
    return Forged


@pytest.fixture(scope="session")
def pack() -> Pack:
    return _pack


@pytest.fixture
def peak_over() -> Callable[[], object]:
    return _peak_over


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The members of a data set of 24 triplets at 32 px: 2 backgrounds, 3 foregrounds."""
    folder = tmp_path_factory.mktemp("tiny")
    settings = SynthConfig(count=24, size=32, seed=1, num_backgrounds=2, num_foregrounds=3)
    synthesise(folder, settings)
    (path,) = folder.glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
