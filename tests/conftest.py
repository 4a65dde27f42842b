"""Data for all tests: made once a session by the product's own synthesiser and converter."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.convert import convert
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise


def pytest_configure() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would all that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one zip of 320 triplets at 224 px: 4 backgrounds, 8 foregrounds."""
    folder = tmp_path_factory.mktemp("source")
    synthesise(folder, SynthConfig(count=320, seed=3, num_backgrounds=4, num_foregrounds=8))
    return folder


@pytest.fixture(scope="session")
def small_set(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`source` as a set: 240 training samples in 4 shards, 80 validation samples in 2."""
    out = tmp_path_factory.mktemp("sets") / "small"
    config = ConvertConfig(
        sources=(source,), out=out, samples_per_shard=64, val=0.25, seed=1, processes=1
    )
    convert(config)
    return out


@pytest.fixture
def soak_report() -> Callable[..., None]:
    """Prints a soak's figures, and writes them as NAME.json into the folder MASKDEPTH_SOAK_OUT."""

    def report(name: str, **figures: object) -> None:
        sys.stdout.write(f"\n{name}: {json.dumps(figures)}\n")
        if folder := os.environ.get("MASKDEPTH_SOAK_OUT"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            text = json.dumps(figures, indent=2, sort_keys=True) + "\n"
            (Path(folder) / f"{name}.json").write_text(text)

    return report
