"""The comparison of networks: every network trained alike, and what is asked for in the result."""

import json
from pathlib import Path

import pytest

from benchmarks import quality
from models.losses import parse_loss
from models.registry import NETWORKS


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps, and the two cheapest networks of both tasks and of one."""
    budgets = (quality.Budget(size=64, samples=2 * quality.BATCH),)
    monkeypatch.setattr(quality, "_budgets", lambda *_, **__: budgets)
    monkeypatch.setattr(quality, "_RATE_TURNS", 1)
    chosen = {"unet": NETWORKS["unet"], "001-resnet18": NETWORKS["001-resnet18"]}
    monkeypatch.setattr(quality, "NETWORKS", chosen)


@pytest.mark.usefixtures("short")
def test_networks_are_trained_alike_and_scored_by_what_they_predict(tmp_path: Path) -> None:
    found = quality.run(quick=True, losses=False, data=None, json_path=tmp_path / "found.json")
    house, resnet = found["tables"]["64 px"]
    assert (house["name"], resnet["name"]) == ("unet s", "001-resnet18")
    assert 0 < house["mask_iou"] < 1
    assert "mask_iou" not in resnet
    assert 0 < resnet["depth_rmse"] < 1
    assert house["samples_per_s"] > 0
    assert house["parameters"] == 1_399_494
    assert json.loads((tmp_path / "found.json").read_text())["tables"] == found["tables"]


def test_every_network_takes_part_and_every_pair_of_losses_can_be_read() -> None:
    names = {entry.network.name for entry in quality._network_entries()}
    assert names == set(NETWORKS)
    assert len(set(quality.LOSS_PAIRS)) == len(quality.LOSS_PAIRS)
    for pair in quality.LOSS_PAIRS:
        for expression in pair:
            assert parse_loss(expression)
