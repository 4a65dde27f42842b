"""Archives made to harm: each is refused, or its member rejected by name, in bounded memory."""

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from shards.archive import MAX_MEMBER_BYTES, MemberError, open_sources, open_zip
from shards.convert import convert
from shards.error import ShardError
from shards.imagery import ImageError, decode, read_header
from shards.manifest import read_manifest
from shards.options import ConvertConfig
from shards.tar import read_members

ROOT = "modest_museum_dataset"
VICTIM = f"{ROOT}/bg_fg/bg001_fg001_01.jpeg"
KEY = "bg001_fg001_01"
SAMPLES = 24
MEMBERS = {"fgbg": "bg_fg/{}.jpeg", "mask": "bg_fg_mask/{}_mask.jpeg",
           "depth": "bg_fg_depth_map/{}_depth_map.jpeg"}  # fmt: skip

Members = list[Any]
"""Of `Forged`, from the conftest."""
Poison = Callable[[Members], None]
Measure = Callable[[], AbstractContextManager[list[int]]]


@dataclass
class Outcome:
    """What a conversion of a poisoned archive came to."""

    error: str | None
    out: Path
    growth_bytes: int
    rejected: list[tuple[str, str]] = field(default_factory=list)
    """Key and reason of each line of the list."""


@pytest.fixture
def members(tiny: dict[str, bytes], forged: type[Any]) -> Members:
    return [forged(name.encode(), content) for name, content in tiny.items()]


@pytest.fixture
def attempt(
    tmp_path: Path, peak_over: Measure, tiny: dict[str, bytes]
) -> Callable[[bytes], Outcome]:
    """Convert a zip of these bytes; whatever it holds, some promises must be kept."""

    def run(archive: bytes, max_rejected: int = 50) -> Outcome:
        source = tmp_path / "source" / "data.zip"
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(archive)
        out = tmp_path / "set"
        before = tree(tmp_path, leave_out=out)
        config = ConvertConfig(
            sources=(source,), out=out, processes=1, samples_per_shard=10, max_rejected=max_rejected
        )
        error = None
        with peak_over() as growth:
            try:
                convert(config)
            except ShardError as caught:
                error = str(caught)
        assert tree(tmp_path, leave_out=out) == before, "something was written outside the set"
        assert error is None or "\n" not in error
        assert error is None or error.isprintable(), "an error must not steer the terminal"
        outcome = Outcome(error, out, growth[0])
        listed = out / "rejected.jsonl"
        if listed.exists():
            lines = [json.loads(line) for line in listed.read_text("utf-8").splitlines()]
            outcome.rejected = [(line["key"], line["reason"]) for line in lines]
            assert all(json.dumps(line, ensure_ascii=False).encode() for line in lines)
        if error is None:
            check_set(out, tiny)
        return outcome

    return run


def tree(folder: Path, leave_out: Path) -> dict[str, int]:
    """Every file below with its time of change, and every folder."""
    return {
        str(path): 0 if path.is_dir() else path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if not path.is_relative_to(leave_out)
    }


def check_set(out: Path, tiny: dict[str, bytes]) -> None:
    """Every image of the set is byte for byte one of the source's, and all members have a fate."""
    manifest = read_manifest(out)
    accounting = dict(manifest.accounting)
    assert accounting.pop("members") == sum(accounting.values())
    for shard in manifest.shards:
        for name, content in read_members(out / f"{shard.name}.tar"):
            if not name.endswith(".json"):
                key, component, _ = name.split(".")
                assert content == tiny[f"{ROOT}/{MEMBERS[component].format(key)}"]


def samples(out: Path) -> int:
    return sum(shard.samples for shard in read_manifest(out).shards)


def victim(members: Members) -> Any:
    (found,) = (member for member in members if member.name.decode() == VICTIM)
    return found


def test_the_forger_makes_zips_that_are_none_the_worse(
    members: Members, pack: Callable[..., bytes], attempt: Callable[..., Outcome]
) -> None:
    """Otherwise every refusal below would prove nothing."""
    archive = pack(members)
    with zipfile.ZipFile(io.BytesIO(archive)) as reference:
        assert reference.testzip() is None
    outcome = attempt(archive, max_rejected=0)
    assert (outcome.error, samples(outcome.out)) == (None, SAMPLES)


