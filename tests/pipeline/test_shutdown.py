"""However a stream ends, nothing is left behind: no thread, no file, no process, no long wait."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SECONDS = 20
"""A stream ends within a fraction of one; the rest is for a busy machine."""

PRELUDE = """
import gc, os, random, signal, sys, threading, time
from dataclasses import replace
from pathlib import Path
import torch
from pipeline.loader import Loader, LoaderConfig

torch.set_num_threads(1)
folder, decoder = Path(sys.argv[1]), sys.argv[2]
config = LoaderConfig(decoder=decoder, threads=2, cache="off")

def batches_of(loader, steps=10_000):
    return loader.train(size=32, batch_size=8, start=0, num_steps=steps)

def left():
    gc.collect()
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

def settled(before):
    # the threads of a pool that is being joined when the signal comes end by themselves
    deadline = time.monotonic() + 5
    while left() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    return left()
"""

MANY_ENDS = """
class Spilt(Exception):
    pass

def once(step, ending, cache="off"):
    how = replace(config, cache=cache)
    with Loader(folder, how, torch.device("cpu")) as loader, batches_of(loader) as batches:
        for at, batch in enumerate(batches):
            if at < step:
                continue
            if ending == "close":
                loader.close()
            elif ending == "raise":
                raise Spilt
            elif ending == "break":
                break
            elif at == step:
                threading.Timer(chance.random() * 0.05, signal.raise_signal, [2]).start()

chance = random.Random(1)
for cache in ("off", "host"):
    once(3, "break", cache)
before = left()
for step in range(int(sys.argv[3])):
    ending = ("close", "raise", "break", "interrupt", "interrupt", "interrupt")[step % 6]
    try:
        once(step % 7, ending, ("off", "host")[step // 6 % 2])
    except (Spilt, KeyboardInterrupt) as error:
        assert isinstance(error, Spilt) == (ending == "raise")
    after = settled(before)
    assert after == before, f"{ending} at {step}: threads and files {before}, then {after}"
print("nothing left")
"""

USERS_LOOP = """
with Loader(folder, config, torch.device("cpu")) as loader, batches_of(loader) as batches:
    for step, batch in enumerate(batches):
        if step == 5:
            print("streaming", flush=True)
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts Python in a process group of its own, with a folder of its own for temporary files."""
    running: list[subprocess.Popen[str]] = []
    (tmp_path / "tmp").mkdir()

    def run(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(Path.cwd()), "TMPDIR": str(tmp_path / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _group_is_gone(process: subprocess.Popen[str]) -> bool:
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("decoder", ["turbojpeg", "dali"])
def test_eighteen_ends_leave_no_thread_and_no_file(
    start: Start, small_set: Path, decoder: str
) -> None:
    """Closed by the user, left by an exception or a break, interrupted at any moment."""
    _end_often(start, small_set, decoder, 18)


@pytest.mark.soak
@pytest.mark.parametrize("decoder", ["turbojpeg", "dali"])
def test_two_hundred_ends_leave_no_thread_and_no_file(
    start: Start, small_set: Path, decoder: str, soak_report: Callable[..., None]
) -> None:
    _end_often(start, small_set, decoder, 200)
    soak_report(f"ends_{decoder}", ends=200, interrupted=100, left_behind=0)


def _end_often(start: Start, set_path: Path, decoder: str, times: int) -> None:
    process = start("-c", PRELUDE + MANY_ENDS, set_path, decoder, times)
    out, err = process.communicate(timeout=3 * SECONDS + times)
    assert process.returncode == 0, err
    assert out == "nothing left\n"


@pytest.mark.parametrize("decoder", ["turbojpeg", "dali"])
def test_ctrl_c_ends_a_users_own_loop_at_once(
    start: Start, small_set: Path, tmp_path: Path, decoder: str
) -> None:
    """As Python ends a loop: by KeyboardInterrupt, to which no thread or queue adds a word."""
    before = _files(small_set)
    process = start("-c", PRELUDE + USERS_LOOP, small_set, decoder)
    assert process.stdout is not None
    assert process.stdout.readline() == "streaming\n"
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert time.monotonic() - began < SECONDS
    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1, err
    assert err.endswith("KeyboardInterrupt\n")
    assert _group_is_gone(process)
    assert not list((tmp_path / "tmp").iterdir())
    assert _files(small_set) == before


@pytest.mark.parametrize("decoder", ["turbojpeg", "dali"])
def test_ctrl_c_while_training_saves_and_exits_with_130(
    start: Start, small_set: Path, tmp_path: Path, decoder: str
) -> None:
    """One line on stderr, no process and no temporary file; the run goes on where it stopped."""
    out = tmp_path / "run"
    process = start(
        "-c", "import cli; cli.main()", "train", "--data", small_set, "--out", out, "--device",
        "cpu", "--decoder", decoder, "--stages", "32:200", "--batch-size", "24", "--log-every", "1",
    )  # fmt: skip
    deadline = time.monotonic() + 3 * SECONDS
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").stat().st_size:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    last = err.splitlines()[-1]
    assert last.startswith("maskdepth: stopped by SIGINT after step ")
    told = last.partition(" from there: ")[2]
    assert told.startswith(f"maskdepth train --data {small_set} --out {out} "), last
    assert told.endswith(" --resume")
    assert "Traceback" not in err
    assert (out / "last.pt").exists()
    assert not list(out.glob("*.tmp"))
    # torch makes an empty folder of its own when the optimiser is imported
    assert not [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()]
    assert _group_is_gone(process)
