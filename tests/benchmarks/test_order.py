"""The measures of the order, by hand and on cases whose answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import mixing, order
from benchmarks.mixing import BATCH, Mixing, measure_mixing
from pipeline.extents import Extents
from pipeline.order import Numbers
from pipeline.windowed import WindowedOrder


def test_distance_is_the_share_of_samples_that_would_have_to_move() -> None:
    histograms = np.array([[4, 0, 0, 0], [1, 1, 1, 1], [2, 2, 0, 0]])
    assert mixing._distance(histograms) == pytest.approx((0.75 + 0 + 0.5) / 3)


def test_meeting_again_is_a_multiple_of_chance() -> None:
    """The same batches again: every pair meets, where chance is a batch's share of the epoch."""
    numbers = np.random.default_rng(0).permutation(8 * BATCH)
    chance = (BATCH - 1) / (8 * BATCH - 1)
    assert mixing._met_again(numbers, numbers) == pytest.approx(1 / chance)
    others = np.random.default_rng(1).permutation(8 * BATCH)
    assert mixing._met_again(numbers, others) == pytest.approx(1, abs=0.05)


def test_histograms_count_whole_stretches() -> None:
    labels = np.array([0, 0, 1, 2, 2, 2, 1])
    assert mixing._histograms(labels, 3, 3).tolist() == [[2, 1, 0], [0, 0, 3]]


def test_the_ideal_mixes_best_and_a_window_better_than_blocks_in_the_same_cache() -> None:
    found = {one.name: one for one in measure_mixing(num_shards=128, per_shard=300)}
    ideal, windowed, blocks = (
        found[name]
        for name in (
            "ideal: independent at random",
            "windowed, 64 shards",
            "one permutation per 48",
        )
    )
    assert windowed.held == blocks.held == 96
    assert ideal.shards_per_batch == pytest.approx(128 * (1 - (127 / 128) ** BATCH), rel=0.02)
    for name in ("shard_distance", "class_distance"):
        assert getattr(ideal, name) < getattr(windowed, name) < getattr(blocks, name)
    assert blocks.shards_per_batch < windowed.shards_per_batch < ideal.shards_per_batch


def test_counting_finds_an_order_that_gives_a_sample_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert order.check_exactly_once(num_shards=6, per_shard=20) > 0
    right = WindowedOrder.sample_numbers

    def wrong(self: WindowedOrder, start: int, count: int) -> Numbers:
        numbers = right(self, start, count)
        numbers[-1] = numbers[0]
        return numbers

    monkeypatch.setattr(WindowedOrder, "sample_numbers", wrong)
    with pytest.raises(RuntimeError, match="not exactly once: shards equal, window 4, epoch 0"):
        order.check_exactly_once(num_shards=6, per_shard=20)


def test_the_bench_prints_the_ceiling_first_and_a_json_line_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reduced to a thousand shards and eight ranks."""
    monkeypatch.setattr(order, "NUM_SHARDS", 3_000)
    monkeypatch.setattr(order, "RANKS", 8)
    monkeypatch.setattr(order, "measure_mixing", lambda *_: [_SOME])
    order.run(quick=True, json_path=tmp_path / "order.json")
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("ceiling")
    found = json.loads(lines[-1])
    assert found == json.loads((tmp_path / "order.json").read_text())
    assert {cost["name"] for cost in found["costs"]} > {"global", "windowed, the last shard short"}
    assert all(cost["us_per_step"] > 0 for cost in found["costs"])
    assert found["samples_shared_by_all_ranks"] == 8 * order.SHARES[0]


_SOME = Mixing(
    name="ideal", held=1, shards_per_batch=1.0, shard_distance=0.0, class_distance=0.0,
    rank_correlation=0.0, met_again=1.0,
)  # fmt: skip


def test_a_window_needs_few_shards_of_those_that_are_held() -> None:
    """What `held` says of the windowed order: a window, and the half that is fetched ahead."""
    windowed = WindowedOrder(Extents(num=500, full=40), seed=1, window_shards=64)
    half = 32 * 40
    assert max(len(windowed.shards_of(half * i, half)) for i in range(15)) == 64
    assert max(len(windowed.shards_of(start, half)) for start in range(0, 20_000 - half, 90)) == 96
