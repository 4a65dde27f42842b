"""The command line as a user meets it: what it prints, and how it fails."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cli
from models.checkpoint import encode, read_checkpoint, write_atomically
from models.losses import LossConfig
from models.registry import NetworkConfig
from models.training.config import TrainConfig
from models.training.optimizer import OptimizerConfig
from models.training.precision import PrecisionConfig
from models.training.schedule import ScheduleConfig
from pipeline.loader import Loader, LoaderConfig
from pipeline.normalise import Normalisation
from shards.options import ConvertConfig
from shards.synth import SynthConfig


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code if isinstance(ended.value.code, int) else 0


def test_the_file_itself_runs_where_nothing_is_installed(tmp_path: Path) -> None:
    script = Path(cli.__file__)
    done = subprocess.run(
        [sys.executable, script, "synth", tmp_path / "zips", "--count", "2", "--processes", "2"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "2 triplets" in done.stdout
    assert list((tmp_path / "zips").glob("*.zip"))


def test_help_is_instant() -> None:
    """No command's packages are imported before it runs."""
    script = "import sys, cli; print([m for m in ('torch', 'numpy', 'nvidia') if m in sys.modules])"
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
    assert time.perf_counter() - began < 5


def test_ctrl_c_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing could be saved: before a run has begun, and the second time within it."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("models.listing.list_networks", interrupted)
    assert run("models") == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "interrupted" in line
    assert "`train` goes on from its last checkpoint with --resume" in line


