"""The command itself, started by torchrun as two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from models.checkpoint import read_checkpoint

BEFORE = "from cli import main; main()"
NUM_STEPS = 60
OPTIONS = (
    f"--network 004-masknet3 --precision fp32 --stages 32:{4 * NUM_STEPS}s --batch-size 4 "
    "--tune off --cache off --panels 0 --log-every 1 --checkpoint-every 5 --augment none --resume"
)
TRAIN = ["train", *OPTIONS.split()]


def environment() -> dict[str, str]:
    """One thread for each rank, and this checkout's modules."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}


@contextmanager
def started(small_set, out, *more, torchrun=()):
    """Two ranks, as README says; `python -c` in place of the installed command."""
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    run += [*torchrun, "--no-python", sys.executable, "-c", BEFORE]
    process = subprocess.Popen(
        [*run, *TRAIN, "--data", small_set, "--out", out, *more],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()  # which torchrun hands on; of one that has ended nothing comes


def rank_of(process, rank):
    """Process id of one of torchrun's children."""
    for folder in Path("/proc").iterdir():
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if parent == str(process.pid):
                variables = (folder / "environ").read_bytes().split(b"\0")
                if f"RANK={rank}".encode() in variables:
                    return int(folder.name)
        except (OSError, IndexError):  # no process, or one that ended meanwhile
            continue
    raise AssertionError


def records(out):
    """Of a run that may be going on: whole lines."""
    path = out / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for_step(process, out, step):
    """Until a record of that step is there."""
    end = time.monotonic() + 120
    while not any(record["step"] >= step for record in records(out)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_rank_ends_the_job_and_one_rank_goes_on_with_the_next_sample(small_set, tmp_path):
    """Within 30 s, with a status, the reason on stderr and a checkpoint; then without a gap."""
    out = tmp_path / "run"
    with started(small_set, out) as process:
        wait_for_step(process, out, 12)
        began = time.monotonic()
        os.kill(rank_of(process, 1), signal.SIGKILL)
        told = process.communicate(timeout=60)[1]
    assert time.monotonic() - began < 30
    assert process.returncode != 0
    assert told.count("maskdepth: a rank ended, and the others cannot go on without it") == 1
    assert "Signal 9 (SIGKILL) received" in told

    before = read_checkpoint(out / "last.pt")["progress"]
    assert before["samples"] == 4 * before["step"] >= 40
    # as many ranks as there are now, which is one
    alone = [sys.executable, "-c", BEFORE, *TRAIN, "--data", small_set, "--out", out]
    subprocess.run(alone, env=environment(), check=True, capture_output=True, timeout=120)
    steps = [(row["step"], row["samples"]) for row in records(out) if row["kind"] == "train"]
    assert steps == [(step, 4 * step) for step in range(1, NUM_STEPS + 1)]


@pytest.mark.soak
def test_torchrun_starts_the_ranks_again_and_they_go_on(small_set, tmp_path):
    out = tmp_path / "run"
    with started(small_set, out, torchrun=["--max-restarts", "2"]) as process:
        wait_for_step(process, out, 12)
        os.kill(rank_of(process, 0), signal.SIGKILL)
        told = process.communicate(timeout=180)[1]
    assert process.returncode == 0, told
    steps = [(row["step"], row["samples"]) for row in records(out) if row["kind"] == "train"]
    assert steps == [(step, 4 * step) for step in range(1, NUM_STEPS + 1)]


@pytest.mark.soak
def test_a_stopped_job_is_saved_once_and_told_once(small_set, tmp_path):
    """SIGTERM to torchrun, as a scheduler sends it; then both go on to the end."""
    out = tmp_path / "run"
    with started(small_set, out) as process:
        wait_for_step(process, out, 12)
        process.terminate()
        told = process.communicate(timeout=60)[1]
    assert told.count("stopped by SIGTERM after step") == 1
    progress = read_checkpoint(out / "last.pt")["progress"]
    assert progress["samples"] == 4 * progress["step"] >= 48
    with started(small_set, out) as again:
        told = again.communicate(timeout=180)
    assert again.returncode == 0, told
    assert told[0].count("\nrun          ") == 1
    steps = [(row["step"], row["samples"]) for row in records(out) if row["kind"] == "train"]
    assert steps == [(step, 4 * step) for step in range(1, NUM_STEPS + 1)]


@pytest.mark.soak
def test_a_batch_that_cannot_be_shared_is_refused_in_one_line(small_set, tmp_path):
    with started(small_set, tmp_path / "run", "--batch-size", "7") as process:
        told = process.communicate(timeout=120)[1]
    lines = [line for line in told.splitlines() if line.startswith("maskdepth:")]
    assert len(lines) == 1
    assert "batch size 7 cannot be shared by 2 ranks; use a multiple of 2" in lines[0]
