"""What does training reach of what the step alone could do, and how long does it wait for data?

    maskdepth bench train [--quick] [--json FILE]

Method: the trainer as it is, its decoded samples in the cache (filled before the clock starts). The
ceiling is one batch of the run that stays on the device and goes through the same `Learner.step`,
as compiled, again and again: no loader, no records. Both take turns within one run: so many steps
of the ceiling, a synchronise, then so many of the trainer's own loop up to its next record, whose
rate and share of waiting are quoted. While the ceiling runs the loader's threads rest, with their
queue full: a few batches of the trainer's turn, which is many times longer. The first turn of each
warms up and compiles. On a GPU also compiled and with CUDA graphs (`--compile auto` and `max`).

What bounds the share: the copy of a batch out of the cache and its augmentation take the cores (on
a CPU) or the memory bandwidth (on a GPU) from the step. Both happen beside it, one batch ahead or
more, so they do not show as waiting: the share of the ceiling that is reached has them.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.cached import fill
from benchmarks.contest import Entry, make_set, trainer_of
from benchmarks.harness import Row, print_rows, report, result
from models.recipe import read_recipe
from models.training.config import TrainConfig
from models.training.evaluate import SetFacts, facts_of
from models.training.precision import PrecisionConfig, resolved
from models.training.trainer import Trainer
from pipeline.augment import read_augment
from pipeline.batch import Batch, BatchLoader
from pipeline.loader import Loader, LoaderConfig

AIM = 0.01
"""Of a step, waiting for data from the cache: less than this."""

CEILING = "ceiling: a resident batch"
REACHED = "trainer, from the cache"
MODES = {"off": "eager", "auto": "compiled", "max": "graphs"}
SIZES = (64, 96, 224)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is measured at one size."""

    size: int
    """Side of the images in pixels."""

    batch: int
    steps: int
    """Of a turn."""

    turns: int
    """Counted ones; one more comes first."""


@dataclass(frozen=True, kw_only=True)
class Run(Entry):
    """One network, and how it is run."""

    compile: str


class Turns:
    """A loader whose stream stands still now and then, while the ceiling is measured.

    Args:
        loader: Whose batches these are; its cache is full.
        work: How long the turns are.
    """

    def __init__(self, loader: BatchLoader, work: Work) -> None:
        self._loader = loader
        self._work = work
        self.num_samples = (work.turns + 1) * work.steps * work.batch
        """One epoch is all turns: no validation comes between two."""
        self.trainer: Trainer | None = None
        self.ceilings: list[float] = []
        """Samples per second, turn by turn."""

    @contextmanager
    def train(
        self, *, size: int, batch_size: int, start: int, num_steps: int
    ) -> Iterator[Iterator[Batch]]:
        """The loader's own batches."""
        with self._loader.train(
            size=size, batch_size=batch_size, start=start, num_steps=num_steps
        ) as batches:
            yield self._between(batches)

    def _between(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        trainer, resident = self.trainer, next(batches)
        assert trainer is not None
        stream = chain([resident], batches)
        for _ in range(self._work.turns + 1):
            self.ceilings.append(self._replay(trainer, resident))
            trainer.meter.restart()
            yield from islice(stream, self._work.steps)

    def _replay(self, trainer: Trainer, batch: Batch) -> float:
        """Samples per second of the step alone."""
        _finish(trainer.learner.precision.device)
        began = time.perf_counter()
        for _ in range(self._work.steps):
            trainer.learner.step(batch, rate=1e-6, progress=0.5, number=trainer.progress.step)
        _finish(trainer.learner.precision.device)
        return self._work.steps * len(batch) / (time.perf_counter() - began)

    @contextmanager
    def validate(self, *, size: int, batch_size: int) -> Iterator[Iterator[Batch]]:
        """One batch: a run ends with a validation, and this is not about that."""
        with self._loader.validate(size=size, batch_size=batch_size) as batches:
            yield islice(batches, 1)

    @property
    def num_bad_samples(self) -> int:
        """The loader's."""
        return self._loader.num_bad_samples

    def state_dict(self) -> dict[str, Any]:
        """The loader's."""
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hand it to the loader."""
        self._loader.load_state_dict(state)


def run(*, quick: bool, json_path: Path | None) -> dict[str, Any]:
    """Measure and print.

    Returns:
        The result, as it is kept.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    works = _works(device, quick=quick)
    entries = _entries(device, quick=quick)
    tables: dict[str, list[Row]] = {}
    waits: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        set_path = make_set(Path(name), 400 if quick else 4_000)
        loading = LoaderConfig(cache="auto", seed=0, augment=read_augment("flip"))
        for work in works:
            with Loader([str(set_path)], loading, device) as loader:
                fill(loader, work.size, work.batch)
                for number, entry in enumerate(entries):
                    title = f"{work.size} px, batches of {work.batch}, {entry.name}"
                    runs = Path(name) / f"{work.size}-{number}"
                    tables[title], waits[title] = measure(
                        entry, work, loader, facts_of(loader), runs, device
                    )
                    print_rows(title, "samples/s", tables[title], tables[title][0])
                    print(f"waiting for data: {waits[title]:.2%} of the step")
    worst = max(waits.values())
    print(f"\nwaiting for data, at most: {worst:.2%} (aim: under {AIM:.0%})")
    settings = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(), "quick": quick,
        "precision": resolved(PrecisionConfig(), device).dtype,
        "works": [asdict(work) for work in works],
    }  # fmt: skip
    found = {**result("train", settings, tables, "samples/s"), "data_wait_share": waits}
    report(found, json_path)
    return found


