import json
from pathlib import Path

import numpy as np
import pytest

from shards.chart import Histogram, draw_histograms
from shards.manifest import ChannelStatistics, read_manifest
from shards.survey import COVERAGE_BINS, differences, survey


def test_a_survey_agrees_with_the_manifest(small_set: Path) -> None:
    manifest = read_manifest(small_set)
    found = survey(small_set)
    assert found.samples == 320
    assert not list(differences(manifest, found.statistics))
    assert found.coverage.sum() == 320
    assert found.depth_levels.sum() == 320 * 224 * 224
    mean_depth = (found.depth_levels * np.arange(256)).sum() / found.depth_levels.sum() / 255
    assert mean_depth == pytest.approx(manifest.statistics["depth"].mean[0], abs=1e-3)
    mean_cover = (found.coverage * (np.arange(COVERAGE_BINS) + 0.5)).sum() / 320 / COVERAGE_BINS
    assert mean_cover == pytest.approx(manifest.statistics["mask"].mean[0], abs=0.01)


def test_a_difference_is_told_with_both_figures(small_set: Path) -> None:
    manifest = read_manifest(small_set)
    found = dict(survey(small_set).statistics)
    depth = found["depth"]
    found["depth"] = ChannelStatistics(mean=(depth.mean[0] + 0.1,), std=depth.std)
    del found["background"]
    told = list(differences(manifest, found))
    assert told[0] == "background: not in the images"
    assert told[1].startswith("depth mean: ")
    assert len(told) == 2


def test_a_chart_shows_bars_where_the_counts_are() -> None:
    counts = np.zeros(10, np.int64)
    counts[7] = 5
    image = np.asarray(draw_histograms([Histogram("a", counts, 0, 1, "x")] * 2)).astype(int)
    blue = (image[..., 2] - image[..., 0]) > 60
    columns = np.flatnonzero(blue.any(axis=0))
    assert 64 + 7 * 55 < columns.mean() < 64 + 8 * 56
    assert blue[:260].sum() == blue[260:].sum() > 1000
    assert json.dumps(counts.tolist())
