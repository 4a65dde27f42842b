"""Peers run in their own interpreters, and count only if they deliver what we do."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu
from benchmarks.harness import CannotRun
from benchmarks.loader import CPU, STREAM, exact_images
from benchmarks.peers import environments
from benchmarks.peers.__main__ import main
from benchmarks.peers.contenders import (
    CACHED,
    NUM_COMPARED,
    ON_GPU,
    PILLOW,
    STREAMING,
    Images,
    PeerKind,
    Peers,
    check_images,
)
from benchmarks.peers.environments import ENVIRONMENTS, Environment, pinned, python_of
from benchmarks.peers.process import PeerProcess
from benchmarks.peers.set_files import SetFiles
from pipeline.loader import Loader
from pipeline.source import EncodedSample

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def loader(small_set: Path) -> Iterator[Loader]:
    with Loader(small_set, STREAM, CPU) as opened:
        yield opened


@pytest.fixture
def no_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for the peers' environments."""
    monkeypatch.setenv("MASKDEPTH_PEERS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("kind", [*STREAMING, *CACHED], ids=lambda kind: kind.title)
def test_a_peer_delivers_our_arrays(
    kind: PeerKind, small_set: Path, tmp_path: Path, loader: Loader
) -> None:
    """The pixels are compared before the first turn; here every peer must pass that."""
    try:
        python_of(kind.environment)
    except CannotRun as error:
        pytest.skip(str(error))
    compared: list[int] = []

    def reference(size: int) -> Images:
        compared.append(size)
        return exact_images(loader, size)

    with Peers(small_set, 224, tmp_path, reference) as peers:
        for size in (224, 64):
            once = peers.contender(kind, size=size, batch_size=16, threads=2, seconds=0.01)
            assert once() > 0
            assert once() > 0
        assert peers.versions["numpy"] == np.__version__
    assert compared == [224, 64]


def test_what_a_peer_decodes_in_full_is_bit_for_bit_ours(
    small_set: Path, tmp_path: Path, loader: Loader
) -> None:
    """So `exact_images`, which all are compared with, is what Pillow makes of the files."""
    with Peers(small_set, 224, tmp_path, lambda size: exact_images(loader, size)) as peers:
        peers.contender(PILLOW, size=96, batch_size=16, threads=1, seconds=0.01)()
    with np.load(tmp_path / PILLOW.module / "shown.npz") as theirs:
        for part, expected in exact_images(loader, 96).items():
            assert len(expected) == NUM_COMPARED
            np.testing.assert_array_equal(theirs[part], expected)


def test_other_pixels_are_refused() -> None:
    ours = {"mask": np.full((4, 8, 8), 100, np.uint8)}
    check_images(ours, ours)
    check_images({"mask": ours["mask"] + np.uint8(3)}, ours)
    with pytest.raises(CannotRun, match=r"mask is 4\.0 levels off on average, 4 at the 99\.9th"):
        check_images({"mask": ours["mask"] - np.uint8(4)}, ours)
    speck = ours["mask"].copy()
    speck[0, 0, 0] = 0
    with pytest.raises(CannotRun, match=r"mask is 0\.4 levels off on average"):
        check_images({"mask": speck}, ours)
    with pytest.raises(CannotRun, match=r"mask as float32 \(4, 8, 8\), not uint8 \(4, 8, 8\)"):
        check_images({"mask": ours["mask"].astype(np.float32)}, ours)
    with pytest.raises(CannotRun, match=r"mask as uint8 \(4, 8\), not"):
        check_images({"mask": ours["mask"][..., 0]}, ours)


def test_peers_read_the_members_that_our_source_reads(small_set: Path, loader: Loader) -> None:
    files = SetFiles(small_set)
    assert len(files) == loader.num_samples
    for number, sample in enumerate(loader.training.read_many(np.arange(len(files)))):
        assert isinstance(sample, EncodedSample)
        assert files[number] == tuple(map(bytes, sample))


def test_a_fault_of_a_peer_is_its_reason_and_the_next_line_is_answered() -> None:
    with peer_process(Path(sys.executable), module="nobody") as process:
        for _ in range(2):
            with pytest.raises(CannotRun, match="ModuleNotFoundError: No module named"):
                process.ask("run", seconds=1)
        assert process.is_alive
    assert not process.is_alive


def test_a_process_that_ends_is_quoted(tmp_path: Path) -> None:
    python = script(tmp_path, "echo starting >&2; echo no such library >&2; exit 3")
    with peer_process(python) as process, pytest.raises(
        CannotRun, match="its process ended with 3: no such library"
    ):  # fmt: skip
        process.ask("run", seconds=1)


def test_a_process_that_does_not_answer_is_ended(tmp_path: Path) -> None:
    with peer_process(script(tmp_path, "sleep 60")) as process:
        began = time.monotonic()
        with pytest.raises(CannotRun, match="no answer to 'run' within 0 s"):
            process.ask("run", patience_s=0.2, seconds=1)
        assert not process.is_alive
    assert time.monotonic() - began < 30


def test_a_peer_sees_none_of_our_modules(tmp_path: Path) -> None:
    """Not even from our interpreter's working directory: its environment is its own."""
    python = script(tmp_path, f'cd {ROOT}; exec {sys.executable} -S "$@"')
    with peer_process(python, module="job") as process, pytest.raises(
        CannotRun, match="No module named 'numpy'"
    ):  # fmt: skip
        process.ask("run", seconds=1)


@pytest.mark.usefixtures("no_environments")
def test_a_peer_with_our_packages_runs_in_our_environment() -> None:
    assert python_of("pillow") == Path(sys.executable)
    with pytest.raises(CannotRun, match=r"not made; run `python -m benchmarks\.peers make ffcv`"):
        python_of("ffcv")


def test_a_made_environment_is_used_while_its_versions_are_the_pinned_ones(
    no_environments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made for real, of what needs no download: pip alone."""
    empty = Environment(name="ffcv", packages=())
    monkeypatch.setitem(environments.ENVIRONMENTS, "ffcv", empty)
    monkeypatch.setattr(environments, "_install", lambda *_: None)
    assert main(["make", "ffcv"]) == 0
    assert python_of("ffcv") == no_environments / "ffcv" / "bin" / "python"
    assert python_of("ffcv").exists()
    (no_environments / "ffcv" / "made-from.txt").write_text("ffcv==0.1\n")
    with pytest.raises(CannotRun, match="was made of other versions; run"):
        python_of("ffcv")


@pytest.mark.usefixtures("no_environments")
def test_an_environment_that_cannot_be_made_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = Environment(name="ffcv", packages=("numpy",), remark="it needs a compiler")
    monkeypatch.setitem(environments.ENVIRONMENTS, "ffcv", broken)
    monkeypatch.setattr(environments, "CONSTRAINTS", ROOT / "pyproject.toml")
    monkeypatch.setattr(environments, "pinned", lambda: {"numpy": "0"})
    assert main(["make", "ffcv"]) == 1
    assert "ffcv's packages; see its words above (it needs a compiler)" in capfd.readouterr().err


def test_all_packages_are_pinned_and_shared_ones_as_ours() -> None:
    theirs = pinned()
    for environment in ENVIRONMENTS.values():
        assert len(environment.pins) == len(environment.packages) + len(environment.alone)
    ours = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    shared = theirs.keys() & ours.keys()
    assert {"torch", "numpy", "pillow", "simplejpeg", "webdataset"} <= shared
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_tables_of_a_gpu_have_no_failed_row_of_ours(small_set: Path) -> None:
    peers = {kind.title for kind in ON_GPU}
    for title, rows in gpu.tables(small_set, seconds=0.01, turns=1, peers=None).items():
        assert [row.failure for row in rows if row.name not in peers and row.failure] == [], title


def peer_process(python: Path, *, module: str = "pillow_loader") -> PeerProcess:
    return PeerProcess(python, module, ["numpy"], variables={})


def script(folder: Path, commands: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(0o755)
    return path
