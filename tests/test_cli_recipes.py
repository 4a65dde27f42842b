"""Recipes and the options beside them, as a user meets them."""

import json
import math
import shlex
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

import cli
from models.recipe import FOLDER, SPLITS, read_recipe, recipe_names
from models.registry import NETWORKS
from shards.plan import RULES
from shards.synth import SynthConfig, synthesise

QUICK = ("000", "004", "004-mask")
"""The others need seconds for each step."""


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code if isinstance(ended.value.code, int) else 0


def records(out: Path, kind: str) -> list[dict[str, Any]]:
    found = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [record for record in found if record["kind"] == kind]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def learns(name: str, stage: str, batch_size: int, small_set: Path, out: Path) -> None:
    """A few steps of a recipe: every loss is a finite number, and the last ones are lower."""
    assert run("train", "--recipe", name, "--data", small_set, "--out", out, "--stages", stage,
               "--batch-size", batch_size, "--device", "cpu", "--log-every", 1,
               "--panels", 0) == 0  # fmt: skip
    losses = [record["loss"] for record in records(out, "train")]
    assert all(map(math.isfinite, losses))
    assert mean(losses[-6:]) < 0.97 * mean(losses[:6]), losses
    (validation,) = records(out, "validation")
    network = read_recipe(name).part("network")
    for task, metric in (("mask", "mask_iou"), ("depth", "depth_rmse")):
        assert (metric in validation) == (task in NETWORKS[network.name].tasks)


@pytest.mark.parametrize("name", QUICK)
def test_a_recipe_learns(name: str, small_set: Path, tmp_path: Path) -> None:
    """At the smallest size its network takes."""
    network = read_recipe(name).part("network")
    size = max(32, NETWORKS[network.name].sizes.least)
    learns(name, f"{size}:96s", 8, small_set, tmp_path / "run")


@pytest.mark.soak
@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_learns_at_its_own_size(name: str, small_set: Path, tmp_path: Path) -> None:
    size = read_recipe(name).part("train").parsed_stages[-1].size
    learns(name, f"{size}:240s", 8, small_set, tmp_path / "run")


