"""Any network by its name: listed, trained, scored and run from its checkpoint."""

import json
import re
from functools import cache
from pathlib import Path

import pytest

import cli
from models import listing
from models.checkpoint import read_checkpoint
from models.registry import NETWORKS, NetworkConfig
from shards.convert import convert
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code if isinstance(ended.value.code, int) else 0


def test_the_networks_are_listed_as_a_table_and_as_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "list_networks", cache(listing.list_networks))
    assert run("models") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["name", "source", "parameters"]
    names = [line.split()[0] for line in lines[1:]]
    assert [name for name in dict.fromkeys(names) if name != "*"] == list(NETWORKS)
    assert run("models", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["003-tied"]["parameters"] == 2_963_300
    assert rows["003-tied"]["listed_parameters"] == 4_753_252
    assert rows["001-unet"]["gmac"]["224"] == pytest.approx(30.70, rel=0.001)


def test_the_help_states_the_widths_and_the_default_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERMINAL_WIDTH", "300")
    run("train", "--help")
    stated = re.search(r"--width .*Of unet: (.*)\. \(default: (.*?)\)", capsys.readouterr().out)
    assert stated is not None
    assert re.split(", | or ", stated[1]) == list(NETWORKS["unet"].widths)
    assert stated[2] == NetworkConfig().width


@pytest.fixture(scope="module")
def without_backgrounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set as system 003 has them: composites, masks and coloured depth alone."""
    folder = tmp_path_factory.mktemp("numbered")
    config = SynthConfig(count=80, seed=5, size=64, layout="numbered-flip", zips=1)
    synthesise(folder / "zips", config)
    zips = tuple((folder / "zips").glob("*.zip"))  # the backgrounds lie beside them
    convert(ConvertConfig(sources=zips, out=folder / "set", processes=1))
    return folder / "set"


def test_a_network_that_needs_no_background_goes_the_whole_way_without_one(
    without_backgrounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / "run", ("--data", without_backgrounds)
    assert run("train", *data, "--out", out, "--network", "003-tied", "--stages", "32:0.3",
               "--batch-size", 8, "--device", "cpu", "--panels", 2) == 0  # fmt: skip
    checkpoint = out / "best.pt"
    assert read_checkpoint(checkpoint)["config"]["network"] == {"name": "003-tied", "width": ""}
    capsys.readouterr()
    assert run("evaluate", "--checkpoint", checkpoint, *data, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert 0 <= scores["mask_iou"] <= 1
    assert 0 < scores["depth_rmse"] < 1
    assert run("predict", "--checkpoint", checkpoint, *data, "--out", tmp_path / "png") == 0
    assert len(list((tmp_path / "png").glob("*.depth.png"))) > 0


def test_a_network_that_compares_refuses_a_set_without_backgrounds(
    without_backgrounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--data", without_backgrounds, "--out", tmp_path / "run", "--network",
               "004-masknet3", "--stages", "32:0.3", "--device", "cpu") == 2  # fmt: skip
    assert "has no backgrounds, and network '004-masknet3' needs them" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "depth_loss"), [("004-masknet3", "ssim"), ("001-resnet18", "l1")])
def test_a_network_of_one_task_trains_and_is_rebuilt_from_its_checkpoint(
    name: str, depth_loss: str, small_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, task = tmp_path / "run", NETWORKS[name].tasks[0]
    assert run("train", "--data", small_set, "--out", out, "--network", name, "--stages",
               "64:0.05", "--batch-size", 4, "--device", "cpu", "--panels", 2,
               "--depth-loss", depth_loss) == 0  # fmt: skip
    capsys.readouterr()
    assert run("evaluate", "--checkpoint", out / "last.pt", "--data", small_set, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert ("mask_iou" in scores) == (task == "mask")
    assert ("depth_rmse" in scores) == (task == "depth")
    assert run("predict", "--checkpoint", out / "last.pt", "--data", small_set, "--out",
               tmp_path / "png") == 0  # fmt: skip
    kinds = {path.name.split(".")[1] for path in (tmp_path / "png").glob("*.*.png")}
    assert kinds == {task}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--network", "000"), "no network is called '000'; there are: unet, 000-mask"),
        (("--network", "003-tied", "--width", "m"), "'003-tied' has no width 'm'; leave it out"),
        (
            ("--network", "001-resnet18", "--stages", "200:1"),
            "'001-resnet18' takes images whose side is a multiple of 32 px and at least 64, "
            "not 200; use 192 or 224",
        ),
        (
            ("--network", "001-resnet18", "--stages", "64:1", "--depth-loss", "ssim"),
            "has a window of 11 px, but the images have 8 px",
        ),
        (
            ("--network", "000-mask", "--stages", "16:1", "--batch-size", 1),
            "'000-mask' cannot train at 16 px on batches of one image",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(
    options: tuple[object, ...],
    told: str,
    small_set: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    assert run("train", "--data", small_set, "--out", out, *options) == 2
    assert told in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--size", "stage size 0 px must be at least 1"),
        ("--batch-size", "batch size 0 must be at least 1"),
    ],
)
def test_nought_is_not_taken_for_nothing_said(
    option: str, told: str, small_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lr.png"
    assert run("lr-find", "--data", small_set, "--out", out, option, 0) == 2
    assert told in capsys.readouterr().err
