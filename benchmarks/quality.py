"""Which network predicts best for the same work, and how fast does each one train?

    maskdepth bench quality [--data SOURCE] [--losses] [--quick] [--json FILE]

Method: one set, objects held out, and for each network of the registry the same budget of samples
in the same order, the same augmentation, losses, optimiser and schedule (the house recipe's, each
network with the peak rate that suits it better: `PEAK_RATES`), fresh weights from the same seed.
What is quoted is the last validation: mask IoU, boundary F, depth RMSE
and delta-1, beside the two free baselines. Rates are those of training steps on one resident batch,
networks in turns, medians: a loader has no part in them. `--losses` trains the house network once
for each pair of losses that the reference systems 000 and 004 compared, instead.

Without `--data` the set is synthesised; SOURCE is what `maskdepth convert` takes.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.contest import (
    Entry,
    make_set,
    print_free,
    score_cells,
    score_heads,
    trainer_of,
)
from benchmarks.harness import environment, report, take_turns
from models.losses import LossConfig, TaskLoss
from models.registry import NETWORKS, NetworkConfig, build_network
from models.training.config import TrainConfig
from models.training.evaluate import facts_of
from models.training.learner import Learner
from models.training.optimizer import OptimizerConfig
from pipeline.augment import read_augment
from pipeline.batch import Batch
from pipeline.loader import Loader, LoaderConfig

BATCH = 32
LOSS_PAIRS = (
    ("bce + dice", "l1 + ssim"),
    ("bce", "bce"),
    ("bce", "rmse"),
    ("bce", "ssim"),
    ("dice", "bce"),
    ("dice", "ssim"),
    ("bce + dice", "rmse"),
    ("bce", "bce + 2 ssim"),
)
"""House first; then those of 000 and 004."""

PEAK_RATES = {"000-mask": 4e-3, "001-unet": 4e-3}
"""Of AdamW, where a trial of 6,000 samples of 64 px found worse masks at the house recipe's."""

_METRICS = {
    "mask_iou": "mask IoU",
    "mask_boundary_f": "boundary F",
    "depth_rmse": "depth RMSE",
    "depth_delta1": "d<1.25",
}
_RATE_STEPS, _RATE_TURNS = 4, 5


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every network gets."""

    size: int
    """Side of the images in pixels."""

    samples: int


def run(*, quick: bool, losses: bool, data: Path | None, json_path: Path | None) -> dict[str, Any]:
    """Train, validate and print.

    Returns:
        The result, as it is kept.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    budgets = _budgets(device, quick=quick)
    entries = _loss_entries() if losses else _network_entries()
    tables: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        set_path = make_set(folder, 400 if quick else 4_000, data)
        for budget in budgets:
            rows = _train_all(entries, set_path, budget, folder / str(budget.size), device)
            if not losses:
                for row, rate in zip(rows, _rates(entries, budget.size, device), strict=True):
                    row["samples_per_s"] = rate
            tables[f"{budget.size} px"] = rows
            _print(budget, rows)
    found = {
        "question": "quality",
        "configuration": {
            "budgets": [asdict(budget) for budget in budgets], "batch": BATCH, "losses": losses,
            "data": "synthesised" if data is None else data.name, "quick": quick,
            "device": device.type,
        },
        "environment": environment(),
        "tables": tables,
    }  # fmt: skip
    report(found, json_path)
    return found


def _budgets(device: torch.device, *, quick: bool) -> tuple[Budget, ...]:
    if quick:
        return (Budget(size=64, samples=10 * BATCH),)
    if device.type == "cpu":
        return (Budget(size=64, samples=6_000),)
    return tuple(Budget(size=size, samples=120_000) for size in (64, 96, 224))


def _network_entries() -> list[Entry]:
    """The house network first; of the others, those of several scales get a window that fits."""
    small = LossConfig(depth="l1 + ssim(window=3)")
    return [
        Entry(
            name="unet s" if name == "unet" else name,
            network=NetworkConfig(name=name),
            loss=small if kind.scales else LossConfig(),
        )
        for name, kind in NETWORKS.items()
    ]


def _loss_entries() -> list[Entry]:
    return [
        Entry(
            name=f"{mask} / {depth}",
            network=NetworkConfig(),
            loss=LossConfig(mask=mask, depth=depth),
        )
        for mask, depth in LOSS_PAIRS
    ]


def _train_all(
    entries: Iterable[Entry], set_path: Path, budget: Budget, runs: Path, device: torch.device
) -> list[dict[str, Any]]:
    rows = []
    loading = LoaderConfig(cache="auto", seed=0, augment=read_augment("flip"))
    with Loader([str(set_path)], loading, device) as loader:
        for number, entry in enumerate(entries):
            began = time.perf_counter()
            rate = PEAK_RATES.get(entry.network.name, OptimizerConfig().lr)
            scores = _train(entry, rate, loader, budget, runs / str(number), device)
            network = build_network(entry.network)
            rows.append({
                "name": entry.name,
                "parameters": sum(weights.numel() for weights in network.parameters()),
                "peak_rate": rate,
                **scores,
            })  # fmt: skip
            print(f"  {entry.name}: {time.perf_counter() - began:.0f} s", flush=True)
    return rows


def _train(
    entry: Entry, rate: float, loader: Loader, budget: Budget, run_dir: Path, device: torch.device
) -> dict[str, float]:
    config = TrainConfig(
        stages=f"{budget.size}:{budget.samples}s",
        batch_size=str(BATCH),
        num_panels=0,
        optimizer=OptimizerConfig(lr=rate),
    )
    return trainer_of(entry, config, loader, facts_of(loader), run_dir, device).run()


def _rates(entries: Iterable[Entry], size: int, device: torch.device) -> list[float]:
    """Training steps on one resident batch, samples per second."""
    contenders: Mapping[str, Callable[[], float]] = {
        entry.name: _stepper(entry, size, device) for entry in entries
    }
    return [row.median for row in take_turns(contenders, _RATE_TURNS)]


def _stepper(entry: Entry, size: int, device: torch.device) -> Callable[[], float]:
    torch.manual_seed(0)
    learner = Learner(TrainConfig(), build_network(entry.network), TaskLoss(entry.loss), device)
    learner.begin_stage(1)
    learner.network.train()

    def image(channels: int) -> torch.Tensor:
        pixels = torch.rand(BATCH, channels, size, size, device=device)
        return pixels.contiguous(memory_format=torch.channels_last)

    batch = Batch(
        background=image(3), composite=image(3), mask=image(1).round(), depth=image(1),
        number=torch.arange(BATCH), weight=torch.ones(BATCH, device=device),
    )  # fmt: skip

    def once() -> float:
        began = time.perf_counter()
        for step in range(_RATE_STEPS):
            learner.step(batch, rate=1e-6, progress=0.5, number=step)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return _RATE_STEPS * BATCH / (time.perf_counter() - began)

    return once


def _print(budget: Budget, rows: list[dict[str, Any]]) -> None:
    print(f"\n{budget.samples:,} samples of {budget.size} px, batches of {BATCH}")
    last = f"{'samples/s':>12}" if "samples_per_s" in rows[0] else ""
    print(f"{'':<24}{'parameters':>12}{score_heads(_METRICS)}{last}")
    for row in rows:
        rate = f"{row['samples_per_s']:>12,.0f}" if "samples_per_s" in row else ""
        print(f"{row['name']:<24}{row['parameters']:>12,}{score_cells(row, _METRICS)}{rate}")
    print_free(rows[0])
