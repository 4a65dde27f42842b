import json
import os
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch

from models.checkpoint import read_checkpoint
from models.error import TrainingError
from models.training.config import TrainConfig
from models.training.distributed import ALONE, Ranks, check_shares, joined, lost_rank
from models.training.speed import MEASURED

CPU = torch.device("cpu")
SCRIPT = Path(__file__).with_name("two_ranks.py")
CASES = ("plain", "uneven", "void", "parts", "one-task", "half")
TIMINGS = ("elapsed_s", *MEASURED)


class Runs:
    """What two ranks left, and the same runs made by one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rank0, self.rank1 = (
            json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)
        )

    def records(self, name):
        """Of a run, without what a clock decides."""
        lines = (self.folder / name / "metrics.jsonl").read_text().splitlines()
        return [
            {key: value for key, value in json.loads(line).items() if key not in TIMINGS}
            for line in lines
        ]

    def last(self, name):
        """A run's last checkpoint."""
        return read_checkpoint(self.folder / name / "last.pt")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", SCRIPT, folder],
            env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    told = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(told)
    return Runs(folder)


def joined_shares(first, second):
    """Global batches, of what each rank got."""
    return [[*one, *other] for one, other in zip(first, second, strict=True)]


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_get_the_batches_of_one_and_every_sample_once(runs, name):
    batches = joined_shares(runs.rank0[name], runs.rank1[name])
    assert batches == runs.rank0[f"{name}-alone"]
    stream = [*chain(*batches)]
    assert sorted(stream[:10]) == sorted(stream[10:20]) == [*range(10)]


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_make_the_steps_of_one(runs, name):
    """Every loss, gradient norm and metric to float tolerance; the rest exactly."""
    alone, both = runs.records(f"{name}-alone"), runs.records(name)
    assert len(alone) == len(both) > 8
    tolerance = 5e-3 if name == "half" else 1e-5  # fp16 rounds each share's gradient by itself
    for one, two in zip(alone, both, strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            if isinstance(value, float):
                value = pytest.approx(value, rel=tolerance, abs=tolerance / 10)
            assert two[key] == value, (key, one["step"])


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_end_with_the_weights_of_one(runs, name):
    alone, both = runs.last(f"{name}-alone"), runs.last(name)
    tolerance = 5e-3 if name == "half" else 1e-5
    for part in ("model", "ema"):
        if alone[part] is None:
            assert both[part] is None
            continue
        for key, value in alone[part].items():
            torch.testing.assert_close(both[part][key], value, rtol=tolerance, atol=tolerance / 10)


def test_weights_without_a_task_stay_as_they_were(runs):
    """One rank's do; and two begin with the same."""
    both, alone = (runs.last(name)["model"] for name in ("one-task", "one-task-alone"))
    assert torch.equal(both["depth.weight"], alone["depth.weight"])
    assert not torch.equal(both["depth.weight"], runs.last("plain")["model"]["depth.weight"])


def test_every_rank_knows_all_bad_samples_and_so_does_the_checkpoint(runs):
    for name in ("uneven", "void", "parts"):
        everyone = runs.rank0[f"{name}-bad"]
        assert everyone
        assert everyone == runs.rank1[f"{name}-bad"]
        assert runs.last(name)["progress"]["loader"] == {"bad": everyone}


def test_two_ranks_that_stop_are_gone_on_from_by_one_with_the_very_next_sample(runs):
    """And the other way: records without gap or duplicate, and the same numbers as undisturbed."""
    whole = runs.rank0["plain-alone"]
    before = joined_shares(runs.rank0["two-then-one"], runs.rank1["two-then-one"])
    assert len(before) == 3
    assert before + runs.rank0["two-then-one-later"] == whole
    after = joined_shares(runs.rank0["one-then-two"], runs.rank1["one-then-two"])
    assert runs.rank0["one-then-two-earlier"] + after == whole
    for name in ("two-then-one", "one-then-two"):
        records, undisturbed = runs.records(name), runs.records("plain-alone")
        places = [(record["kind"], record["step"], record["samples"]) for record in records]
        assert places == [(row["kind"], row["step"], row["samples"]) for row in undisturbed]
        for one, two in zip(undisturbed, records, strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)


def test_two_ranks_go_on_bit_for_bit(runs):
    """Dropout of each rank, running statistics and averages included."""
    there, here = runs.last("undisturbed"), runs.last("resumed")
    for part in ("model", "ema"):
        for key, value in there[part].items():
            assert torch.equal(value, here[part][key]), key
    assert runs.records("undisturbed") == runs.records("resumed")
    mine, (other,) = there["rng"]["cpu"], (state["cpu"] for state in there["rng"]["others"])
    assert torch.equal(mine, here["rng"]["cpu"])
    assert torch.equal(other, here["rng"]["others"][0]["cpu"])
    assert runs.rank0["dropout"] != runs.rank1["dropout"]


def test_what_the_writer_meets_all_ranks_raise(runs):
    assert "exists and is not empty" in runs.rank0["in use"]
    assert runs.rank0["in use"] == runs.rank1["in use"]


def test_ranks_that_would_train_something_else_are_refused(runs):
    assert runs.rank0["unlike"] == runs.rank1["unlike"]
    assert (
        "rank 1 has another configuration than rank 0 (train.seed: 0 on rank 0, 1 on rank 1)"
        in runs.rank0["unlike"]
    )


def test_of_another_number_of_ranks_the_first_goes_on_and_the_others_begin_streams_of_their_own():
    torch.manual_seed(3)
    state = ALONE.random_state(CPU)
    expected = torch.rand(3)
    drawn = []
    for rank in range(3):
        Ranks(rank=rank, size=3).load_random_state(state, CPU)
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], expected)
    assert len({tuple(values.tolist()) for values in drawn}) == 3
    Ranks(rank=2, size=3).load_random_state(state, CPU)
    assert torch.equal(torch.rand(3), drawn[2])


def test_a_batch_that_cannot_be_shared_is_refused_with_one_that_can():
    config = TrainConfig(stages="8:1,12:1", batch_size="8,7")
    check_shares(config, ALONE, CPU)
    with pytest.raises(ValueError, match=r"batch size 7 .* by 2 ranks; use a multiple of 2, such"):
        check_shares(config, Ranks(size=2), CPU)


def test_sync_batchnorm_is_refused_on_a_cpu():
    with pytest.raises(ValueError, match="sync_batchnorm works on GPUs only; leave it out"):
        check_shares(TrainConfig(sync_batchnorm=True), Ranks(size=2), CPU)


def test_a_process_by_itself_is_alone(monkeypatch):
    for size in (None, "1"):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if size:
            monkeypatch.setenv("WORLD_SIZE", size)
        with joined(CPU) as (ranks, device):
            assert (ranks, device) == (ALONE, CPU)


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with (
        pytest.raises(TrainingError, match=r"RANK is None in the environment; .*torchrun"),
        joined(CPU),
    ):
        pass


def test_only_the_errors_of_lost_ranks_are_taken_for_such():
    gone = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]")
    assert "a rank ended" in str(lost_rank(gone))
    assert lost_rank(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
