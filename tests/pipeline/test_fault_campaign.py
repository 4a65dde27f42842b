"""A set that is damaged before or while it streams never gives a wrong image, and never a crash.

Every run ends in a named error of one line, or delivers all that is still right and counts the
rest at weight 0. What is delivered is compared with Pillow's pixels of the bytes in the source zip.
"""

import functools
import gc
import io
import logging
import os
import random
import shutil
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from pipeline.augment import AugmentConfig
from pipeline.batch import Batch
from pipeline.error import LoaderError
from pipeline.loader import Loader, LoaderConfig
from shards.convert import convert
from shards.error import ShardError
from shards.manifest import BACKGROUNDS, read_manifest
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise
from shards.tar import read_members

Pixels = npt.NDArray[np.uint8]
CPU = torch.device("cpu")
CONFIG = LoaderConfig(
    decoder="turbojpeg", threads=2, seed=4, exact_decode=True, augment=AugmentConfig(flip=0)
)
NATIVE, SMALL = 48, 24
BATCH = 8
SHARD = 12
"""Samples per shard: 6 shards to train on, 2 to validate."""


def _make(folder: Path, seed: int) -> Path:
    """A set of 96 triplets at 48 px."""
    synthesise(
        folder / "zips",
        SynthConfig(count=96, size=NATIVE, seed=seed, num_backgrounds=3, num_foregrounds=8),
    )
    config = ConvertConfig(
        sources=(folder / "zips",), out=folder / "set", samples_per_shard=SHARD, val=0.25,
        seed=1, processes=1,
    )  # fmt: skip
    convert(config)
    return folder / "set"


@dataclass(eq=False)
class World:
    """A set, another of its shape, and the pixels of the first one's samples."""

    whole: Path
    other: Path
    folder: Path
    sources: set[bytes]

    def copy(self) -> Path:
        """A set to be damaged."""
        target = self.folder / "set"
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(self.whole, target))

    @functools.cache  # noqa: B019 -- lives as long as the module's fixture
    def expected(self, split: str, size: int) -> tuple[Pixels, ...]:
        """Background, composite, mask and depth of each sample, by Pillow and tarfile alone."""
        manifest = read_manifest(self.whole)
        backgrounds = np.stack([
            _pixels(content, "RGB", size) for _, content in read_members(self.whole / BACKGROUNDS)
        ])  # fmt: skip
        parts: list[list[Pixels]] = [[], [], [], []]
        for shard in manifest.split_shards(split):
            rows = np.load(self.whole / f"{shard.name}.npy")
            parts[0] += [backgrounds[row["background"]] for row in rows]
            images = [
                content
                for name, content in read_members(self.whole / f"{shard.name}.tar")
                if not name.endswith(".json")
            ]
            assert self.sources.issuperset(images)
            for part, mode in enumerate(("RGB", "L", "L")):
                parts[part + 1] += [_pixels(image, mode, size) for image in images[part::3]]
        return tuple(np.stack(part) for part in parts)


def _pixels(content: bytes, mode: str, size: int) -> Pixels:
    image = Image.open(io.BytesIO(content)).convert(mode)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """One thread of torch: for these small batches more of them only wait for each other."""
    caplog.set_level(logging.ERROR, "pipeline.ledger")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("faults")
    whole, other = (_make(folder / str(seed), seed) for seed in (3, 4))
    contents: set[bytes] = set()
    for path in (folder / "3" / "zips").glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            contents.update(archive.read(name) for name in archive.namelist())
    return World(whole, other, folder, contents)


def _check(world: World, loader: Loader, batch: Batch, split: str, size: int) -> int:
    """Every sample of weight 1 is what its number names; returns how many are not counted."""
    good = batch.weight.numpy() == 1
    numbers = batch.number.numpy()[good]
    background, composite, mask, depth = (
        part[numbers].astype(np.int16) for part in world.expected(split, size)
    )
    assert batch.background is not None
    limit = 0 if loader.decoder.name == "turbojpeg" or size == NATIVE else 8
    for found, expected in (
        (loader.normalisation.pixels(batch.background), background),
        (loader.normalisation.pixels(batch.composite), composite),
        (batch.depth[:, 0] * 255, depth),
    ):
        difference = abs(found.numpy()[good].round().astype(np.int16) - expected)
        assert (difference > limit).sum() <= (0.001 * difference.size if limit else 0), (
            "wrong pixels"
        )
    wrong = batch.mask[:, 0].numpy()[good] != (mask >= 128)
    assert wrong.sum() <= (0.01 * wrong.size if limit else 0), "wrong mask"
    assert batch.is_void == (not good.any())
    return int((~good).sum())


