"""Conversions killed, starved of a process or of disk space, and run again.

They end with the bytes of one that nobody disturbed; until then no file under a final name is half.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shards.convert import convert
from shards.error import ShardError
from shards.options import ConvertConfig

SCRIPT = """
import sys
from pathlib import Path
from shards.convert import convert
from shards.error import ShardError
from shards.options import ConvertConfig

source, out = map(Path, sys.argv[1:])
try:
    convert(ConvertConfig(sources=(source,), out=out, samples_per_shard=8, val=0.25, processes=2))
except ShardError as error:
    sys.exit(f"ShardError: {error}")
"""

Report = Callable[..., None]


def config(source: Path, out: Path, **options: object) -> ConvertConfig:
    settings = ConvertConfig(sources=(source,), out=out, samples_per_shard=8, val=0.25, processes=1)
    return replace(settings, **options)  # type: ignore[arg-type]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The 40 shards and more of a conversion in peace."""
    out = tmp_path_factory.mktemp("undisturbed") / "set"
    convert(config(source, out))
    found = files(out)
    assert sum(name.endswith(".tar") for name in found) > 40
    return found


@pytest.fixture
def started(source: Path) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Starts conversions by two processes, in a process group of their own."""
    running: list[subprocess.Popen[str]] = []

    def start(out: Path, largest_file: int | None = None) -> subprocess.Popen[str]:
        def limit() -> None:
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        running.append(
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(source), str(out)],
                env=os.environ | {"PYTHONPATH": str(Path.cwd())},
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                preexec_fn=limit,
            )
        )
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def tars(out: Path) -> int:
    return len(list(out.glob("*-*.tar")))


def wait_for(process: subprocess.Popen[str], out: Path, shards: int) -> None:
    while process.poll() is None and tars(out) < shards:
        time.sleep(0.001)


def check_nothing_half(out: Path, undisturbed: dict[str, bytes]) -> None:
    """What has a final name is what an undisturbed conversion would have left there."""
    for path in out.iterdir() if out.exists() else ():
        if path.name != ".convert":
            assert path.read_bytes() == undisturbed[path.name], path.name


def check_rerun(source: Path, out: Path, undisturbed: dict[str, bytes]) -> int:
    """Run again; returns how many finished shards were left alone."""
    work = out / ".convert"
    reported = {path.stem for path in work.glob("*-*.json")}
    whole = {path: path.stat().st_ino for path in out.glob("*-*.tar") if path.stem in reported}
    convert(config(source, out))
    assert files(out) == undisturbed
    assert {path: path.stat().st_ino for path in whole} == whole, "finished shards written again"
    return len(whole)


def kill_at_random(
    chance: random.Random, start: Callable[[Path], subprocess.Popen[str]], out: Path
) -> bool:
    """Kill a conversion with its writers, early or late; returns whether it was still running."""
    process = start(out)
    if chance.random() < 0.3:
        while process.poll() is None and not (out / ".convert").exists():
            time.sleep(0.001)
        time.sleep(chance.random() * 0.6)  # while it looks at the sources and starts its writers
    else:
        wait_for(process, out, tars(out) + chance.randrange(1, 36))
        time.sleep(chance.random() * 0.02)
    was_running = process.poll() is None
    if was_running:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return was_running


def kill_and_rerun(
    rounds: int,
    seed: int,
    source: Path,
    tmp_path: Path,
    start: Callable[[Path], subprocess.Popen[str]],
    undisturbed: dict[str, bytes],
) -> dict[str, int]:
    chance, kills, kept, late = random.Random(seed), 0, 0, 0
    while kills < rounds:
        assert late < rounds + 10, "conversions end before they can be killed"
        out = tmp_path / f"set{kills}-{late}"
        if not kill_at_random(chance, start, out):
            late += 1
            continue
        kills += 1
        check_nothing_half(out, undisturbed)
        if chance.random() < 0.3 and kills < rounds:  # kill the rerun too
            kills += kill_at_random(chance, start, out)
            check_nothing_half(out, undisturbed)
        kept += check_rerun(source, out, undisturbed)
    return {"kills": kills, "ended before the kill": late, "shards kept by reruns": kept}


def test_a_conversion_killed_at_any_moment_and_rerun_ends_with_the_same_bytes(
    source: Path,
    tmp_path: Path,
    started: Callable[[Path], subprocess.Popen[str]],
    undisturbed: dict[str, bytes],
) -> None:
    figures = kill_and_rerun(3, 0, source, tmp_path, started, undisturbed)
    assert figures["kills"] == 3


@pytest.mark.soak
def test_twenty_kills_change_no_byte(
    source: Path,
    tmp_path: Path,
    started: Callable[[Path], subprocess.Popen[str]],
    undisturbed: dict[str, bytes],
    soak_report: Report,
) -> None:
    figures = kill_and_rerun(20, 1, source, tmp_path, started, undisturbed)
    soak_report("kills", **figures, findings=0)
    assert figures["kills"] == 20
    assert figures["shards kept by reruns"] > 0


def test_an_unfinished_conversion_is_not_mixed_with_another(
    source: Path,
    tmp_path: Path,
    started: Callable[[Path], subprocess.Popen[str]],
    undisturbed: dict[str, bytes],
) -> None:
    out = tmp_path / "set"
    process = started(out)
    wait_for(process, out, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (out / ".convert").exists(), "it ended before it could be killed"
    for options in ({"seed": 5}, {"check": "none"}, {"samples_per_shard": 9}):
        with pytest.raises(ShardError, match="unfinished conversion of other sources or options"):
            convert(config(source, out, **options))
    check_nothing_half(out, undisturbed)
    assert check_rerun(source, out, undisturbed) >= 1


def test_a_killed_writer_is_one_line_and_a_rerun_finishes(
    source: Path,
    tmp_path: Path,
    started: Callable[[Path], subprocess.Popen[str]],
    undisturbed: dict[str, bytes],
) -> None:
    out = tmp_path / "set"
    process = started(out)
    wait_for(process, out, 3)  # by two processes: one of them has reported at least one
    (server,) = (pid for pid in children(process.pid) if b"forkserver" in command(pid))
    writer = children(server)[0]
    os.kill(writer, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = said.splitlines()
    assert line.startswith("ShardError: a process was killed")
    assert "run the same command again" in line
    check_nothing_half(out, undisturbed)
    assert not (out / "manifest.json").exists()
    assert check_rerun(source, out, undisturbed) >= 1


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_file_that_cannot_grow_is_one_line_and_a_rerun_finishes(
    source: Path,
    tmp_path: Path,
    started: Callable[..., subprocess.Popen[str]],
    undisturbed: dict[str, bytes],
) -> None:
    """A quota, or a file system's limit: some shards fit, the larger half does not."""
    sizes = sorted(len(content) for name, content in undisturbed.items()
                   if name.endswith(".tar") and name != "backgrounds.tar")  # fmt: skip
    out = tmp_path / "set"
    _, said = started(out, max(sizes[-1] - 1, len(undisturbed["backgrounds.tar"]))).communicate()
    check_starved(said, "File too large", out, undisturbed)
    check_rerun(source, out, undisturbed)


def test_a_full_disk_is_one_line_and_a_rerun_finishes(
    source: Path,
    tmp_path: Path,
    started: Callable[[Path], subprocess.Popen[str]],
    undisturbed: dict[str, bytes],
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    half = sum(map(len, undisturbed.values())) // 2
    mount = ["mount", "-t", "tmpfs", "-o", f"size={half}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk takes the right to mount one")
    try:
        out = disk / "set"
        _, said = started(out).communicate()
        check_starved(said, "No space left on device", out, undisturbed)
        subprocess.run(["mount", "-o", f"remount,size={16 * half}", str(disk)], check=True)
        assert check_rerun(source, out, undisturbed) >= 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def check_starved(said: str, reason: str, out: Path, undisturbed: dict[str, bytes]) -> None:
    (line,) = said.splitlines()
    assert line.startswith(f"ShardError: cannot write {out}")
    assert reason in line
    assert "run the same command again" in line
    assert not (out / "manifest.json").exists()
    check_nothing_half(out, undisturbed)