CONFIGURATIONS: dict[str, dict[str, tuple[Any, str]]] = {
    "synth": {name: (SynthConfig, name) for name in ("layout", "size", "seed", "quality")},
    "convert": {
        name: (ConvertConfig, name)
        for name in ("layout", "split", "val", "seed", "samples_per_shard", "check", "max_rejected")
    },
    "train": {
        **{
            name: (TrainConfig, name)
            for name in (
                "stages", "batch_size", "ema_decay", "seed", "log_every", "checkpoint_every",
                "tasks", "accumulate", "patience", "keep_every", "max_bad_steps",
            )
        },
        "panels": (TrainConfig, "num_panels"),
        "network": (NetworkConfig, "name"),
        "mask_loss": (LossConfig, "mask"),
        "depth_loss": (LossConfig, "depth"),
        **{name: (LossConfig, name) for name in ("mask_weight", "depth_weight")},
        "optimizer": (OptimizerConfig, "name"),
        **{
            name: (OptimizerConfig, name)
            for name in ("lr", "momentum", "weight_decay", "clip_norm", "clip_value")
        },
        "schedule": (ScheduleConfig, "name"),
        **{name: (ScheduleConfig, name) for name in ("warmup", "at_stage")},
        "step_at": (ScheduleConfig, "at"),
        "lr_factor": (ScheduleConfig, "factor"),
        "plateau_patience": (ScheduleConfig, "patience"),
        "precision": (PrecisionConfig, "dtype"),
        "compile": (PrecisionConfig, "compile"),
        **{
            name: (LoaderConfig, name)
            for name in (
                "cache", "decoder", "order", "prefetch_batches", "hw_decoder_load", "threads",
                "tune",
                "max_bad_samples",
            )
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("command", CONFIGURATIONS)
def test_the_help_states_the_configurations_own_defaults(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERMINAL_WIDTH", "300")
    run(command, "--help")
    text = capsys.readouterr().out
    stated = {
        name.replace("-", "_"): default
        for name, default in re.findall(r"--([a-z-]+) .*?\(default: ([^)]+)\)", text)
    }
    for option, (configuration, field_name) in CONFIGURATIONS[command].items():
        fields = {field.name: field.default for field in dataclasses.fields(configuration)}
        assert stated[option] == str(fields[field_name]), option


def test_a_set_is_converted_verified_and_shown(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    assert run("convert", source, "--out", out, "--processes", 1, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["samples"] == {"train": 280, "val": 40, "mixed": 0}
    assert run("verify", out, "--deep") == 0
    assert run("inspect", out, "--panel", tmp_path / "panel.png") == 0
    shown = capsys.readouterr().out
    assert "320 samples (280 train, 40 val)" in shown
    assert "983 = 960 used + 4 backgrounds + 18 auxiliary + 1 debris" in shown
    assert (tmp_path / "panel.png").stat().st_size > 10_000
    tar = out / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-81])
    assert run("verify", out) == 1
    assert "train-000000.tar: is 81 bytes shorter than the manifest says" in capsys.readouterr().out


@pytest.fixture(scope="session")
def trained(small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps on `small_set`."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert run("train", "--data", small_set, "--out", out, "--stages", "32:0.3,64:0.2",
               "--batch-size", "24,16", "--device", "cpu", "--panels", 2) == 0  # fmt: skip
    return out


def test_a_run_leaves_what_it_promises(trained: Path) -> None:
    found = {path.name for path in trained.iterdir()}
    assert found == {
        "config.toml", "last.pt", "previous.pt", "best.pt", "metrics.jsonl", "tensorboard", "panels"
    }  # fmt: skip
    assert {path.suffix for path in (trained / "panels").iterdir()} == {".png"}


def test_a_checkpoint_is_scored_beside_the_free_baselines(
    trained: Path, small_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("evaluate", "--checkpoint", trained / "best.pt", "--data", small_set)
    assert run(*arguments, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["size"] == 64
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    for name in ("mask_iou", "depth_rmse", "baseline_mask_iou", "baseline_depth_rmse"):
        assert scores[name] == pytest.approx(last[name], abs=1e-6)
    assert not any(name.startswith("published") for name in scores)
    assert run(*arguments, "--published") == 0
    table = capsys.readouterr().out
    for words in ("free baseline", "mask_boundary_f", "published_000_dice", "published_004_rmse"):
        assert words in table


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")]
)
def test_out_of_memory_while_scoring_is_said_in_one_line(
    trained: Path,
    small_set: Path,
    error: Exception,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hungry(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("models.training.evaluate.evaluate", hungry)
    assert run("evaluate", "--checkpoint", trained / "best.pt", "--data", small_set) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("maskdepth: out of memory; a sm")


def test_an_error_that_is_not_the_users_keeps_its_traceback(
    trained: Path, small_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        msg = "shapes do not agree"
        raise RuntimeError(msg)

    monkeypatch.setattr("models.training.evaluate.evaluate", broken)
    command = ["evaluate", "--checkpoint", str(trained / "best.pt"), "--data", str(small_set)]
    with pytest.raises(RuntimeError, match="shapes"):
        cli.main(command)


def test_another_set_is_scored_as_the_network_was_trained(
    trained: Path, small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Normalised by what the checkpoint knows, not by the set's own mean and deviation."""
    state = read_checkpoint(trained / "best.pt")
    state["set"] |= {"pixel_mean": (0.1, 0.2, 0.3), "pixel_std": (0.4, 0.5, 0.6)}
    write_atomically(tmp_path / "other.pt", encode(state))
    seen: list[Normalisation] = []

    def note(network: object, loader: Loader, **_: object) -> dict[str, float]:
        with loader.validate(size=32, batch_size=4) as batches:
            pixels = loader.normalisation.pixels(next(batches).composite)
        assert pixels.min() >= 0
        seen.append(loader.normalisation)
        return {}

    monkeypatch.setattr("models.training.evaluate.evaluate", note)
    assert run("evaluate", "--checkpoint", tmp_path / "other.pt", "--data", small_set) == 0
    assert seen == [Normalisation(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))]


def test_predictions_are_written_for_a_pair_and_for_a_set(
    trained: Path, small_set: Path, tmp_path: Path
) -> None:
    with tarfile.open(small_set / "backgrounds.tar") as archive:
        archive.extractall(tmp_path / "bg", filter="data")
    with tarfile.open(small_set / "val-000000.tar") as archive:
        (tmp_path / "fg").mkdir()
        names = [name for name in archive.getnames() if name.endswith(".fgbg.jpg")][:3]
        for name in names:
            content = archive.extractfile(name)
            assert content is not None
            (tmp_path / "fg" / name.replace(".fgbg", "")).write_bytes(content.read())
    composite = tmp_path / "fg" / names[0].replace(".fgbg", "")
    background = tmp_path / "bg" / f"{names[0].partition('_')[0]}.jpg"
    for given in (composite, composite.parent):
        out = tmp_path / f"out-{given.stem}"
        assert run("predict", "--checkpoint", trained / "last.pt", "--background", background,
                   "--composite", given, "--out", out) == 0  # fmt: skip
        assert (out / f"{composite.stem}.mask.png").exists()
        assert (out / f"{composite.stem}.depth.png").exists()
        assert (out / "panel.png").exists()
    out = tmp_path / "out-set"
    assert run("predict", "--checkpoint", trained / "last.pt", "--data", small_set,
               "--out", out) == 0  # fmt: skip
    assert len(list(out.glob("*.mask.png"))) == 80
    assert (out / f"{composite.stem}.mask.png").exists(), "predictions are named by their keys"


def test_a_finished_run_resumed_says_the_same(
    trained: Path, small_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "last.pt").read_bytes()
    arguments = ("train", "--data", small_set, "--out", trained, "--stages", "32:0.3,64:0.2",
                 "--batch-size", "24,16", "--device", "cpu", "--panels", 2)  # fmt: skip
    assert run(*arguments) == 2
    assert "--resume" in capsys.readouterr().err
    assert run(*arguments, "--resume") == 0
    assert (trained / "last.pt").read_bytes() == before


def test_the_wrong_input_is_named_in_one_line_with_the_next_action(
    trained: Path, small_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_zip = tmp_path / "holiday.zip"
    no_zip.write_bytes(b"not a zip")
    other_zip = tmp_path / "other.zip"
    with zipfile.ZipFile(other_zip, "w") as archive:
        archive.writestr("letter.txt", "dear reader")
    cut = tmp_path / "cut"
    shutil.copytree(small_set, cut)
    (cut / "train-000001.tar").write_bytes(b"x" * 1000)
    out = tmp_path / "out"
    train = ("train", "--data", small_set, "--out", out)
    again = ("train", "--data", small_set, "--out", trained, "--stages", "32:0.3,64:0.2",
             "--batch-size", "24,16", "--panels", 2, "--resume")  # fmt: skip
    checkpoint = trained / "last.pt"
    broken = tmp_path / "broken.pt"
    broken.write_bytes(checkpoint.read_bytes()[:-300])
    cases: list[tuple[tuple[object, ...], str]] = [
        (("convert", tmp_path / "nowhere", "--out", out), "does not exist; name a zip"),
        (("convert", no_zip, "--out", out), "is no zip, or its end is missing"),
        (("convert", other_zip, "--out", out), "hold no triplets of a known layout; looked for"),
        (("convert", other_zip), "Missing option '--out'"),
        (("train", "--data", tmp_path, "--out", out), "so it is no finished set; run"),
        (("train", "--data", cut, "--out", out), "train-000001.tar is"),
        (("verify", tmp_path / "nowhere"), "is no folder; make a set there"),
        ((*again, "--width", "m"), "holds another network (network.width: 's' there, 'm' here)"),
        ((*again, "--lr", "0.5"), "train.optimizer.lr: 0.012 there, 0.5 here"),
        ((*again, "--order", "windowed"), "loader.order: 'global' there, 'windowed' here"),
        ((*train, "--window-shards", 8), "of no use to the global order; ask for 'windowed'"),
        (("bench", "order", "--peers"), "--peers is of no use to bench order; leave it out"),
        ((*train, "--stages", "64"), "64"),
        ((*train, "--stages", "50:1"), "multiple of 32"),
        ((*train, "--width", "xxl"), "has no width 'xxl'; it has: s, m, l"),
        ((*train, "--mask-loss", "hope"), "unknown term 'hope'; known: bce"),
        ((*train, "--decoder", "magic"), "'magic'; it must be one of auto, turbojpeg, dali"),
        ((*train, "--device", "abacus"), "'abacus'; it must be auto, cpu or cuda"),
        ((*train, "--precision", "int3"), "'int3' is not known; choose one of auto"),
        ((*train, "--schedule", "moon"), "'moon' is not known; choose one of one-cycle"),
        (("evaluate", "--checkpoint", broken, "--data", small_set), "is damaged or cut short"),
        (("evaluate", "--checkpoint", no_zip, "--data", small_set), "is not a maskdepth checkp"),
        (("evaluate", "--checkpoint", tmp_path / "no.pt", "--data", small_set), "no checkpoint"),
        (("predict", "--checkpoint", checkpoint, "--out", out), "give either --composite"),
        (
            ("predict", "--checkpoint", checkpoint, "--composite", no_zip, "--background",
             tmp_path / "no.jpg", "--out", out),
            "no.jpg does not exist; name an image",
        ),
        (("synth", out, "--count", 0), "count"),
    ]  # fmt: skip
    for arguments, expected in cases:
        assert run(*arguments) == 2, arguments
        printed = capsys.readouterr()
        assert expected in printed.err, arguments
        assert printed.err.startswith("maskdepth: ")
        assert printed.err.count("\n") == 1, printed.err
        assert not printed.out


def test_bad_samples_are_counted_in_the_last_line_of_every_command(
    small_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged, out = tmp_path / "set", tmp_path / "run"
    shutil.copytree(small_set, damaged)
    for name in ("train-000002", "val-000001"):
        row = np.load(damaged / f"{name}.npy")[5]
        with (damaged / f"{name}.tar").open("r+b") as tar:
            tar.seek(int(row["offset"][1]) + 100)
            tar.write(b"a scratch")
    assert run("train", "--data", damaged, "--out", out, "--stages", "32:1", "--batch-size", 24,
               "--device", "cpu", "--panels", 0) == 0  # fmt: skip
    last = "bad samples  2, left out at weight 0; `maskdepth verify` names them"
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1] == last
    assert "newest panel" not in shown, "none was drawn"
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [(record["kind"], record["bad_samples"]) for record in records] == [
        ("train", 1), ("validation", 2)
    ]  # fmt: skip
    score = ("evaluate", "--checkpoint", out / "last.pt", "--data", damaged, "--device", "cpu")
    assert run(*score, "--json") == 0
    assert json.loads(capsys.readouterr().out)["bad_samples"] == 1
    assert run(*score, "--max-bad-samples", 0) == 2
    assert "1 of 80 samples (val) are bad, more than the 0 that" in capsys.readouterr().err
    assert run("predict", "--checkpoint", out / "last.pt", "--data", damaged, "--device", "cpu",
               "--out", tmp_path / "out") == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert printed.startswith("79 predictions in ")
    assert "\nbad samples  1, left out at weight 0" in printed
