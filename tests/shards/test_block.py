import io
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.block import Block, BlockMaker
from shards.options import ConvertConfig
from shards.reading import read_sources
from shards.repair import DepthStorage
from shards.task import ShardTask, sample_tasks

USUAL = "usual"
ODDITIES = {
    "deflated": lambda m: setattr(m, "method", 8),
    "extra": lambda m: setattr(m, "local_extra", b"UT" + bytes(26)),
    "long extra": lambda m: setattr(m, "local_extra", bytes(700)),
    "streamed": lambda m: m.local.update(crc=0, size=0, stored_size=0),
    "other name": lambda m: m.local.update(name_bytes=len(m.name) - 1),
    "other method": lambda m: m.local.update(method=8),
    "no header": lambda m: m.local.update(signature=b"PK\1\2"),
    "wrong crc": lambda m: m.both(crc=7),
    "encrypted": lambda m: m.both(flags=1),
    "png": lambda m: setattr(m, "content", recoded(m.content, "PNG")),
    "colour png": lambda m: setattr(m, "content", recoded(m.content, "PNG", "RGB")),
    "colour jpeg": lambda m: setattr(m, "content", recoded(m.content, "JPEG", "RGB")),
    "grey jpeg": lambda m: setattr(m, "content", recoded(m.content, "JPEG", "L")),
    "progressive": lambda m: setattr(m, "content", recoded(m.content, "JPEG", progressive=True)),
    "other size": lambda m: setattr(m, "content", recoded(m.content, "JPEG", size=(40, 32))),
    "cut": lambda m: setattr(m, "content", m.content[: len(m.content) // 2]),
    "no image": lambda m: setattr(m, "content", b"no image at all" * 20),
    "empty": lambda m: setattr(m, "content", b""),
}  # fmt: skip


def recoded(
    content: bytes, kind: str, mode: str | None = None, size: tuple[int, int] = (32, 32), **how: Any
) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        changed = image.convert(mode or image.mode).resize(size)
    buffer = io.BytesIO()
    changed.save(buffer, kind, **how)
    return buffer.getvalue()


def shard_task(path: Path, check: str) -> ShardTask:
    reading = read_sources(ConvertConfig(sources=(path,), out=path.parent / "set"))
    return ShardTask(
        out=path.parent,
        work=path.parent,
        name="train-000000",
        samples=sample_tasks(reading.triplets, reading.members, {}, {}),
        archives=reading.members.archives,
        image_size=(32, 32),
        depth=DepthStorage(encoding="grey", frame=None),
        check=check,
        counted=frozenset({2, 11, 23}),
        mean_depth=True,
    )


def told(block: Block) -> dict[str, Any]:
    return {
        "data": bytes(block.data),
        "samples": block.samples,
        "names": block.names,
        "offsets": block.offsets.tolist(),
        "sizes": block.sizes.tolist(),
        "crcs": block.crcs.tolist(),
        "repaired": list(block.num_repaired),
        "rejected": sorted(block.rejected, key=lambda line: line["key"]),
    }


def memory(num_bytes: int) -> memoryview:
    return memoryview(bytearray(num_bytes))


def blocks(task: ShardTask, step: int, *, one_by_one: bool) -> list[dict[str, Any]]:
    counted: list[list[bytes]] = []
    maker = BlockMaker(
        task, memory, lambda images: counted.append([each.tobytes() for each in images])
    )
    if one_by_one:
        maker._usual[:] = False
    num = len(task.samples)
    made = [told(maker.make(at, min(at + step, num))) for at in range(0, num, step)]
    made[-1]["counted"] = sorted(counted)
    for archive in task.archives:
        archive.close()
    return made


@pytest.mark.parametrize("check", ["none", "headers", "strict"])
@pytest.mark.parametrize("seed", range(20))
def test_a_block_holds_what_its_members_hold_read_one_by_one(
    check: str,
    seed: int,
    tiny: dict[str, bytes],
    forged: type[Any],
    pack: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    """Reading members straight into place is quicker, and may never be anything else."""
    chance, members = random.Random(seed), []
    everywhere = chance.choice([USUAL] * 4 + ["deflated", "extra", "long extra", "png"])
    share = chance.choice([0.03, 0.2, 0.8])
    for name, content in tiny.items():
        member = forged(name.encode(), content)
        if "/bg_fg" in name:
            own = chance.choice(sorted(ODDITIES)) if chance.random() < share else USUAL
            for oddity in dict.fromkeys([everywhere, own]):
                ODDITIES.get(oddity, lambda _: None)(member)
        members.append(member)
    path = tmp_path / "source.zip"
    path.write_bytes(pack(members))
    task, step = shard_task(path, check), chance.choice([1, 5, 24])
    quick, slow = (blocks(task, step, one_by_one=one_by_one) for one_by_one in (False, True))
    for one, other in zip(quick, slow, strict=True):
        assert (one["rejected"], one["samples"]) == (other["rejected"], other["samples"])
        for name in one:
            assert one[name] == other[name], name


def test_members_of_a_block_are_the_bytes_of_the_source(
    tiny: dict[str, bytes], forged: type[Any], pack: Callable[..., bytes], tmp_path: Path
) -> None:
    path = tmp_path / "source.zip"
    path.write_bytes(pack([forged(name.encode(), content) for name, content in tiny.items()]))
    task = shard_task(path, "none")
    maker = BlockMaker(task, memory, lambda _: None)
    assert maker._usual.all()
    block = maker.make(3, 20)
    assert maker._usual.all(), "nothing was read a second time"
    assert block.samples == list(range(3, 20))
    for row, number in enumerate(block.samples):
        for part in range(3):
            content = tiny[task.samples.member(number, part).name]
            begin = int(block.offsets[row, part])
            assert block.data[begin : begin + len(content)] == content
            assert block.crcs[row, part] == zlib.crc32(content)
    maker._task.archives[0].close()


def test_an_extra_field_is_learned_once_and_then_expected(
    tiny: dict[str, bytes], forged: type[Any], pack: Callable[..., bytes], tmp_path: Path
) -> None:
    """Info-ZIP writes 28 bytes before every member, and its archives are the usual ones."""
    path = tmp_path / "source.zip"
    path.write_bytes(
        pack([forged(name.encode(), content, local_extra=bytes(28))
              for name, content in tiny.items()])
    )  # fmt: skip
    maker = BlockMaker(shard_task(path, "none"), memory, lambda _: None)
    for first in range(0, 24, 6):
        maker.make(first, first + 6)
    assert maker._usual.all()
    assert np.array_equal(maker._direct._extra, [28])
    maker._task.archives[0].close()


def test_a_source_that_changes_while_it_is_read_is_rejected_by_name(
    tiny: dict[str, bytes], forged: type[Any], pack: Callable[..., bytes], tmp_path: Path
) -> None:
    path = tmp_path / "source.zip"
    content = pack([forged(name.encode(), content) for name, content in tiny.items()])
    path.write_bytes(content)
    task = shard_task(path, "none")
    path.write_bytes(content[: len(content) // 2])
    found = blocks(task, 24, one_by_one=False)[0]
    assert 0 < len(found["samples"]) < 24
    assert len(found["rejected"]) == 24 - len(found["samples"])
    assert all("bg_fg" in line["member"] for line in found["rejected"])


@pytest.mark.parametrize(("check", "is_refused"), [("none", False), ("headers", True)])
def test_damaged_tables_before_the_first_scan_are_seen_by_who_checks_headers(
    check: str,
    is_refused: bool,
    tiny: dict[str, bytes],
    forged: type[Any],
    pack: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    members = []
    for name, content in tiny.items():
        at = content.find(b"\xff\xc4") + 5  # how many codes have one bit, in the first table
        harmed = content[:at] + b"\xff" + content[at + 1 :] if "/bg_fg/" in name else content
        members.append(forged(name.encode(), harmed))
    path = tmp_path / "source.zip"
    path.write_bytes(pack(members))
    found = blocks(shard_task(path, check), 24, one_by_one=False)[0]
    assert len(found["rejected"]) == (24 if is_refused else 3)  # three are counted: decoded


@pytest.mark.parametrize(("check", "num_refused"), [("none", 3), ("headers", 3), ("strict", 24)])
def test_a_jpeg_of_too_many_scans_is_never_decoded(
    check: str,
    num_refused: int,
    tiny: dict[str, bytes],
    forged: type[Any],
    pack: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    """A comment may hold the mark as well: it is enough that the mark is there too often."""
    comment = b"\xff\xfe\0\xcc" + 101 * b"\xff\xda"
    members = [
        forged(name.encode(), content[:2] + comment + content[2:] if "_mask/" in name else content)
        for name, content in tiny.items()
    ]
    path = tmp_path / "source.zip"
    path.write_bytes(pack(members))
    found = blocks(shard_task(path, check), 24, one_by_one=False)[0]
    assert len(found["rejected"]) == num_refused  # three are counted: decoded
    assert all("102 scans" in line["reason"] for line in found["rejected"])