@dataclass
class Run:
    """Two epochs at the images' own size, a validation, half an epoch at a smaller size."""

    world: World
    config: LoaderConfig
    disturb: Callable[[str], None] = lambda moment: None
    """Called at every moment when something could happen to the set, with a name for it."""

    replaced: int = 0
    bad: int = 0

    def __call__(self, set_path: Path) -> None:
        """Compare every batch; what is at fault raises."""
        self.disturb("before opening")
        with Loader(set_path, self.config, CPU) as loader:
            self.disturb("opened")
            self._train(loader, NATIVE, start=0, steps=18)
            self._validate(loader)
            self.disturb("between stages")
            self._train(loader, SMALL, start=18 * BATCH, steps=5)
            self.bad = loader.num_bad_samples
            assert (self.replaced > 0) == (self.bad > 0), "not counted"

    def _train(self, loader: Loader, size: int, *, start: int, steps: int) -> None:
        numbers: list[int] = []
        with loader.train(size=size, batch_size=BATCH, start=start, num_steps=steps) as batches:
            for step, batch in enumerate(batches):
                numbers += batch.number.tolist()
                self.replaced += _check(self.world, loader, batch, "train", size)
                self.disturb(f"step {step} at {size} px")
        if size == NATIVE:
            assert Counter(numbers) == dict.fromkeys(range(loader.num_samples), 2)

    def _validate(self, loader: Loader) -> None:
        with loader.validate(size=NATIVE, batch_size=BATCH) as batches:
            for step, batch in enumerate(batches):
                self.replaced += _check(self.world, loader, batch, "val", NATIVE)
                self.disturb(f"step {step} of validation")


MOMENTS = (
    *["before opening"] * 8, "opened", "opened", "between stages", "between stages",
    *[f"step {step} at {NATIVE} px" for step in range(12)],
    "step 0 of validation", f"step 0 at {SMALL} px",
)  # fmt: skip
TARS = (*["train-*.tar"] * 9, "val-*.tar", BACKGROUNDS, BACKGROUNDS)
OTHERS = (*["train-*.npy"] * 4, "val-*.npy", "*.idx", "manifest.json", "rejected.jsonl")
KEEPING = ("flip", "flip", "swap same")
CHANGING = ("truncate", "delete", "grow", "swap")


@dataclass(frozen=True)
class Fault:
    """One change to one file: what it was and what it becomes; None is a file that is gone."""

    path: Path
    kind: str
    content: bytes | None
    in_place: bool

    @classmethod
    def choose(
        cls,
        chance: random.Random,
        set_path: Path,
        other: Path,
        moment: str,
        *,
        keeping_size: bool,
    ) -> "Fault":
        """What happens to which file; what is read at opening alone is seldom hit later."""
        while True:  # an empty file has nothing to flip, and another may be as long by chance
            fault = cls._any(chance, set_path, other, moment, keeping_size=keeping_size)
            if fault.keeps_size == keeping_size:
                return fault

    @classmethod
    def _any(
        cls,
        chance: random.Random,
        set_path: Path,
        other: Path,
        moment: str,
        *,
        keeping_size: bool,
    ) -> "Fault":
        files = TARS + OTHERS if moment == MOMENTS[0] or chance.random() < 0.1 else TARS
        path = chance.choice(sorted(set_path.glob(chance.choice(files))))
        old = path.read_bytes()
        kind = chance.choice(KEEPING if keeping_size else CHANGING)
        content: bytes | None
        if kind == "delete":
            content = None
        elif kind == "truncate":
            content = old[: chance.randrange(len(old))] if old else b"x"
        elif kind == "grow":
            at = chance.randrange(len(old) + 1)
            content = old[:at] + chance.randbytes(chance.randrange(1, 600)) + old[at:]
        elif kind.startswith("swap"):
            content = _swapped(chance, path, other)
            if kind == "swap same" or content == old:
                content = _flipped(chance, content[: len(old)].ljust(len(old), b"\0"), old)
        else:
            content = _flipped(chance, old, old)
        return cls(path, kind, content, chance.random() < 0.8)

    @property
    def keeps_size(self) -> bool:
        """The sizes alone do not tell."""
        return self.content is not None and len(self.content) == self.path.stat().st_size

    def strike(self) -> None:
        """In the file itself, or by another file that takes its name."""
        if self.content is None:
            self.path.unlink()
        elif self.in_place:
            with self.path.open("r+b") as file:
                file.write(self.content)
                file.truncate()
        else:
            new = self.path.with_name("new")
            new.write_bytes(self.content)
            new.replace(self.path)