def measure(
    entry: Run,
    work: Work,
    loader: BatchLoader,
    facts: SetFacts,
    run_dir: Path,
    device: torch.device,
) -> tuple[list[Row], float]:
    """Ceiling and trainer in turns: their rows, and the median share of waiting for data."""
    turns = Turns(loader, work)
    config = TrainConfig(
        stages=f"{work.size}:{turns.num_samples}s",
        batch_size=str(work.batch),
        precision=resolved(PrecisionConfig(compile=entry.compile), device),
        log_every=work.steps,
        checkpoint_every=1_000_000,
        num_panels=0,
    )
    trainer = trainer_of(entry, config, turns, facts, run_dir, device)
    turns.trainer = trainer
    trainer.run()
    records = _training_records(run_dir)[1:]
    rows = [
        Row(name=CEILING, rates=tuple(turns.ceilings[1:]), role="ceiling"),
        Row(name=REACHED, rates=tuple(record["samples_per_s"] for record in records)),
    ]
    return rows, statistics.median(record["data_wait_share"] for record in records)


def _training_records(run_dir: Path) -> list[dict[str, Any]]:
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "train"]


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _works(device: torch.device, *, quick: bool) -> tuple[Work, ...]:
    if device.type == "cuda":
        batches, steps, turns = (256, 256, 64), 30 if quick else 100, 3 if quick else 5
    else:
        batches, steps, turns = (32, 32, 8), 4 if quick else 16, 2 if quick else 5
    return tuple(
        Work(size=size, batch=batch, steps=steps, turns=turns)
        for size, batch in zip(SIZES, batches, strict=True)
    )


def _entries(device: torch.device, *, quick: bool) -> list[Run]:
    """The house network and 004's with their recipes' losses; the house's alone if in haste."""
    modes = ("off",) if device.type == "cpu" else ("off", "auto", "max")
    entries = []
    for name in ("house",) if quick else ("house", "004"):
        recipe = read_recipe(name)
        network, loss = recipe.part("network"), recipe.part("loss")
        entries += [
            Run(name=f"{name}, {MODES[mode]}", network=network, loss=loss, compile=mode)
            for mode in modes
        ]
    return entries
