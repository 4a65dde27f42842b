"""What the benchmarks of training share: networks that take part, a set for them, a run of one."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from models.losses import LossConfig, TaskLoss
from models.registry import NetworkConfig, build_network
from models.training.config import TrainConfig
from models.training.evaluate import SetFacts
from models.training.trainer import Trainer
from pipeline.batch import BatchLoader
from shards.convert import convert
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One network, and what it is trained for."""

    name: str
    network: NetworkConfig
    loss: LossConfig


def make_set(folder: Path, count: int, source: Path | None = None) -> Path:
    """Convert a source, or so many made-up triplets, to a set in a folder."""
    if source is None:
        source = folder / "source"
        synthesise(source, SynthConfig(count=count, processes=2))
    convert(ConvertConfig(sources=(source,), out=folder / "set", check="none", processes=2))
    return folder / "set"


def trainer_of(
    entry: Entry,
    config: TrainConfig,
    loader: BatchLoader,
    facts: SetFacts,
    run_dir: Path,
    device: torch.device,
) -> Trainer:
    """A run that has not begun, with the weights that its seed gives."""
    torch.manual_seed(config.seed)
    return Trainer(
        config,
        network=build_network(entry.network),
        loss=TaskLoss(entry.loss),
        loader=loader,
        facts=facts,
        run_dir=run_dir,
        device=device,
        sections={"network": asdict(entry.network), "loss": asdict(entry.loss)},
    )


def score_cells(row: Mapping[str, Any], metrics: Iterable[str]) -> str:
    """A row's scores in columns; a dash for what its network does not predict."""
    return "".join(f"{row[key]:>12.4f}" if key in row else f"{'-':>12}" for key in metrics)


def score_heads(metrics: Mapping[str, str]) -> str:
    """The titles of the columns."""
    return "".join(f"{title:>12}" for title in metrics.values())


def print_free(row: Mapping[str, Any]) -> None:
    """The two baselines that cost nothing, under mask IoU and depth RMSE."""
    print(
        f"{'free baselines':<36}{row['baseline_mask_iou']:>12.4f}{'':>12}"
        f"{row['baseline_depth_rmse']:>12.4f}"
    )
