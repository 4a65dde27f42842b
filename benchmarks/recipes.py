"""Do the recipes, cut short alike, find masks better than the free one?

    maskdepth bench recipes [--data SOURCE] [--quick] [--json FILE]

Method: one set, objects held out, and for each bundled recipe the run it describes (network,
losses, optimiser, schedule, augmentation, average of weights) at one size, cut to one budget of
samples in batches of one size; fresh weights from the same seed. That is `maskdepth train --recipe
R --stages 64:12000s --batch-size 16`. What is quoted is the last validation, beside the two
baselines that cost nothing. Reference recipes were published with 100 and more times these steps.

The free mask compares composite and background: networks that see the composite alone (003) cannot
be expected to beat it, and the table says which they are.

Without `--data` the set is synthesised; SOURCE is what `maskdepth convert` takes.
"""

import tempfile
import time
from collections.abc import Iterable
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
from benchmarks.harness import environment, report
from models.recipe import Recipe, facts, read_recipe, recipe_names
from models.registry import NETWORKS
from models.training.config import TrainConfig
from models.training.evaluate import facts_of
from pipeline.augment import read_augment
from pipeline.loader import Loader, LoaderConfig

_METRICS = {
    "mask_iou": "mask IoU",
    "mask_boundary_f": "boundary F",
    "depth_rmse": "depth RMSE",
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every recipe is cut to."""

    size: int = 64
    """Side of the images in pixels."""

    samples: int = 12_000

    batch_size: int = 16
    """Small, since a short run is short of steps, not of samples."""


QUICK = Budget(samples=160)


def run(*, quick: bool, data: Path | None, json_path: Path | None) -> dict[str, Any]:
    """Train, validate and print.

    Returns:
        The result, as it is kept.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    budget = QUICK if quick else Budget()
    recipes = [read_recipe(name) for name in recipe_names()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        set_path = make_set(folder, 400 if quick else 2_000, data)
        rows = [_row(recipe, set_path, budget, folder / recipe.name, device) for recipe in recipes]
    _print(budget, rows)
    found = {
        "question": "recipes",
        "configuration": {
            "budget": asdict(budget), "data": "synthesised" if data is None else data.name,
            "quick": quick, "device": device.type,
        },
        "environment": environment(),
        "tables": {f"{budget.size} px": rows},
    }  # fmt: skip
    report(found, json_path)
    return found


def shortened(recipe: Recipe, budget: Budget) -> TrainConfig:
    """How a recipe trains when it is cut to a budget; all else stays as it is in the file."""
    config: TrainConfig = recipe.part(
        "train",
        {
            "stages": f"{budget.size}:{budget.samples}s",
            "batch_size": str(budget.batch_size),
            "num_panels": 0,
        },
    )
    return config


def _row(
    recipe: Recipe, set_path: Path, budget: Budget, run_dir: Path, device: torch.device
) -> dict[str, Any]:
    began = time.process_time()
    network = recipe.part("network")
    entry = Entry(name=recipe.name, network=network, loss=recipe.part("loss"))
    augment = read_augment(recipe.part("loader").augment)
    with Loader([str(set_path)], LoaderConfig(seed=0, augment=augment), device) as loader:
        config = shortened(recipe, budget)
        scores = trainer_of(entry, config, loader, facts_of(loader), run_dir, device).run()
    seconds = round(time.process_time() - began, 1)
    print(f"  {recipe.name}: {seconds:.0f} s of processor time", flush=True)
    told = {key: value for key, value in facts(recipe).items() if key in _TOLD}
    return {
        **told,
        "sees_background": NETWORKS[network.name].needs_background,
        "processor_s": seconds,
        **scores,
        "is_above_free_mask": is_above_free_mask(scores),
    }


_TOLD = ("name", "network", "losses", "weights", "optimizer", "lr", "schedule", "augment")


def is_above_free_mask(scores: dict[str, float]) -> bool | None:
    """Whether the masks are better than the thresholded difference; None where there are none."""
    if "mask_iou" not in scores or "baseline_mask_iou" not in scores:
        return None
    return scores["mask_iou"] > scores["baseline_mask_iou"]


def _print(budget: Budget, rows: Iterable[dict[str, Any]]) -> None:
    print(f"\n{budget.samples:,} samples of {budget.size} px, batches of {budget.batch_size}")
    print(f"{'recipe':<16}{'network':<20}{score_heads(_METRICS)}  above the free mask")
    for row in rows:
        above = {True: "yes", False: "no", None: "-"}[row["is_above_free_mask"]]
        if not row["sees_background"]:
            above += ", sees no background"
        print(f"{row['name']:<16}{row['network']:<20}{score_cells(row, _METRICS)}  {above}")
    free = next((row for row in rows if "baseline_depth_rmse" in row), None)
    if free is not None:
        print_free(free)
