"""Nothing grows while the loader streams epoch after epoch."""

from pathlib import Path

import pytest

from benchmarks.growth import CONTENDERS, LIMIT, Series, watch
from shards.convert import convert
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise


def _series(resident: list[int], files: tuple[int, int] = (9, 9)) -> Series:
    num = len(resident)
    return Series(
        resident_bytes=tuple(resident),
        open_files=(files[0],) * (num - 1) + (files[1],),
        threads=(3,) * num,
    )


def test_growth_is_told_after_a_warm_up_by_medians() -> None:
    steady = [50, 60, 70, 80, 90, 100, 101, 100, 99, 100, *[100] * 10, 180, 101, 101, 101, 101]
    assert _series(steady).growth == pytest.approx(0.01)
    assert _series(steady).is_steady
    growing = [100 + epoch for epoch in range(20)]
    assert _series(growing).growth == pytest.approx(117 / 107 - 1)
    assert not _series(growing).is_steady
    assert not _series(steady, files=(9, 10)).is_steady


@pytest.fixture(scope="module")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 triplets at 64 px."""
    folder = tmp_path_factory.mktemp("tiny")
    config = SynthConfig(count=120, size=64, seed=2, num_backgrounds=3, num_foregrounds=6)
    synthesise(folder / "source", config)
    convert(ConvertConfig(sources=(folder / "source",), out=folder / "set", processes=1))
    return folder / "set"


QUICK = ("turbojpeg", "turbojpeg, cached on the host")
OTHERS = [pytest.param(name, marks=pytest.mark.soak) for name in CONTENDERS if name not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *OTHERS])
def test_memory_files_and_threads_do_not_grow_over_epochs(tiny_set: Path, name: str) -> None:
    """The reduced twin of `maskdepth bench growth`: 15 epochs, in a process of their own."""
    found = watch(tiny_set, CONTENDERS[name], 15, size=32, batch_size=24)
    assert found.growth < LIMIT, found.resident_bytes
    assert found.is_steady, found
