"""What the benchmarks' tests share."""

import pytest


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns begin at once: a busy machine would make every test wait for its peace."""
    monkeypatch.setattr("benchmarks.harness.settle", lambda: 0.0)