@pytest.mark.parametrize(
    "name",
    [
        b"../../evil.jpeg",
        b"../set/manifest.json",
        ROOT.encode() + b"/bg_fg/../../../bg001_fg001_99.jpeg",
        b"..\\..\\evil.jpeg",
        b"/etc/evil.jpeg",
        b"\\\\server\\share\\evil.jpeg",
        b"C:\\evil.jpeg",
        ROOT.encode() + b"/bg_fg/bg001_fg001_98\0.jpeg",
        ROOT.encode() + b"/bg_fg/bg001_fg001_97\nsecond line.jpeg",
        ROOT.encode() + b"/bg_fg/bg001_fg001_96\x1b[2J.jpeg",
    ],
)
def test_a_name_that_leaves_the_archive_or_hides_is_rejected(
    name: bytes,
    members: Members,
    forged: type[Any],
    pack: Callable[..., bytes],
    attempt: Callable[..., Outcome],
    tiny: dict[str, bytes],
) -> None:
    archive = pack([forged(name, tiny[VICTIM]), *members])
    strict = attempt(archive, max_rejected=0)
    assert strict.error is not None
    assert [reason for _, reason in strict.rejected] == ["unsafe member name"]
    outcome = attempt(archive)
    assert outcome.error is None
    assert samples(outcome.out) == SAMPLES


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        (b"bg001_fg001_\xff\xfe.jpeg", 1 << 11),
        (b"bg001_fg001_\xff\xfe.jpeg", 0),
        (b"bg001_fg001_\xed\xa0\x80.jpeg", 1 << 11),  # a lone surrogate
        ("bg001_fg001_\u00e4\u202e.jpeg".encode(), 0),
    ],
)
def test_a_name_that_is_no_text_is_rejected_in_readable_form(
    name: bytes,
    flags: int,
    members: Members,
    forged: type[Any],
    pack: Callable[..., bytes],
    attempt: Callable[..., Outcome],
    tiny: dict[str, bytes],
) -> None:
    odd = forged(f"{ROOT}/bg_fg/".encode() + name, tiny[VICTIM]).both(flags=flags)
    outcome = attempt(pack([*members, odd]))
    assert outcome.error is None
    assert [reason for _, reason in outcome.rejected] == ["composite that no triplet claims"]
    assert samples(outcome.out) == SAMPLES


@pytest.mark.parametrize("flags", [0, 1 << 11])
def test_backgrounds_whose_names_are_no_text_are_converted_under_readable_ones(
    flags: int,
    members: Members,
    pack: Callable[..., bytes],
    tiny: dict[str, bytes],
    tmp_path: Path,
) -> None:
    renamed = [member for member in members if not member.name.endswith(b".txt")]
    for member in renamed:
        member.name = member.name.replace(b"bg002", b"bg\xff\xfe2")
        member.both(flags=flags)
    (tmp_path / "data.zip").write_bytes(pack(renamed))
    out = tmp_path / "set"
    config = ConvertConfig(sources=(tmp_path / "data.zip",), out=out, processes=1, val=0)
    manifest = convert(config).manifest
    assert samples(out) == SAMPLES
    odd = next(name for name in manifest.backgrounds if name != "bg001")
    assert odd.isprintable()
    contents = [content for name, content in read_members(out / "train-000000.tar")
                if ".fgbg." in name]  # fmt: skip
    assert sorted(contents) == sorted(tiny[name] for name in tiny if "/bg_fg/" in name)


def test_two_members_of_one_name_spoil_it_unless_they_are_equal(
    members: Members,
    forged: type[Any],
    pack: Callable[..., bytes],
    attempt: Callable[..., Outcome],
    tiny: dict[str, bytes],
) -> None:
    copy = attempt(pack([*members, forged(VICTIM.encode(), tiny[VICTIM])]), max_rejected=0)
    assert (copy.error, samples(copy.out)) == (None, SAMPLES)


def test_different_members_of_one_name_are_rejected(
    members: Members,
    forged: type[Any],
    pack: Callable[..., bytes],
    attempt: Callable[..., Outcome],
    tiny: dict[str, bytes],
) -> None:
    other = tiny[VICTIM.replace("_01", "_02")]
    outcome = attempt(pack([*members, forged(VICTIM.encode(), other)]))
    assert outcome.error is None
    assert samples(outcome.out) == SAMPLES - 1
    assert (KEY, "2 different members have this name") in outcome.rejected


