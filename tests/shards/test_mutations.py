"""Inputs mutated at random: no crash, hang or hoard, and no pixel that changes in silence.

What is converted is byte for byte what the (possibly mutated) source held, or rejected by name.
What is read from a mutated set is refused, or is an image that matches its CRC-32.
"""

import json
import random
import shutil
import signal
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.error import LoaderError
from pipeline.opening import open_set
from pipeline.source import BadSample, SampleSource
from shards.archive import MemberError, open_zip
from shards.convert import convert
from shards.error import ShardError
from shards.imagery import check_size, decode, read_header
from shards.manifest import BACKGROUNDS, read_manifest
from shards.options import ConvertConfig
from shards.tar import read_members
from shards.verify import Fault, verify

ROOT = "modest_museum_dataset"
FOLDERS = {"fgbg": ("bg_fg", ""), "mask": ("bg_fg_mask", "_mask"),
           "depth": ("bg_fg_depth_map", "_depth_map")}  # fmt: skip
CHANNELS = {"fgbg": 3, "mask": 1, "depth": 1}
SIZE = (32, 32)
SLOWEST_S = 10
MOST_BYTES = 512 << 20
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, 1 << 63,
         (1 << 64) - 1)  # fmt: skip


def mutate(chance: random.Random, data: bytes, begin: int = 0, end: int | None = None) -> bytes:
    """One to eight changes, all starting in `[begin, end)`; the result differs."""
    changed = bytearray(data)
    stop = len(data) if end is None else end
    while changed == data:
        for _ in range(chance.choice((1, 1, 1, 2, 8))):
            first = min(begin, len(changed) - 1)
            at = chance.randrange(first, max(first + 1, min(stop, len(changed))))
            match chance.randrange(7):
                case 0 | 1 | 2:
                    changed[at : at + 1] = bytes([changed[at] ^ 1 << chance.randrange(8)])
                case 3:
                    changed[at : at + 1] = bytes([chance.choice((0, 0xFF, chance.randrange(256)))])
                case 4:
                    width = chance.choice((2, 4, 8))
                    value = chance.choice(EDGES) & ((1 << 8 * width) - 1)
                    order = chance.choice(("little", "big"))
                    changed[at : at + width] = value.to_bytes(width, order)  # type: ignore[arg-type]
                case 5:
                    del changed[at : at + chance.randrange(1, 30)]
                case 6:
                    source = chance.randrange(len(data))
                    changed[at:at] = data[source : source + chance.randrange(1, 60)]
            if not changed:
                return b"\0"
    return bytes(changed)


def same_length(data: bytes, like: bytes) -> bytes:
    """Cut or filled up, so that only a look at the content tells."""
    return data[: len(like)].ljust(len(like), b"\0")


@dataclass
class World:
    """What there is to mutate."""

    tiny: dict[str, bytes]
    forged: type[Any]
    pack: Callable[..., bytes]
    folder: Path
    whole_set: Path
    """Converted from `tiny`."""
    numbers: list[list[int]] = field(default_factory=list)
    """Backgrounds and foregrounds of the samples of each split of the whole set."""
    outcomes: Counter[str] = field(default_factory=Counter)

    def zip(self, changes: dict[str, bytes]) -> bytes:
        """The data set with other contents, their CRCs being right."""
        members = [self.forged(n.encode(), changes.get(n, c)) for n, c in self.tiny.items()]
        return self.pack(members)

    def convert(self, archive: bytes) -> tuple[Path | None, dict[str, str]]:
        """A set from these bytes, or None; and reasons by key."""
        source, out = self.folder / "data.zip", self.folder / "set"
        source.write_bytes(archive)
        shutil.rmtree(out, ignore_errors=True)
        options: dict[str, Any] = {"processes": 1, "max_rejected": 1000, "pairing_check": False}
        try:
            convert(ConvertConfig(sources=(source,), out=out, samples_per_shard=10, **options))
        except ShardError:
            return None, {}
        lines = (out / "rejected.jsonl").read_text("utf-8").splitlines()
        return out, {line["key"]: line["reason"] for line in map(json.loads, lines)}


