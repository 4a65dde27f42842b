"""Trainings killed without warning, in real processes of the command line, and resumed.

They end with the weights of one that nobody disturbed, bit for bit, and with its records.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import torch

from models.checkpoint import checkpoints_of, read_checkpoint
from shards.convert import convert
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise

ROOT = Path(__file__).parents[3]
OPTIONS = (
    "--device", "cpu", "--stages", "32:1,64:1", "--batch-size", "4", "--width", "s",
    "--precision", "fp32", "--ema-decay", "0.9", "--log-every", "1", "--checkpoint-every", "5",
    "--panels", "0", "--threads", "1", "--tune", "off",
)  # fmt: skip
NUM_STEPS, BORDER = 24, 12
"""48 training samples: an epoch at 32 px, and one at 64 px."""

CLOCKED = re.compile(r".*_s|.*_share|.*memory.*|.*mfu.*|.*flops.*")
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training and 16 validation samples at 64 px."""
    folder = tmp_path_factory.mktemp("tiny")
    made = SynthConfig(count=64, size=64, seed=3, num_backgrounds=2, num_foregrounds=4)
    synthesise(folder / "source", made)
    out = folder / "set"
    convert(
        ConvertConfig(
            sources=(folder / "source",), out=out, samples_per_shard=32, val=0.25, processes=1
        )
    )
    return out


@pytest.fixture
def start(tiny_set: Path) -> Iterator[Start]:
    """Starts `maskdepth train` in a process group of its own."""
    running: list[subprocess.Popen[str]] = []

    def begin(out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "cli.py", "train", "--data", tiny_set, "--out", out, *OPTIONS]
        running.append(
            subprocess.Popen(
                [*command, "--resume"], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                start_new_session=True,
            )
        )  # fmt: skip
        return running[-1]

    yield begin
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said


def last_step(out: Path) -> int:
    """Of the newest record; a torn one counts as none."""
    try:
        *_, line = (out / "metrics.jsonl").read_text().splitlines()
        return int(json.loads(line)["step"])
    except (ValueError, FileNotFoundError):
        return 0


def kill_after(step: int, start: Start, out: Path, delay_s: float) -> bool:
    """Kill a training some time after a record of a step; returns whether it was still running."""
    process = start(out)
    while process.poll() is None and last_step(out) < step:
        time.sleep(0.002)
    time.sleep(delay_s)
    was_running = process.poll() is None
    if was_running:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return was_running


def records(out: Path) -> list[dict[str, object]]:
    """Every record without what a clock decides."""
    return [
        {key: value for key, value in record.items() if not CLOCKED.fullmatch(key)}
        for record in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    ]


def leaves(value: object, where: str = "") -> Iterator[tuple[str, object]]:
    """Everything in a checkpoint by its place; tensors as their bytes."""
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, part in value.items():
            if key != "elapsed_s":
                yield from leaves(part, f"{where}.{key}")
    elif isinstance(value, torch.Tensor):
        yield where, (value.dtype, value.shape, value.contiguous().numpy().tobytes())
    else:
        yield where, value


def check_same_run(out: Path, undisturbed: Path) -> None:
    for name in ("last.pt", "best.pt"):
        there, here = (dict(leaves(read_checkpoint(run / name))) for run in (undisturbed, out))
        assert [place for place in there if there[place] != here.get(place)] == []
        assert there.keys() == here.keys()
    assert records(out) == records(undisturbed)


def check_records(out: Path) -> None:
    """Each step once, in order, and the validations at the ends of epochs."""
    steps = [(record["kind"], record["step"]) for record in records(out)]
    assert [step for kind, step in steps if kind == "train"] == [*range(1, NUM_STEPS + 1)]
    assert [step for kind, step in steps if kind == "validation"] == [BORDER, NUM_STEPS]


def test_a_run_killed_in_either_stage_and_resumed_ends_with_the_same_bits(
    tmp_path: Path, start: Start
) -> None:
    chance = random.Random(int(os.environ.get("MASKDEPTH_SEED", "0")))
    undisturbed = start(tmp_path / "undisturbed")
    out = tmp_path / "run"
    for first, last in ((1, BORDER - 2), (BORDER, NUM_STEPS - 4)):
        assert kill_after(chance.randrange(first, last), start, out, chance.random() * 0.05)
        assert all(read_checkpoint(path) for path in checkpoints_of(out)), "a torn file"
    finish(start(out))
    finish(undisturbed)
    check_records(out)
    check_same_run(out, tmp_path / "undisturbed")


@pytest.mark.soak
def test_ten_kills_change_no_bit(
    tmp_path: Path, start: Start, soak_report: Callable[..., None]
) -> None:
    """Anywhere, also while the process starts, saves or validates; each is resumed to the end."""
    chance = random.Random(1)
    finish(start(tmp_path / "undisturbed"))
    kills, late, places = 0, 0, []
    for number in count():
        out = tmp_path / f"run{number}"
        step = 0 if number == 3 else chance.randrange(1, NUM_STEPS)
        if not kill_after(step, start, out, chance.random() * (3.0 if step == 0 else 0.2)):
            late += 1
            continue
        kills += 1
        places.append(last_step(out))
        finish(start(out))
        check_records(out)
        check_same_run(out, tmp_path / "undisturbed")
        if kills == 10:
            break
        assert late < 10, "runs end before they can be killed"
    soak_report("training-kills", kills=kills, ended_before=late, at_steps=places, findings=0)
