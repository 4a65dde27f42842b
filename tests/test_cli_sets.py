"""Sets at URLs, and several as one, from the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

import cli
from shards.convert import convert
from shards.manifest import read_manifest
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code if isinstance(ended.value.code, int) else 0


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second set: 60 triplets at 96 px."""
    folder = tmp_path_factory.mktemp("second")
    config = SynthConfig(count=60, seed=11, size=96, num_backgrounds=2, num_foregrounds=5)
    synthesise(folder / "zips", config)
    convert(ConvertConfig(sources=(folder / "zips",), out=folder / "other", val=0.2, processes=1))
    return folder / "other"


@pytest.fixture
def url(small_set: Path) -> Iterator[str]:
    """The small set in fsspec's memory."""
    files = fsspec.filesystem("memory")
    files.put(f"{small_set}/", "/cli/", recursive=True)
    yield "memory://cli"
    files.rm("/cli", recursive=True)


def test_two_sets_train_as_one_and_another_combination_is_refused_spelled_out(
    small_set: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"

    def train(*data: object) -> int:
        return run("train", *data, "--out", out, "--stages", "32:0.05", "--batch-size", 16,
                   "--device", "cpu", "--panels", 0, "--resume")  # fmt: skip

    assert train("--data", small_set, "--data", other, "--repeat", "1,2") == 0
    assert train("--data", small_set, "--data", other, "--repeat", "1,2") == 0
    capsys.readouterr()
    assert train("--data", small_set, "--data", other) == 2
    told = capsys.readouterr().err
    small, second = (read_manifest(path).fingerprint[:12] for path in (small_set, other))
    assert f"small {small} x 1 and other {second} x 2 there" in told
    assert f"small {small} x 1 and other {second} x 1 here" in told
    assert "--repeat" in told
    assert run("evaluate", "--checkpoint", out / "best.pt", "--data", small_set, "--data", other,
               "--device", "cpu", "--json") == 0  # fmt: skip
    predictions = tmp_path / "predictions"
    assert run("predict", "--checkpoint", out / "best.pt", "--data", small_set, "--data", other,
               "--device", "cpu", "--out", predictions) == 0  # fmt: skip
    num = sum(read_manifest(path).num_samples("val") for path in (small_set, other))
    assert len([*predictions.glob("*mask*.png")]) == num


def test_a_url_is_trained_on_like_a_folder(url: str, small_set: Path, tmp_path: Path) -> None:
    """The same metrics to the last digit."""
    records = []
    for data in (url, small_set):
        out = tmp_path / Path(data).name
        assert run("train", "--data", data, "--out", out, "--stages", "32:0.1", "--batch-size", 16,
                   "--device", "cpu", "--panels", 0, "--remote-cache-dir", tmp_path / "fetched",
                   "--remote-cache-gb", 1) == 0  # fmt: skip
        lines = (out / "metrics.jsonl").read_text().splitlines()
        records.append(json.loads(lines[-1]))
    assert records[0]["mask_iou"] == records[1]["mask_iou"]
    assert records[0]["depth_rmse"] == records[1]["depth_rmse"]


def test_verify_compares_the_sizes_of_a_remote_set_without_its_shards(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run("verify", url) == 0
    assert f"{url}: no faults" in capsys.readouterr().out
    fsspec.filesystem("memory").pipe_file("/cli/train-000001.tar", b"short")
    assert run("verify", url, "--json") == 1
    [fault] = json.loads(capsys.readouterr().out)["faults"]
    assert fault.startswith("train-000001.tar is ")
    assert fault.endswith("bytes shorter than the manifest says")
    assert not [*tmp_path.rglob("train*.tar")]
    assert run("verify", url, "--deep") == 2
    assert "copy memory://cli to a folder" in capsys.readouterr().err


def test_room_that_is_too_small_is_one_line_with_the_next_action(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--data", url, "--out", tmp_path / "run", "--stages", "32:1",
               "--batch-size", 16, "--device", "cpu", "--remote-cache-dir", tmp_path / "fetched",
               "--remote-cache-gb", 0.001) == 2  # fmt: skip
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--remote-cache-gb is 0.001; give a larger one, or --order windowed" in told


@pytest.mark.parametrize("repeat", ["2", "1,0", "one,two"])
def test_repeats_that_do_not_fit_are_refused(
    small_set: Path, other: Path, tmp_path: Path, repeat: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--data", small_set, "--data", other, "--repeat", repeat,
               "--out", tmp_path / "run", "--device", "cpu") == 2  # fmt: skip
    assert "repeat" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
