"""The run folder and the records in it.

RUN/config.toml        the whole configuration
RUN/last.pt best.pt    checkpoints: the newest, and the best validation's (`checkpoint.py`)
RUN/metrics.jsonl      one object a line: `kind` train, validation or skipped, where in the run
RUN/tensorboard/       the same numbers, the panels, hyper-parameters; by option the graph,
                       distributions of weights and gradients, a profiler's trace
RUN/panels/            one picture per validation
"""

import copy
import json
import os
import warnings
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from models.checkpoint import checkpoints_of, write_atomically, writing
from models.error import TrainingError
from models.training.toml import to_toml

Record = dict[str, Any]
"""Text and numbers by name; of a skipped step also `numbers`, a list of sample numbers."""


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
    return bool(checkpoints_of(run_dir))


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
        with writing(run_dir):
            (run_dir / "panels").mkdir(exist_ok=True)
        write_atomically(run_dir / "config.toml", to_toml(config).encode())
        records = run_dir / "metrics.jsonl"
        write_atomically(records, _first_lines(records, num_records))
        with writing(run_dir):
            self._records = records.open("a", encoding="utf-8")
            self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with writing(self.run_dir):
            self._records.close()
            self._board.close()

    def write(self, record: Record) -> None:
        """Add a record; TensorBoard gets its numbers under its kind, and bad samples as data's."""
        with writing(self.run_dir):
            self._records.write(json.dumps(record) + "\n")
            self._records.flush()
            for name, value in record.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{record['kind']}/{name}", value, record["step"])
            for name in ("bad_samples", "bad_steps"):
                if name in record:
                    self._board.add_scalar(f"data/{name}", record[name], record["step"])

    def draw(self, picture: Image.Image, name: str, step: int) -> None:
        """Keep the panel of a validation."""
        with writing(self.run_dir / "panels" / f"{name}.png") as path:
            picture.save(path)
            self._board.add_image("panel", np.asarray(picture), step, dataformats="HWC")

    def note(self, name: str, value: float, step: int) -> None:
        """Show a number that belongs to no record."""
        self._board.add_scalar(name, value, step)

    def distributions(self, network: nn.Module, step: int) -> None:
        """Show how weights and gradients are distributed; waits for the device."""
        for name, weights in network.named_parameters():
            self._distribution(f"weights/{name}", weights.detach(), step)
            if weights.grad is not None:
                self._distribution(f"gradients/{name}", weights.grad, step)

    def _distribution(self, name: str, values: Tensor, step: int) -> None:
        if torch.isfinite(values).all():
            self._board.add_histogram(name, values.float(), step)

    def graph(self, network: nn.Module, size: int) -> None:
        """Show the network's graph for images of a size; nothing where it cannot be traced."""
        drawn = Traceable(copy.deepcopy(network).cpu().eval())
        image = torch.zeros(1, 3, size, size)
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer: about shapes, which are static
            trace = torch.jit.trace(drawn, (image, image), check_trace=False)
            self._board.add_graph(trace, (image, image))

    def outcome(self, config: Mapping[str, Any], scores: Mapping[str, float]) -> None:
        """Show the run among others in TensorBoard's table of hyper-parameters."""
        metrics = {f"final/{name}": value for name, value in scores.items()}
        for summary in hparams(_flat(config), metrics):
            # SummaryWriter.add_hparams would begin a folder of its own
            self._board._get_file_writer().add_summary(summary)
        for name, value in metrics.items():
            self._board.add_scalar(name, value)

    def sync(self) -> None:
        """Have the records on the disk before a checkpoint counts them."""
        with writing(self.run_dir):
            os.fsync(self._records.fileno())


class Traceable(nn.Module):
    """A network as the tracer wants it: it returns plain tensors.

    Args:
        network: Returns a `Prediction`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, background: Tensor, composite: Tensor) -> tuple[Tensor, ...]:
        """The logits that there are, each (N, C, H, W)."""
        prediction = self.network(background, composite)
        logits = (prediction.mask_logits, prediction.depth_logits)
        return tuple(values for values in logits if values is not None)


class NoTracker:
    """Takes a `Tracker`'s calls and does nothing: of several ranks the first alone writes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


def _first_lines(path: Path, number: int) -> bytes:
    if not number or not path.exists():
        return b""
    with path.open("rb") as lines:
        return b"".join(islice(lines, number))


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str | float | bool]:
    """Nested tables as one, with dots in the names."""
    found: dict[str, str | float | bool] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, int | float | bool) else str(value)
    return found