def test_recipes_are_listed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipes") == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{shown}" for name in recipe_names())
    assert run("recipes", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == recipe_names()
    assert rows[1]["set"] == {"split": "random", "val": 0.3,
                              "convert": "convert --split random --val 0.3"}  # fmt: skip
    assert run("recipes", "004") == 0
    assert capsys.readouterr().out == (FOLDER / "004.toml").read_text()
    assert run("recipes", "005") == 2
    assert "no recipe '005'; the nearest is '00" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("global-number", ("000", "000-mask", "000-depth")),
        ("class-folders", ("001-unet", "001-resnet18")),
        ("tenk-sets", ("002",)),
        ("numbered-flip", ("003",)),
        ("relation-file", ("004", "004-mask")),
    ],
)
def test_the_convert_line_of_a_recipe_makes_a_set_that_it_runs_on(
    layout: str, names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run as it stands in the recipe, on its system's files under the names that those have."""
    folder, out = tmp_path / "FOLDER", tmp_path / "made"
    config = SynthConfig(count=48, seed=2, size=64, layout=layout, processes=1)  # type: ignore[arg-type]
    synthesise(folder, config)
    recipes = [read_recipe(name) for name in names]
    lines = (line for recipe in recipes for line in recipe.text.splitlines())
    (line,) = {line.partition("# maskdepth ")[2] for line in lines if "# maskdepth conv" in line}
    # what is a shell's part: where the command is given, and which files a star stands for
    monkeypatch.chdir(tmp_path if "FOLDER" in line else folder)
    command = [word.replace("SET", str(out)) for word in shlex.split(line)]
    found = [sorted(map(str, Path().glob(x))) if "*" in x else [x] for x in command]
    assert run(*(word for words in found for word in words), "--processes", 1) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    for recipe in recipes:
        expected = recipe.part("set")
        assert expected.differences(manifest["split"], manifest["options"]) == []
        if NETWORKS[recipe.part("network").name].needs_background:
            assert manifest["backgrounds"], line


def test_a_recipe_may_expect_every_split_that_convert_makes() -> None:
    assert SPLITS == RULES


def test_options_come_before_the_recipe_and_another_set_is_told(
    small_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr for each difference: the set holds out foregrounds, a quarter of them."""
    mine = tmp_path / "mine.toml"
    text = (FOLDER / "004-mask.toml").read_text()
    mine.write_text(text.replace('stages = "64:3,128:3"', 'stages = "16:8s"\nseed = 3'))
    out = tmp_path / "run"
    given = ("--lr", 0.02, "--batch-size", 4, "--mask-weight", "1 -> 0.5", "--optimizer", "adam",
             "--accumulate", 2, "--augment", "flip", "--device", "cpu")  # fmt: skip
    assert run("train", "--recipe", mine, "--data", small_set, "--out", out, *given) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "was written for" in line]
    assert len(told) == 2
    assert "this one has split 'foreground', not 'random', and scores" in told[0]
    assert "val 0.25, not 0.3" in told[1]
    assert "`maskdepth convert --split random --val 0.3 ...`" in told[1]
    kept = tomllib.loads((out / "config.toml").read_text())
    train = kept["train"]
    assert (train["stages"], train["batch_size"], train["accumulate"]) == ("16:8s", "4", 2)
    assert train["optimizer"]["name"] == "adam"
    assert (train["optimizer"]["lr"], train["optimizer"]["weight_decay"]) == (0.02, 1e-8)
    assert train["schedule"]["mask_weight"] == "1 -> 0.5"
    assert kept["network"]["name"] == "004-masknet3"
    assert (train["seed"], kept["loader"]["seed"], kept["loader"]["augment"]["flip"]) == (3, 3, 0.5)


def test_a_set_made_as_expected_is_not_told(
    small_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[set]\nsplit = "foreground"\nval = 0.25\n')
    assert run("train", "--recipe", mine, "--data", small_set, "--out", tmp_path / "run",
               "--network", "004-masknet3", "--stages", "16:8s", "--batch-size", 4,
               "--device", "cpu") == 0  # fmt: skip
    assert "was written for" not in capsys.readouterr().err


def test_one_task_of_two_is_trained_and_scored(
    small_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run("train", "--data", small_set, "--out", out, "--tasks", "depth", "--stages", "32:8s",
               "--batch-size", 4, "--device", "cpu") == 0  # fmt: skip
    capsys.readouterr()
    assert run("evaluate", "--checkpoint", out / "best.pt", "--data", small_set, "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    (validation,) = records(out, "validation")
    assert scores["depth_rmse"] == pytest.approx(validation["depth_rmse"], abs=1e-4)
    assert "mask_iou" not in scores


def test_faults_of_recipes_and_options_are_named(
    small_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[loader]\naugment = "swirl"\n')
    bogus = tmp_path / "bogus.toml"
    bogus.write_text('[set]\nsplit = "bogus"\n')
    train = ("train", "--data", small_set, "--out", tmp_path / "run", "--device", "cpu")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("--recipe", wrong), "wrong.toml: loader.augment is 'swirl'"),
        (("--recipe", bogus), "bogus.toml: [set] split is 'bogus'; it must be one of foreground"),
        (("--recipe", "0004"), "no recipe '0004'; the nearest is '004'"),
        (("--recipe", "000-mask", "--tasks", "depth"), "network '000-mask' predicts no depth"),
        (("--network", "001-unet", "--tasks", "both"), "network '001-unet' predicts no depth"),
        (("--mask-weight", "heavy"), "mask_weight 'heavy' is no change over the run"),
        (("--mask-weight", "-1"), "mask_weight is -1.0"),
        (("--optimizer", "adagrad"), "'adagrad' is not known; choose one of adamw, adam"),
        (("--clip-value", 0.1), "clip_norm 1.0 and clip_value 0.1 both clip"),
        (("--accumulate", 7), "accumulate 7 does not divide the batch size 256"),
        (("--time-limit", "soon"), "time_limit 'soon' is no time above 0"),
        (("--stages", "64:0s"), "is not SIZE:EPOCHS or SIZE:SAMPLESs"),
        (("--step-at", "2"), "schedule at '2' is neither a share"),
    ]
    for options, expected in cases:
        assert run(*train, *options) == 2, options
        error = capsys.readouterr().err
        assert expected in error, error
        assert len(error.splitlines()) == 1, error


def test_a_time_limit_ends_the_process_in_time_with_the_command_that_goes_on(
    small_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a run"
    command = ("train", "--data", small_set, "--out", out, "--network", "004-masknet3",
               "--stages", "16:1000", "--batch-size", 8, "--panels", 0, "--device", "cpu",
               "--time-limit", "8s", "--log-every", 1)  # fmt: skip
    began = time.perf_counter()
    assert run(*command) == 0
    assert time.perf_counter() - began < 8
    shown = capsys.readouterr()
    assert shown.out == "", "only a run that is complete has results"
    (line,) = (x for x in shown.err.splitlines() if "the time limit of 8s" in x)
    told = shlex.split(line.partition(" from there: ")[2])
    assert told == ["maskdepth", *map(str, command), "--resume"]
    first = len(records(out, "train"))
    assert run(*told[1:]) == 0
    assert len(records(out, "train")) > first
    assert "the time limit of 8s" in capsys.readouterr().err
