"""What `test_distributed.py` starts twice, as two gloo ranks: many small runs, one after the other.

    RANK=0 WORLD_SIZE=2 ... python two_ranks.py OUT

OUT/NAME is the run folder of both ranks, OUT/NAME-alone that of the same run in one process, which
the first rank makes while the other waits. OUT/rankN.json tells what each rank saw.
"""

import json
import os
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[2])]

from conftest import CONFIG, FACTS, LOSS, ListLoader, TinyNetwork  # noqa: E402

from models.error import Interrupted, TrainingError  # noqa: E402
from models.losses import TaskLoss  # noqa: E402
from models.prediction import Prediction  # noqa: E402
from models.training import speed  # noqa: E402
from models.training.distributed import ALONE, Ranks, joined  # noqa: E402
from models.training.optimizer import OptimizerConfig  # noqa: E402
from models.training.precision import PrecisionConfig  # noqa: E402
from models.training.trainer import Trainer  # noqa: E402

CPU = torch.device("cpu")
STOP_AT = 8
"""Samples consumed before the batch during which one rank is asked to stop."""


class PlainNetwork(nn.Module):
    """No BatchNorm, which sees each rank's share, and no dropout; a head for each task."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU())
        self.mask = nn.Conv2d(8, 1, 1)
        self.depth = nn.Conv2d(8, 1, 1)

    def forward(self, background, composite):
        """As every network."""
        features = self.body(torch.cat((background, composite), 1))
        return Prediction(mask_logits=self.mask(features), depth_logits=self.depth(features))


class ShareLoader(ListLoader):
    """Hands out a rank's share of each batch, and knows of the bad samples in it alone."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks
        self.shares: list[list[int]] = []
        self.own_bad: set[int] = set()

    def _batch(self, numbers, size, weight):
        share = len(numbers) // self.ranks.size
        own = slice(self.ranks.rank * share, (self.ranks.rank + 1) * share)
        if numbers[0] < self.num_samples:
            self.shares.append(numbers[own])
            self.own_bad |= self.bad.intersection(numbers[own])
        return super()._batch(numbers[own], size, weight[own])

    @property
    def num_bad_samples(self):
        """Found, or told."""
        return len(self.own_bad)

    def state_dict(self):
        """What the ranks tell each other, too."""
        return {"bad": sorted(self.own_bad)}

    def load_state_dict(self, state):
        """Add what another rank knows."""
        self.own_bad |= {*state.get("bad", ())}


def order() -> list[int]:
    """The first epoch's samples."""
    loader = ListLoader()
    with loader.train(size=8, batch_size=10, start=0, num_steps=1) as batches:
        return next(batches).number.tolist()


FIRST = order()
SETTINGS = {
    "batch_size": "4,2",
    "log_every": 1,
    "num_panels": 0,
    "precision": PrecisionConfig(dtype="fp32"),
    "optimizer": OptimizerConfig(name="sgd", lr=0.1, weight_decay=1e-4, clip_norm=0.2),
}
"""SGD is linear: Adam divides gradients that are nearly 0 by themselves, noise and all."""

CASES = {
    "plain": {},
    "uneven": {"bad": {FIRST[0], FIRST[6]}},
    # one rank's share of the first batch, and the whole of the second
    "void": {"bad": {*FIRST[2:8]}},
    "parts": {"accumulate": 2, "bad": {FIRST[1]}},
    "one-task": {"tasks": "mask", "ema_decay": 0.9},
    "half": {"precision": PrecisionConfig(dtype="fp16")},
}


def trainer(out: Path, ranks: Ranks, *, network=PlainNetwork, bad=frozenset(), **changes):
    """A run of ten samples at two sizes."""
    config = replace(CONFIG, **{**SETTINGS, **changes})
    loader = ShareLoader(ranks)
    loader.bad = {*bad}
    torch.manual_seed(config.seed)
    return Trainer(
        config,
        network=network(),
        loss=TaskLoss(LOSS),
        loader=loader,
        facts=FACTS,
        run_dir=out,
        device=CPU,
        sections={"network": {"name": "tiny"}, "loss": asdict(LOSS)},
        ranks=ranks,
    )


def stopped(run: Trainer, on_rank: int) -> Trainer:
    """A run that ends after its third step, because one rank got a signal."""

    def signalled(consumed):
        if consumed == STOP_AT and run.ranks.rank == on_rank:
            os.kill(os.getpid(), signal.SIGTERM)

    run.loader.on_train = signalled
    try:
        run.run()
    except Interrupted as end:
        if "SIGTERM" in str(end):
            return run
    raise AssertionError


def refused(run: Trainer) -> str:
    """What keeps a run from its beginning."""
    try:
        run.run()
    except TrainingError as error:
        return str(error)
    raise AssertionError


def main(out: Path, ranks: Ranks) -> dict[str, object]:
    """All runs; what this rank saw of them."""
    seen: dict[str, object] = {}
    for name, changes in CASES.items():
        if ranks.is_writer:
            alone = trainer(out / f"{name}-alone", ALONE, **changes)
            alone.run()
            seen[f"{name}-alone"] = alone.loader.shares
        both = trainer(out / name, ranks, **changes)
        both.run()
        seen[name] = both.loader.shares
        seen[f"{name}-bad"] = sorted(both.loader.own_bad)

    first = stopped(trainer(out / "two-then-one", ranks), on_rank=1)
    seen["two-then-one"] = first.loader.shares
    if ranks.is_writer:
        second = trainer(out / "two-then-one", ALONE)
        second.run(resume=True)
        seen["two-then-one-later"] = second.loader.shares
        third = stopped(trainer(out / "one-then-two", ALONE), on_rank=0)
        seen["one-then-two-earlier"] = third.loader.shares
    ranks.highest(0)  # until that is there
    fourth = trainer(out / "one-then-two", ranks)
    fourth.run(resume=True)
    seen["one-then-two"] = fourth.loader.shares

    # dropout, running statistics and all: the same number of ranks goes on bit for bit
    trainer(out / "undisturbed", ranks, network=TinyNetwork, ema_decay=0.9).run()
    tiny = {"network": TinyNetwork, "ema_decay": 0.9}
    stopped(trainer(out / "resumed", ranks, **tiny), on_rank=1)
    trainer(out / "resumed", ranks, **tiny).run(resume=True)

    seen["dropout"] = torch.rand(4).tolist()
    seen["in use"] = refused(trainer(out / "plain", ranks))
    seen["unlike"] = refused(trainer(out / "unlike", ranks, seed=ranks.rank))
    return seen


if __name__ == "__main__":
    torch.set_num_threads(1)
    speed.peak_flops = lambda *_: 1e12  # measuring it takes longer than all that follows
    folder = Path(sys.argv[1])
    with joined(CPU) as (here, _):
        told = main(folder, here)
    (folder / f"rank{here.rank}.json").write_text(json.dumps(told))
