"""The trainer against its own step: turns, what is counted, and that waiting is seen."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from benchmarks import train
from benchmarks.contest import make_set
from models.training.evaluate import facts_of
from pipeline.batch import Batch
from pipeline.loader import Loader, LoaderConfig

DELAY_S = 0.2
WORK = train.Work(size=64, batch=4, steps=3, turns=2)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three turns of three steps, at one size."""
    monkeypatch.setattr(train, "_works", lambda *_, **__: (WORK,))


@pytest.mark.usefixtures("short")
def test_ceiling_and_trainer_take_turns_and_the_first_of_each_is_not_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = train.run(quick=True, json_path=tmp_path / "found.json")
    (title,) = found["tables"]
    assert title == "64 px, batches of 4, house, eager"
    ceiling, reached = found["tables"][title]
    assert (ceiling["role"], reached["role"]) == ("ceiling", "ours")
    assert len(ceiling["rates"]) == len(reached["rates"]) == WORK.turns
    assert 0.2 < reached["median"] / ceiling["median"] < 5
    assert 0 <= found["data_wait_share"][title] < 0.9
    assert json.loads((tmp_path / "found.json").read_text()) == found
    assert "waiting for data, at most:" in capsys.readouterr().out


class SlowLoader(Loader):
    """Every batch comes late."""

    @contextmanager
    def train(
        self, *, size: int, batch_size: int, start: int, num_steps: int
    ) -> Iterator[Iterator[Batch]]:
        """Late."""
        with super().train(
            size=size, batch_size=batch_size, start=start, num_steps=num_steps
        ) as batches:
            yield map(_late, batches)


def _late(batch: Batch) -> Batch:
    time.sleep(DELAY_S)
    return batch


def test_waiting_is_seen_and_the_ceiling_does_not_wait(tmp_path: Path) -> None:
    """Every batch of a turn is waited for, the first one too."""
    set_path = make_set(tmp_path, 40)
    entry, cpu = train._entries(torch.device("cpu"), quick=True)[0], torch.device("cpu")
    with SlowLoader([str(set_path)], LoaderConfig(cache="host"), cpu) as loader:
        rows, share = train.measure(entry, WORK, loader, facts_of(loader), tmp_path / "run", cpu)
    ceiling, reached = rows
    assert share * WORK.batch / reached.median > 0.9 * DELAY_S
    assert reached.median < ceiling.median
