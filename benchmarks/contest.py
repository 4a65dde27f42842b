"""What the benchmarks of training share: networks that take part, a set for them, a run of one."""

from dataclasses import asdict, dataclass
from pathlib import Path

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
