"""The profiler's trace: made from the run's own steps, which it does not change."""

import json

import pytest
import torch

from models.checkpoint import read_checkpoint
from models.training.profile import SKIPPED, TRACED, WARMED, profiled

CPU = torch.device("cpu")

pytestmark = pytest.mark.filterwarnings("ignore:.*[Pp]rofil.*")


def traces(folder):
    return sorted(folder.glob("*.pt.trace.json"))


def test_a_profiled_run_has_the_same_weights_and_one_trace_of_its_steps(make_trainer):
    profiled_run, plain = make_trainer("profiled", profile=True), make_trainer("plain")
    profiled_run.run()
    plain.run()
    (trace,) = traces(profiled_run.run_dir / "tensorboard")
    names = {event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"]}
    assert any("conv" in name for name in names)
    assert any("backward" in name.lower() for name in names)
    assert traces(plain.run_dir / "tensorboard") == []
    ends = [read_checkpoint(run.run_dir / "last.pt")["model"] for run in (profiled_run, plain)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.parametrize("number", [1, 4, 9, SKIPPED + WARMED + TRACED + 4])
def test_every_batch_comes_through_and_a_few_are_traced(tmp_path, number):
    """Of a stage too short to warm up, whatever there is."""
    batches = list(range(number))
    seen = []
    for batch in profiled(iter(batches), tmp_path, CPU, num_steps=number):
        torch.ones(3).cumsum(0)
        seen.append(batch)
    assert seen == batches
    if number > WARMED:
        (trace,) = traces(tmp_path)
        events = json.loads(trace.read_text())["traceEvents"]
        steps = [event for event in events if event.get("name") == "aten::cumsum"]
        assert len(steps) == min(TRACED, number - WARMED)
