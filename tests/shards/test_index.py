from pathlib import Path

import numpy as np
import pytest

from shards.error import ShardError
from shards.index import ROW, read_rows


@pytest.mark.parametrize("number", [0, 1, 64, 4_000, 123_456])
def test_rows_are_what_numpy_saved(tmp_path: Path, number: int) -> None:
    rows = np.zeros(number, ROW)
    rows["offset"] = np.arange(3 * number).reshape(-1, 3)
    rows["background"] = -1
    path = tmp_path / "train-000000.npy"
    np.save(path, rows)
    np.testing.assert_array_equal(read_rows(path, number), rows)
    np.testing.assert_array_equal(read_rows(path, number), np.load(path))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data.replace(b"'offset'", b"'offse('"),
        lambda data: data.replace(b"(8,)", b"(9,)"),
        lambda _: b"",
        lambda _: b"\x93NUMPY",
    ],
)
def test_anything_else_is_refused_by_name(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "train-000000.npy"
    np.save(path, np.zeros(8, ROW))
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(ShardError, match=r"train-000000\.npy does not hold 8 index rows; run"):
        read_rows(path, 8)


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"train-000000\.npy is missing"):
        read_rows(tmp_path / "train-000000.npy", 8)
