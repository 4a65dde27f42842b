"""The run folder and the records in it.

RUN/config.toml        the whole configuration
RUN/last.pt best.pt    checkpoints: the newest, and the best validation's
RUN/metrics.jsonl      one object a line: `kind` train or validation, and where in the run
RUN/tensorboard/       the same numbers, and the panels
RUN/panels/            one picture per validation
"""

import json
import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from models.checkpoint import write_atomically
from models.error import TrainingError
from models.training.toml import to_toml

Record = dict[str, str | int | float]


def open_run_dir(run_dir: Path, *, resume: bool) -> bool:
    """Make a run folder, or accept the one to go on in.

    Returns:
        Whether it holds a checkpoint to go on from.

    Raises:
        TrainingError: It cannot be made, or holds anything and `resume` was not asked for.
    """
    if not resume and run_dir.is_dir() and any(run_dir.iterdir()):
        msg = f"{run_dir} exists and is not empty; go on in it with --resume, or choose another"
        raise TrainingError(msg)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{run_dir} cannot be a run folder ({error.strerror}); choose another"
        raise TrainingError(msg) from None
    return (run_dir / "last.pt").exists()


class Tracker:
    """Writes the records of a run, going on exactly where a checkpoint was.

    Args:
        run_dir: The run folder.
        config: The whole configuration, for `config.toml`.
        num_records: Records that belong to the checkpoint; whatever follows them was written by
            a run that died after it, and will be written again.
        step: Step of the checkpoint; TensorBoard hides what came after it.
    """

    def __init__(
        self, run_dir: Path, config: Mapping[str, Any], *, num_records: int, step: int
    ) -> None:
        self.run_dir = run_dir
        (run_dir / "panels").mkdir(exist_ok=True)
        write_atomically(run_dir / "config.toml", to_toml(config).encode())
        records = run_dir / "metrics.jsonl"
        write_atomically(records, _first_lines(records, num_records))
        self._records = records.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._records.close()
        self._board.close()

    def write(self, record: Record) -> None:
        """Add a record; TensorBoard gets its numbers under its kind, and bad samples as data's."""
        self._records.write(json.dumps(record) + "\n")
        self._records.flush()
        for name, value in record.items():
            if isinstance(value, float):
                self._board.add_scalar(f"{record['kind']}/{name}", value, record["step"])
        if "bad_samples" in record:
            self._board.add_scalar("data/bad_samples", record["bad_samples"], record["step"])

    def draw(self, picture: Image.Image, name: str, step: int) -> None:
        """Keep the panel of a validation."""
        picture.save(self.run_dir / "panels" / f"{name}.png")
        self._board.add_image("panel", np.asarray(picture), step, dataformats="HWC")

    def sync(self) -> None:
        """Have the records on the disk before a checkpoint counts them."""
        os.fsync(self._records.fileno())


def _first_lines(path: Path, number: int) -> bytes:
    if not number or not path.exists():
        return b""
    with path.open("rb") as lines:
        return b"".join(islice(lines, number))