@pytest.fixture(scope="module")
def world(
    tiny: dict[str, bytes],
    forged: type[Any],
    pack: Callable[..., bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> World:
    made = World(tiny, forged, pack, tmp_path_factory.mktemp("mutations"), Path())
    out, rejected = made.convert(made.zip({}))
    assert out is not None
    assert not rejected
    made.whole_set = out.rename(made.folder / "whole")
    for split in ("train", "val"):
        with SampleSource([open_set(made.whole_set)], split) as source:
            made.numbers += [source.backgrounds.tolist(), source.foregrounds.tolist()]
    return made


def images(set_path: Path) -> Iterator[tuple[str, str, bytes]]:
    """Key, component and bytes of every image in the shards."""
    for shard in read_manifest(set_path).shards:
        for name, content in read_members(set_path / f"{shard.name}.tar"):
            key, component, _ = name.split(".", 2) if name.count(".") == 2 else (name, "", "")
            if component:
                yield key, component, content


def mutated_zips(chance: random.Random, world: World, count: int) -> None:
    """Headers, directory and content of the archive itself; contents betray themselves by CRC."""
    archive = world.zip({})
    known, directory = set(world.tiny.values()), archive.index(b"PK\1\2")
    for number in range(count):
        begin = chance.choice((0, directory, len(archive) - 22))
        data = mutate(chance, archive, begin)
        if number % 8 == 0:  # all the way
            out, _ = world.convert(data)
            world.outcomes["zip refused" if out is None else "zip converted"] += 1
            for _, _, content in images(out) if out else ():
                assert content in known
            continue
        path = world.folder / "a.zip"
        path.write_bytes(data)
        try:
            opened = open_zip(path, "a.zip")
        except ShardError:
            world.outcomes["zip refused"] += 1
            continue
        refused = 0
        for member in opened.members:
            try:
                assert opened.read(member) in known
            except MemberError:
                refused += 1
        opened.close()
        world.outcomes["zip members refused" if refused else "zip read"] += 1


def table_region(data: bytes) -> tuple[int, int]:
    """The quantisation tables' numbers."""
    begin = data.index(b"\xff\xdb") + 4
    return begin, begin + 65


def header_region(data: bytes) -> tuple[int, int]:
    return 0, data.index(b"\xff\xda") + 14


def scan_region(data: bytes) -> tuple[int, int]:
    return data.index(b"\xff\xda") + 14, len(data)


def mutated_jpegs(
    region: Callable[[bytes], tuple[int, int]],
) -> Callable[[random.Random, World, int], None]:
    """A fifth of a data set's images mutated in one region, with CRCs that match."""

    def run(chance: random.Random, world: World, count: int) -> None:
        names = {(Path(name).stem.removesuffix(suffix), component): name
                 for component, (folder, suffix) in FOLDERS.items()
                 for name in world.tiny if f"/{folder}/" in name}  # fmt: skip
        left = count
        while left > 0:
            # one part each, so that every image's own verdict can be seen
            keys = chance.sample(sorted({key for key, _ in names}), min(left, 8))
            chosen = {key: chance.choice(list(FOLDERS)) for key in keys}
            changes = {names[key, part]: mutate(chance, world.tiny[names[key, part]],
                                                *region(world.tiny[names[key, part]]))
                       for key, part in chosen.items()}  # fmt: skip
            left -= len(keys)
            out, rejected = world.convert(world.zip(changes))
            assert out is not None
            source = {**world.tiny, **changes}
            found = {(key, part): content for key, part, content in images(out)}
            for (key, part), content in found.items():
                assert content == source[names[key, part]], "the set holds other bytes"
                header = read_header(content)
                check_size(header, SIZE)
                assert decode(content, header, CHANNELS[part]).shape == (*SIZE, CHANNELS[part])
            for key, part in chosen.items():
                assert ((key, part) in found) != (key in rejected)
                verdict = "rejected" if key in rejected else "kept as it is, decodes strictly"
                world.outcomes[f"JPEG {region.__name__.removesuffix('_region')} {verdict}"] += 1
            assert rejected.keys() <= set(keys), "an innocent triplet was rejected"

    return run


@contextmanager
def spoilt(path: Path, content: bytes) -> Iterator[None]:
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(whole)


def mutated_set_files(pattern: str) -> Callable[[random.Random, World, int], None]:
    """Files of a finished set: `verify` finds all, the loader refuses or delivers what is right."""

    def run(chance: random.Random, world: World, count: int) -> None:
        paths = sorted(world.whole_set.glob(pattern))
        known = {zlib.crc32(content) for _, _, content in images(world.whole_set)}
        for _ in range(count):
            path = chance.choice(paths)
            whole = path.read_bytes()
            # same length more often than not, or sizes would give all away
            data = mutate(chance, whole)
            if chance.random() < 0.8 and same_length(data, whole) != whole:
                data = same_length(data, whole)
            with spoilt(path, data):
                check_verify(world.whole_set, path.name)
                read_everything(world, path.suffix, known)

    return run


def check_verify(set_path: Path, name: str) -> None:
    try:
        faults = verify(set_path, deep=False)
    except ShardError:
        faults = [Fault("manifest.json", "is refused")]
    assert name in {fault.file for fault in faults}, f"verify does not see that {name} changed"


def read_everything(world: World, suffix: str, known: set[int]) -> None:
    with pytest.raises((LoaderError, ShardError)):
        open_set(world.whole_set, verify_hashes=True)
    kind, bad, numbers = f"{suffix} ", 0, []
    try:
        opened = open_set(world.whole_set)
        for split in ("train", "val"):
            with SampleSource([opened], split) as source:
                numbers += [source.backgrounds.tolist(), source.foregrounds.tolist()]
                for number in range(source.num_samples):
                    sample = source.read(number)
                    if isinstance(sample, BadSample):
                        bad += 1
                        continue
                    assert all(zlib.crc32(image) in known for image in sample)
        for _ in read_members(world.whole_set / BACKGROUNDS):
            pass
    except (LoaderError, ShardError):
        world.outcomes[kind + "refused when opened"] += 1
        return
    if numbers != world.numbers:
        # the images are right; that a sample has another scene only the hash of its .npy tells
        world.outcomes[kind + "other backgrounds or objects"] += 1
    world.outcomes[kind + ("bad samples named" if bad else "all images right")] += 1


KINDS: dict[str, tuple[Callable[[random.Random, World, int], None], int]] = {
    "zips": (mutated_zips, 2_000),
    "jpeg headers": (mutated_jpegs(header_region), 1_500),
    "jpeg quantisation tables": (mutated_jpegs(table_region), 1_000),
    "jpeg scans": (mutated_jpegs(scan_region), 1_500),
    "npy": (mutated_set_files("*.npy"), 1_500),
    "idx": (mutated_set_files("*.idx"), 500),
    "manifests": (mutated_set_files("manifest.json"), 1_000),
    "tars": (mutated_set_files("*.tar"), 1_000),
}
"""What is mutated, and how often in the soak."""

REDUCED = 40


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    def give_up(signum: int, frame: object) -> None:
        msg = f"an input took over {seconds} s"
        raise AssertionError(msg)

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", KINDS)
def test_mutations_are_refused_or_harmless(
    kind: str, world: World, peak_over: Callable[[], AbstractContextManager[list[int]]]
) -> None:
    run, _ = KINDS[kind]
    with peak_over() as growth:
        for block in range(REDUCED // 4):
            with no_longer_than(SLOWEST_S):
                run(random.Random(f"{kind} {block}"), world, 4)
    assert growth[0] < MOST_BYTES


def test_every_other_white_space_in_a_manifest_is_a_change_that_verify_finds(world: World) -> None:
    """JSON means the same with it; but a set's files are the same bytes or damaged."""
    path = world.whole_set / "manifest.json"
    text = path.read_bytes()
    for old, new in ((b"\n", b" "), (b" ", b"\t"), (b": ", b" :"), (b"}\n", b"}")):
        with spoilt(path, text.replace(old, new, 1)):
            check_verify(world.whole_set, path.name)


@pytest.mark.soak
def test_ten_thousand_mutations_are_refused_or_harmless(
    world: World,
    peak_over: Callable[[], AbstractContextManager[list[int]]],
    soak_report: Callable[..., None],
) -> None:
    """All findings at once: an input is told by its kind and block, which is its seed."""
    findings: list[str] = []
    inputs: Counter[str] = Counter()
    world.outcomes.clear()
    slowest = 0.0
    with peak_over() as growth:
        for kind, (run, count) in KINDS.items():
            for block in range(count // 4):
                start = time.perf_counter()
                try:
                    with no_longer_than(SLOWEST_S):
                        run(random.Random(f"soak {kind} {block}"), world, 4)
                except BaseException as error:  # a finding, whatever it is; the rest goes on
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    findings.append(f"{kind} {block}: {type(error).__name__}: {error}"[:300])
                inputs[kind] += 4
                slowest = max(slowest, time.perf_counter() - start)
    soak_report(
        "mutations",
        inputs=dict(inputs),
        inputs_total=inputs.total(),
        outcomes=dict(sorted(world.outcomes.items())),
        slowest_block_of_4_s=round(slowest, 3),
        growth_bytes=growth[0],
        findings=findings,
    )
    assert inputs.total() == 10_000
    assert not findings
    assert growth[0] < MOST_BYTES
