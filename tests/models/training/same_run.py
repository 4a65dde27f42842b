"""Whether two runs are the same but for what a clock decides."""

import json

import torch

from models.checkpoint import read_checkpoint
from models.training.speed import MEASURED

TIMINGS = ("elapsed_s", *MEASURED)


def records(run_dir, kind=None):
    """Records without what a clock decides."""
    found = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [
        {key: value for key, value in record.items() if key not in TIMINGS}
        for record in found
        if kind in (None, record["kind"])
    ]


def leaves(value, where=""):
    """Every leaf of a checkpoint by its place, less clocks and the configuration."""
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        return {
            place: leaf
            for key, part in value.items()
            if key not in ("elapsed_s", "config")
            for place, leaf in leaves(part, f"{where}.{key}").items()
        }
    return {where: value.tolist() if isinstance(value, torch.Tensor) else value}


def assert_same_run(one, other):
    for name in ("last.pt", "best.pt"):
        there, here = (leaves(read_checkpoint(run_dir / name)) for run_dir in (one, other))
        assert there == here
    assert records(one) == records(other)