def jpeg_header(height: int, width: int) -> bytes:
    data = bytearray(simplejpeg.encode_jpeg(np.zeros((32, 32, 3), np.uint8)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">2H", height, width)
    return bytes(data)


def png(header: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for tag, body in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        crc = zlib.crc32(tag + body)
        parts += [struct.pack(">L", len(body)), tag, body, struct.pack(">L", crc)]
    return b"".join(parts)


def png_header(height: int, width: int, depth: int = 8, colours: int = 2) -> bytes:
    return struct.pack(">2L5B", width, height, depth, colours, 0, 0, 0)


PIXELS = (b"IDAT", zlib.compress((b"\0" + bytes(96)) * 32))


def deflated_zeros(megabytes: int) -> bytes:
    """A raw deflate stream that expands a thousandfold, made without expanding it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * megabytes + packer.flush()


def replaced(content: bytes, method: int = 0) -> Poison:
    def poison(members: Members) -> None:
        victim(members).content, victim(members).method = content, method

    return poison


def declared(size: int, stored: bytes) -> Poison:
    def poison(members: Members) -> None:
        found = victim(members)
        found.stored, found.method = stored, 8
        found.both(size=size)

    return poison


def overridden(which: str, **values: object) -> Poison:
    def poison(members: Members) -> None:
        found = victim(members)
        for header in ("local", "central") if which == "both" else (which,):
            getattr(found, header).update(values)

    return poison


def zip64(size: int, *, local_extra: bytes = b"") -> Poison:
    def poison(members: Members) -> None:
        found = victim(members)
        found.extra = struct.pack("<2HQ", 1, 8, size)
        found.local_extra = local_extra
        found.central["size"] = found.local["size"] = 0xFFFFFFFF

    return poison


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (overridden("both", flags=1), "is encrypted"),
        (overridden("local", flags=1), "another compression in its own header"),
        (overridden("both", flags=1 << 6 | 1), "is encrypted"),
        (declared(MAX_MEMBER_BYTES + 1, deflated_zeros(65)), f"declares {MAX_MEMBER_BYTES + 1}"),
        (declared(1000, deflated_zeros(4000)), "does not match its CRC-32"),
        (declared(MAX_MEMBER_BYTES, deflated_zeros(4000)), "does not match its CRC-32"),
        (declared(1000, b"\xff" * 500), "cannot be decompressed"),
        (declared(1000, b""), "does not match its CRC-32"),
        (overridden("both", crc=12345), "does not match its CRC-32"),
        (overridden("both", method=14), "uses compression method 14"),
        (overridden("both", size=0), "is empty"),
        (overridden("local", name=b"x" * len(VICTIM)), "another name in its own header"),
        (overridden("local", name=VICTIM.encode()[:-1] + b"\xff"), "another name"),
        (overridden("local", name_bytes=0xFFFF), "another name"),
        (overridden("local", extra_bytes=0xFFFF), "does not match its CRC-32"),
        (overridden("local", method=8), "another compression"),
        (overridden("local", crc=12345), "another CRC-32"),
        (overridden("local", size=5), "another size"),
        (overridden("local", stored_size=5), "another size"),
        (overridden("local", signature=b"PK\1\2"), "no local header where the directory says"),
        (zip64(1 << 62), f"declares {1 << 62} bytes"),
        (zip64((1 << 63) - 1), f"declares {(1 << 63) - 1} bytes"),
        (zip64((1 << 64) - 1), f"declares {(1 << 64) - 1} bytes"),
        (replaced(jpeg_header(60_000, 60_000)), "is 60000 x 60000 px"),
        (replaced(jpeg_header(4_000, 4_000)), "is 4000 x 4000 px, the set is 32 x 32"),
        (replaced(jpeg_header(0, 32)), "JPEG header damaged"),
        (replaced(png(png_header(60_000, 60_000), PIXELS)), "is 60000 x 60000 px"),
        (replaced(png(png_header(2**31, 2**31), PIXELS)), "is 2147483648 x 2147483648 px"),
        (replaced(png(png_header(0, 32), PIXELS)), "is 32 x 0 px"),
        (
            replaced(png(png_header(32, 32), (b"IHDR", png_header(9_000, 9_000)), PIXELS)),
            "PNG has a second header",
        ),
        (replaced(png(png_header(32, 32, depth=16), PIXELS)), "16 bits a channel"),
        (replaced(png(png_header(32, 32))), "does not decode cleanly"),
        (replaced(png(png_header(32, 32), (b"IDAT", zlib.compress(b"")))), "does not decode"),
        (replaced(b"/etc/passwd"), "neither JPEG nor PNG"),
    ],
)
def test_a_poisoned_member_is_rejected_by_name_in_bounded_memory(
    poison: Poison,
    reason: str,
    members: Members,
    pack: Callable[..., bytes],
    attempt: Callable[..., Outcome],
) -> None:
    poison(members)
    outcome = attempt(pack(members))
    assert outcome.error is None
    ((key, found),) = outcome.rejected
    assert key == KEY
    assert reason in found
    assert samples(outcome.out) == SAMPLES - 1
    assert outcome.growth_bytes < 2 * MAX_MEMBER_BYTES + (32 << 20)


def put(field: str, value: int) -> Poison:
    return overridden("central", **{field: value})


def zip64_offset(value: int) -> Poison:
    def poison(members: Members) -> None:
        victim(members).extra = struct.pack("<2HQ", 1, 8, value)
        victim(members).central["offset"] = 0xFFFFFFFF

    return poison


def zip64_stored_size(value: int) -> Poison:
    def poison(members: Members) -> None:
        victim(members).extra = struct.pack("<2HQ", 1, 8, value)
        victim(members).central["stored_size"] = 0xFFFFFFFF

    return poison


def without_zip64_field(members: Members) -> None:
    victim(members).extra = struct.pack("<2H", 1, 16) + bytes(4)
    victim(members).central["size"] = 0xFFFFFFFF


def long_name(members: Members) -> None:
    victim(members).name = b"9" * 60_000


@pytest.mark.parametrize(
    ("poison", "found"),
    [
        (put("offset", 0), "overlaps what follows it"),
        (put("stored_size", 5_000), "overlaps what follows it"),
        (put("stored_size", 0x7FFFFFFF), "lies outside the file"),
        (put("offset", 0xFFFFFFFE), "lies outside the file"),
        (put("disk", 1), "one part of a zip split"),
        (put("name_bytes", 0xFFFF), "is damaged"),
        (put("extra_bytes", 0xFFFF), "is damaged"),
        (put("comment_bytes", 0xFFFF), "is damaged"),
        (put("comment_bytes", 1), "has no entry at byte"),
        (zip64_offset((1 << 63) - 1), "lies outside the file"),
        (zip64_offset((1 << 64) - 1), "lies outside the file"),
        (zip64_stored_size((1 << 64) - 1), "lies outside the file"),
        (without_zip64_field, "zip64 entry has no sizes"),
        (long_name, "a name has 60000 bytes"),
    ],
)
def test_an_archive_that_contradicts_itself_is_refused(
    poison: Poison,
    found: str,
    members: Members,
    pack: Callable[..., bytes],
    attempt: Callable[..., Outcome],
) -> None:
    poison(members)
    outcome = attempt(pack(members))
    assert outcome.error is not None
    assert found in outcome.error
    assert "data.zip" in outcome.error
    assert not outcome.out.exists()
    assert outcome.growth_bytes < 32 << 20


HUGE = (1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


@pytest.mark.parametrize(
    ("ends", "found"),
    [
        ({"end": {"disk": 3}}, "one part of a zip split"),
        ({"end": {"first_disk": 1}}, "one part of a zip split"),
        ({"locator": {"disks": 2}}, "one part of a zip split"),
        ({"end64": {"disk": 1}}, "one part of a zip split|contradict"),
        ({"end": {"here": 1}}, "does not fit the file"),
        ({"end": {"entries": 3, "here": 3}}, "members, its end says 3"),
        ({"end": {"entries": 83, "here": 83}}, "members, its end says 83"),
        ({"end": {"entries": 65535, "here": 65535}}, "does not fit the file"),
        ({"end": {"directory_bytes": 46}}, "does not fit the file"),
        ({"end": {"directory_bytes": 0xFFFFFFFF}}, "does not fit the file"),
        ({"end": {"directory_offset": 0xFFFFFFFF}}, "does not fit the file"),
        ({"end64": {}, "end": {"entries": 5, "here": 5}}, "contradict each other"),
        *[({"locator": {"offset": huge}}, "damaged|^$") for huge in HUGE],
        *[({"end64": {"entries": huge, "here": huge}}, "does not fit") for huge in HUGE],
        *[({"end64": {"directory_bytes": huge}}, "does not fit") for huge in HUGE],
        *[({"end64": {"directory_offset": huge}}, "does not fit") for huge in HUGE],
    ],
)
def test_forged_end_records_are_refused(
    ends: dict[str, Any],
    found: str,
    members: Members,
    pack: Callable[..., bytes],
    attempt: Callable[..., Outcome],
) -> None:
    outcome = attempt(pack(members, **ends))
    if outcome.error is None:
        # a locator that points nowhere is no harm where the record lies before it all the same
        assert "locator" in ends
        assert samples(outcome.out) == SAMPLES
        return
    assert any(part in outcome.error for part in found.split("|"))
    assert not outcome.out.exists()
    assert outcome.growth_bytes < 32 << 20


@pytest.mark.parametrize("length", [1, 21, 22, 60, 1000, 5000, -1, -21])
def test_a_directory_cut_short_is_refused(
    length: int,
    members: Members,
    pack: Callable[..., bytes],
    attempt: Callable[..., Outcome],
) -> None:
    """Cut at the end of the file, or (negative) a piece taken out of the directory's middle."""
    archive = pack(members)
    if length > 0:
        archive = archive[:-length]
    else:
        middle = (archive.index(b"PK\1\2") + len(archive)) // 2
        archive = archive[: middle + length] + archive[middle:]
    outcome = attempt(archive)
    assert outcome.error is not None
    assert "data.zip" in outcome.error
    assert not outcome.out.exists()


@pytest.mark.parametrize(
    "ends",
    [
        {"end64": {}},
        {"end64": {}, "prefix": b"#!/bin/sh\n" * 7},
        {"prefix": b"MZ" * 500},
        {"comment": b"a comment"},
        {"comment": b"a comment with PK\5\6 inside, and some more bytes after it"},
        {"comment": b"PK\5\6" + bytes(40)},
    ],
)
def test_what_is_odd_but_whole_is_read(
    ends: dict[str, Any],
    members: Members,
    pack: Callable[..., bytes],
    attempt: Callable[..., Outcome],
) -> None:
    outcome = attempt(pack(members, **ends), max_rejected=0)
    assert (outcome.error, samples(outcome.out)) == (None, SAMPLES)


def test_members_with_zip64_sizes_and_streamed_headers_are_read(
    members: Members, pack: Callable[..., bytes], attempt: Callable[..., Outcome]
) -> None:
    for number, member in enumerate(members):
        size = len(member.content)
        if number % 3 == 0:
            member.extra = struct.pack("<2HL2HQ", 0x7777, 4, 0, 1, 8, size)
            member.local_extra = struct.pack("<2HQQ", 1, 16, size, size)
            member.central["size"] = 0xFFFFFFFF
            member.local |= {"size": 0xFFFFFFFF, "stored_size": 0xFFFFFFFF}
        elif number % 3 == 1:
            member.both(flags=1 << 3)
            member.local |= {"size": 0, "stored_size": 0, "crc": 0}
    outcome = attempt(pack(members), max_rejected=0)
    assert (outcome.error, samples(outcome.out)) == (None, SAMPLES)


@pytest.mark.parametrize("kind", ["zip64", "wrapped", "wrong"])
def test_seventy_thousand_members_are_all_listed_or_the_count_is_refused(
    kind: str, forged: type[Any], pack: Callable[..., bytes], tmp_path: Path, peak_over: Measure
) -> None:
    """Old writers let the 16-bit count wrap; what is listed decides, never the count alone."""
    count = 70_000
    members = [forged(b"%d" % number, b"x") for number in range(count)]
    says = {"zip64": {"end64": {}}, "wrapped": {"end": {"here": 4464, "entries": 4464}},
            "wrong": {"end": {"here": 4465, "entries": 4465}}}[kind]  # fmt: skip
    path = tmp_path / "many.zip"
    path.write_bytes(pack(members, **says))
    with peak_over() as growth:
        if kind == "wrong":
            with pytest.raises(ShardError, match="lists 70000 members, its end says 4465"):
                open_zip(path, "many.zip")
        else:
            archive = open_zip(path, "many.zip")
            assert [member.name for member in archive.members[::7000]] == [
                str(number) for number in range(0, count, 7000)
            ]
            assert archive.read(archive.members[-1]) == b"x"
            archive.close()
    assert growth[0] < 400 * count + (32 << 20)


def test_more_members_than_bytes_are_refused_while_they_are_listed(
    forged: type[Any], pack: Callable[..., bytes], tmp_path: Path, peak_over: Measure
) -> None:
    """A directory of half a million entries for one byte: the zip bomb of lists."""
    entry = pack([forged(b"a", b"x")])
    body, directory = entry[:32], entry[32:-22]
    assert directory[:4] == b"PK\1\2"
    count = 60_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, count * len(directory), 32, 0)
    path = tmp_path / "list.zip"
    path.write_bytes(body + directory * count + end)
    with peak_over() as growth, pytest.raises(ShardError, match="more members than its"):
        open_zip(path, "list.zip")
    assert growth[0] < 64 << 20


def test_a_data_set_of_monstrous_images_alone_is_refused(
    members: Members, pack: Callable[..., bytes], attempt: Callable[..., Outcome]
) -> None:
    for member in members:
        if member.name.endswith(b".jpeg"):
            member.content = jpeg_header(60_000, 60_000)
    outcome = attempt(pack(members))
    assert outcome.error is not None
    assert "none of the composites tried is an image" in outcome.error
    assert outcome.growth_bytes < 64 << 20


def test_a_jpeg_of_endless_scans_is_refused_without_decoding_them() -> None:
    """Each scan of some bytes costs libjpeg a pass over the whole image."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    many = data[:last] + data[last:-2] * 5_000 + data[-2:]
    assert decode(data, read_header(data), 3).shape == (64, 64, 3)
    with pytest.raises(ImageError, match=r"JPEG of 50\d\d scans"):
        decode(many, read_header(many), 3)


@pytest.mark.parametrize("tag", [b"zTXt", b"iCCP", b"iTXt", b"acTL", b"tRNS", b"eXIf"])
def test_what_a_png_carries_beside_its_pixels_is_neither_unpacked_nor_believed(
    tag: bytes, peak_over: Measure
) -> None:
    bomb = zlib.compress(bytes(200_000_000), 1)
    body = {b"zTXt": b"k\0\0", b"iCCP": b"k\0\0", b"iTXt": b"k\0\1\0\0\0"}.get(tag, b"") + bomb
    data = png(png_header(32, 32), (tag, body), PIXELS)
    with peak_over() as growth:
        pixels = decode(data, read_header(data), 3)
    assert not pixels.any()
    assert growth[0] < 32 << 20


def test_a_folder_gives_its_readable_files_whatever_lies_beside_them(
    tmp_path: Path, tiny: dict[str, bytes]
) -> None:
    """A pipe would block whoever opens it; a name may be bytes that are no text."""
    folder = tmp_path / "folder"
    folder.mkdir()
    os.mkfifo(folder / "pipe.zip")
    os.mkfifo(folder / "pipe.jpeg")
    (folder / "broken.zip").symlink_to(tmp_path / "nowhere.zip")
    (folder / os.fsdecode(b"odd\xff.jpeg")).write_bytes(tiny[VICTIM])
    (archive,) = open_sources([folder])
    (member,) = archive.members
    assert member.name == "odd\\xff.jpeg"
    assert archive.read(member) == tiny[VICTIM]
    assert len(archive.digest) == 64
    (folder / "odd.zip").mkdir()
    (folder / "odd.zip" / "a.txt").write_bytes(b"a")
    assert [len(archive.members) for archive in open_sources([folder])] == [2]


def test_a_zip_that_vanishes_is_a_reason_and_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"content")
    opened = open_zip(path, "a.zip")
    path.unlink()
    with pytest.raises(MemberError, match="No such file"):
        opened.read(opened.members[0])
    with pytest.raises(ShardError, match=r"a\.zip cannot be read \(No such file"):
        open_zip(path, "a.zip")