def _swapped(chance: random.Random, path: Path, other: Path) -> bytes:
    """A neighbour's content, or that of the file of this name in another set."""
    neighbours = [p for p in sorted(path.parent.glob(f"*{path.suffix}")) if p != path]
    return chance.choice([*neighbours, other / path.name, other / path.name]).read_bytes()


def _flipped(chance: random.Random, content: bytes, old: bytes) -> bytes:
    """Some bits, a run of zeros or noise; not what was there before."""
    changed = bytearray(content)
    while changed == old:
        if not changed:
            return b"x"
        at = chance.randrange(len(changed))
        run = chance.choice((1, 1, 1, 16, 512, 4096))
        match chance.randrange(3):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at : at + run] = bytes(len(changed[at : at + run]))
            case 2:
                changed[at : at + run] = chance.randbytes(len(changed[at : at + run]))
    return bytes(changed)


def _strike_once(
    chance: random.Random, world: World, config: LoaderConfig, *, keeping_size: bool
) -> str:
    """One run with one fault, of which the sizes tell or not: how it ended."""
    set_path = world.copy()
    moment = chance.choice(MOMENTS)
    fault = Fault.choose(chance, set_path, world.other, moment, keeping_size=keeping_size)
    run = Run(world, config, lambda now: fault.strike() if now == moment else None)
    try:
        run(set_path)
    except (LoaderError, ShardError) as error:
        message = str(error)
        assert "\n" not in message
        assert "maskdepth verify" in message or "maskdepth convert" in message, message
        # another set's manifest is sound: what is named is all that differs from it
        assert fault.path.name in message or fault.path.name == "manifest.json", message
        ended = "refused when opened" if moment == MOMENTS[0] else "ended while streaming"
        return f"{ended}, by name"
    assert run.bad or moment != MOMENTS[0] or fault.path.suffix not in {".npy", ".json"}
    return "counted at weight 0" if run.bad else "all images right"


def _campaign(world: World, name: str, count: int) -> tuple[Counter[str], list[str]]:
    """Outcomes, and findings with the seeds they came from; half of the faults keep the size."""
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    before = _threads_and_files()
    for number in range(count):
        chance = random.Random(f"{name} {number}")
        config = replace(
            CONFIG,
            decoder=chance.choice((*["turbojpeg"] * 7, "dali")),
            cache=chance.choice(("off", "host", "host")),
            **chance.choice(({}, {"order": "windowed", "window_shards": 4})),
            max_bad_samples=chance.choice((0.001, 0.2, 1.0)),
        )
        try:
            outcome = _strike_once(chance, world, config, keeping_size=number % 2 == 0)
        except Exception as error:  # a finding, whatever it is; the rest goes on
            findings.append(f"{name} {number}: {type(error).__name__}: {error}"[:300])
            continue
        outcomes[outcome] += 1
    if _threads_and_files() != before:
        findings.append(f"threads and files left: {_threads_and_files()} instead of {before}")
    return outcomes, findings


def _threads_and_files() -> tuple[int, int]:
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- entries vanish while listed
    return threading.active_count(), files


@pytest.fixture(scope="module")
def warm(world: World) -> None:
    """What libraries start once and keep is there."""
    for decoder in ("turbojpeg", "dali"):
        Run(world, replace(CONFIG, decoder=decoder))(world.whole)


@pytest.mark.parametrize("decoder", ["turbojpeg", "dali"])
def test_a_set_that_nobody_disturbs_streams_in_full(world: World, decoder: str) -> None:
    run = Run(world, replace(CONFIG, decoder=decoder))
    run(world.whole)
    assert (run.replaced, run.bad) == (0, 0)


@pytest.mark.usefixtures("warm")
def test_single_faults_end_in_a_named_error_or_in_counted_replacements(world: World) -> None:
    outcomes, findings = _campaign(world, "fault", 50)
    assert not findings
    assert outcomes.total() == 50
    assert len(outcomes) >= 4, outcomes


@pytest.mark.soak
@pytest.mark.usefixtures("warm")
def test_a_thousand_faults_end_in_a_named_error_or_in_counted_replacements(
    world: World, soak_report: Callable[..., None]
) -> None:
    outcomes, findings = _campaign(world, "soak", 1000)
    soak_report(
        "faults",
        faults=1000,
        size_unchanged=500,
        outcomes=dict(sorted(outcomes.items())),
        findings=findings,
    )
    assert not findings
    assert outcomes.total() == 1000
