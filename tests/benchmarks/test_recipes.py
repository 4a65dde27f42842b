"""Every recipe cut short alike: what stays as the file says, and what is said of the free mask."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import recipes
from models.recipe import read_recipe, recipe_names


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps; the cheapest recipes of both tasks, of depth alone, and without background."""
    monkeypatch.setattr(recipes, "QUICK", recipes.Budget(samples=16, batch_size=4))
    monkeypatch.setattr(recipes, "recipe_names", lambda: ["004", "001-resnet18", "003"])


@pytest.mark.usefixtures("short")
def test_recipes_are_run_and_held_against_the_free_mask(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four steps teach no masks; and where there are none, or no background, the table says so."""
    found = recipes.run(quick=True, data=source, json_path=tmp_path / "found.json")
    both, resnet, alone = found["tables"]["64 px"]
    assert [row["name"] for row in (both, resnet, alone)] == ["004", "001-resnet18", "003"]
    assert both["is_above_free_mask"] is False
    assert 0 <= both["mask_iou"] < both["baseline_mask_iou"] < 1
    assert resnet["is_above_free_mask"] is None
    assert "mask_iou" not in resnet
    assert 0 < resnet["depth_rmse"] < 1
    assert (both["sees_background"], alone["sees_background"]) == (True, False)
    assert found["configuration"]["budget"] == {"size": 64, "samples": 16, "batch_size": 4}
    assert json.loads((tmp_path / "found.json").read_text()) == found
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("003 ")]
    assert table[0].endswith("no, sees no background")


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_cut_short_is_itself_but_for_its_length(name: str) -> None:
    recipe = read_recipe(name)
    budget = recipes.Budget(size=32, samples=640, batch_size=8)
    whole = recipe.part("train")
    expected = replace(whole, stages="32:640s", batch_size="8", num_panels=0)
    assert recipes.shortened(recipe, budget) == expected


def test_a_mask_as_good_as_the_free_one_is_not_above_it() -> None:
    assert recipes.is_above_free_mask({"mask_iou": 0.9, "baseline_mask_iou": 0.8}) is True
    assert recipes.is_above_free_mask({"mask_iou": 0.8, "baseline_mask_iou": 0.8}) is False
    assert recipes.is_above_free_mask({"mask_iou": 0.8}) is None
    assert recipes.is_above_free_mask({"baseline_mask_iou": 0.8}) is None
