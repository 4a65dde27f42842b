"""The whole benchmark, on a small scale: contenders of ours run, and do what their rows say."""

import json
from pathlib import Path

import numpy as np
import pytest

import benchmarks.loader as bench
from benchmarks.cached import cached_contenders, fill
from benchmarks.harness import take_turns
from benchmarks.loader import CPU, STREAM, Scale, exact_images
from pipeline.cache.cached_stream import CachedStream
from pipeline.cache.sample_table import HostTable
from pipeline.loader import Loader, LoaderConfig

TINY = Scale(count=80, samples_per_shard=20, seconds=0.01, turns=1, sizes=(64,))


def test_every_row_without_a_peer_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "QUICK", TINY)
    monkeypatch.setattr(bench, "CACHED_SIZES", (32,))
    found = bench.run(quick=True, peers=False, json_path=tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text()) == found
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found
    assert {title: [row["name"] for row in rows] for title, rows in found["tables"].items()} == {
        "64 px": ["ceiling: decoding alone", "turbojpeg", "turbojpeg exact", "DALI on the CPU"],
        "32 px, cached": ["ceiling: index_select", "cached, host", "cached, file"],
    }
    for rows in found["tables"].values():
        assert [row["role"] for row in rows] == ["ceiling"] + ["ours"] * (len(rows) - 1)
        for row in rows:
            assert "failure" not in row, row
            assert row["median"] > 0


def test_a_peer_that_is_not_there_is_a_row_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MASKDEPTH_PEERS", str(tmp_path))
    monkeypatch.setattr(bench, "QUICK", TINY)
    monkeypatch.setattr(bench, "CACHED_SIZES", ())
    kinds = tuple(kind for kind in bench.STREAMING if kind.environment == "litdata")
    monkeypatch.setattr(bench, "STREAMING", kinds)
    found = bench.run(quick=True, peers=True, json_path=None)
    *_, litdata = found["tables"]["64 px"]
    assert litdata["role"] == "peer"
    assert litdata["failure"].startswith("its environment is not made; run `python -m benchmarks")
    assert found["environment"]["peers"] == {}
    assert "did not run: its environment is not made" in capsys.readouterr().out


def test_cached_rates_are_of_gathering_alone(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first turn no contender decodes anything, whichever cache it has."""
    decoded: list[int] = []
    inner = CachedStream._decoded

    def counted(self: CachedStream, *arguments: object) -> object:
        for batch in inner(self, *arguments):  # type: ignore[arg-type]
            decoded.append(len(batch.numbers))
            yield batch

    monkeypatch.setattr(CachedStream, "_decoded", counted)
    with cached_contenders(small_set, tmp_path, 32, 16, 0.01) as contenders:
        for name in ("cached, host", "cached, file"):
            decoded.clear()
            contenders[name]()
            assert sum(decoded) == 240, "the epoch that fills it"
            contenders[name]()
            assert sum(decoded) == 240


def test_a_table_without_room_in_memory_is_not_measured(
    small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """240 samples at 32 px are 1.2 MB, of which four copies are needed."""
    for room, is_refused in ((4_900_000, True), (4_920_000, False)):
        monkeypatch.setattr("benchmarks.cached.host_room", lambda room=room: room)
        with cached_contenders(small_set, tmp_path, 32, 16, 0.01) as contenders:
            rows = take_turns(contenders, turns=1)
        refused = "memory has room for 0.0 GB, and this table needs 0.0"
        assert {row.failure for row in rows} == ({refused} if is_refused else {""})
    assert not list(tmp_path.iterdir()), "the file is gone"


def test_filling_leaves_every_sample_in_the_cache(small_set: Path) -> None:
    with Loader(small_set, LoaderConfig(decoder="turbojpeg", cache="host"), CPU) as loader:
        assert fill(loader, 32, 100) == 300, "three batches, the last of which begins an epoch"
        ((_, entry),) = loader._caches._entries.items()
        assert entry.cache is not None
        assert isinstance(entry.cache.table, HostTable)
        assert entry.cache.table.num_held == loader.num_samples == 240


def test_what_peers_are_compared_with_is_decoded_in_full(small_set: Path) -> None:
    with Loader(small_set, STREAM, CPU) as loader:
        exact, stored = exact_images(loader, 64), exact_images(loader, 224)
        with loader.train_pixels(size=64, batch_size=240, start=0, num_steps=1) as batches:
            scaled = next(batches)
            places = np.argsort(scaled.numbers)[: len(exact["composite"])]
            differs = (scaled.composite.numpy()[places] != exact["composite"]).mean()
    assert differs > 0.1, "training decodes at a reduced scale"
    assert stored["depth"].shape[1:] == (224, 224)
