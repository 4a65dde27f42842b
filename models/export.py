"""Export: a checkpoint's network as a file that runs without this program, checked before it stays.

The program takes uint8 pixels and gives probabilities (`models/exported.py` says what lies in the
file). It is written under a temporary name, opened again the way a user would, and compared with
the checkpoint on random and extreme images; only then does it get its name.
"""

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor, nn

from models.checkpoint import write_atomically
from models.error import CheckpointError
from models.exported import FORMATS, INSTALL, METADATA, ProgramFacts, read_exported
from models.predict import Predictor
from models.registry import NetworkConfig, needs_background
from models.seal import ONNX, sealed

TOLERANCE = 1e-4
"""Largest difference of any probability or depth that counts as the same: a fortieth of a grey
level. Networks of all kinds differ by a few 1e-6."""

OPSET = 20
_EXAMPLES = 2  # torch takes a dimension of 1 for a constant


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A file that was written."""

    facts: ProgramFacts
    """What it says of itself."""

    difference: float
    """Largest difference from the checkpoint that was seen."""

    num_images: int
    """On so many pairs of images."""

    tolerance: float = TOLERANCE
    """Above which it would not have been written."""


class PixelProgram(nn.Module):
    """A network from uint8 pixels to probabilities.

    Args:
        predictor: A trained network and how its images are prepared.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.network = predictor.network
        mean, std = (
            torch.tensor(values).view(3, 1, 1) for values in (predictor.mean, predictor.std)
        )
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, background: Tensor, composite: Tensor) -> dict[str, Tensor]:
        """(N, 3, S, S) uint8 RGB to the (N, 1, S, S) float32 `mask` and `depth` it has."""
        return self._predict(self._normalise(background), composite)

    def _predict(self, background: Tensor | None, composite: Tensor) -> dict[str, Tensor]:
        prediction = self.network(background, self._normalise(composite))
        parts = {"mask": prediction.mask(), "depth": prediction.depth()}
        return {name: part for name, part in parts.items() if part is not None}

    def _normalise(self, pixels_N3SS: Tensor) -> Tensor:
        images = (pixels_N3SS.float() / 255 - self.mean) / self.std
        return images.contiguous(memory_format=torch.channels_last)


class CompositeProgram(PixelProgram):
    """The same for a network that looks at the composite alone."""

    def forward(self, composite: Tensor) -> dict[str, Tensor]:  # type: ignore[override] # an input less
        """(N, 3, S, S) uint8 RGB to the (N, 1, S, S) float32 `mask` and `depth` it has."""
        return self._predict(None, composite)


def check_request(format_: str, path: Path | None, batch: str, dtype: str) -> int | None:
    """Check how a user asked for an export.

    Returns:
        How many images the program takes at once; None: any number.

    Raises:
        ValueError: Something is not to be had; says what is.
    """
    if format_ not in FORMATS:
        msg = f"format is {format_!r}; it must be {' or '.join(FORMATS)}"
        raise ValueError(msg)
    if path is not None and path.suffix != FORMATS[format_]:
        msg = f"{path} must end in {FORMATS[format_]}, by which --format {format_} is known again"
        raise ValueError(msg)
    if dtype != "fp32":
        msg = f"dtype is {dtype!r}; it must be fp32"
        raise ValueError(msg)
    if batch == "dynamic":
        return None
    if not batch.isdecimal() or int(batch) < 1:
        msg = f"batch is {batch!r}; it must be a number of images, or dynamic"
        raise ValueError(msg)
    return int(batch)


def export(
    predictor: Predictor, network: NetworkConfig, path: Path, *, batch: int | None = None
) -> Exported:
    """Write a checkpoint's network as FILE.onnx or FILE.pt2.

    Args:
        predictor: The checkpoint's network on the CPU, and the size to export it for.
        network: What that network is.
        path: Its suffix, one of `FORMATS`, says the format. An older file of this name is replaced.
        batch: Images the program takes at once; None: any number.

    Raises:
        CheckpointError: What writes the format is not installed, the file cannot be written, or it
            computes something else than the checkpoint. An older file is as it was.
    """
    program, inputs = _program(predictor, network)
    # each its own tensor: torch.export takes one tensor given twice for one input
    images = tuple(
        _pixels(batch or _EXAMPLES, predictor.size, seed) for seed, _ in enumerate(inputs)
    )
    with torch.no_grad():
        outputs = tuple(program(*images))
    facts = ProgramFacts(
        network=network.name,
        width=network.width,
        size=predictor.size,
        batch=batch,
        inputs=inputs,
        outputs=outputs,
        pixel_mean=predictor.mean,
        pixel_std=predictor.std,
        version=_own_version(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write = _onnx if path.suffix == ONNX else _pt2
    with torch.no_grad(), _quiet():
        content = sealed(write(program, images, facts), path.suffix)
    difference, num_images = _compare(predictor, content, facts, path)
    write_atomically(path, content)
    return Exported(facts=facts, difference=difference, num_images=num_images)


def _program(predictor: Predictor, network: NetworkConfig) -> tuple[nn.Module, tuple[str, ...]]:
    if needs_background(network):
        return PixelProgram(predictor).eval(), ("background", "composite")
    return CompositeProgram(predictor).eval(), ("composite",)


def _dynamic(facts: ProgramFacts) -> dict[str, dict[int, torch.export.Dim]] | None:
    if facts.batch is not None:
        return None
    batch = torch.export.Dim("batch")
    return {name: {0: batch} for name in facts.inputs}


def _pt2(program: nn.Module, images: tuple[Tensor, ...], facts: ProgramFacts) -> bytes:
    buffer = io.BytesIO()
    exported = torch.export.export(program, images, dynamic_shapes=_dynamic(facts))
    torch.export.save(exported, buffer, extra_files={f"{METADATA}.json": facts.text()})
    return buffer.getvalue()


def _onnx(program: nn.Module, images: tuple[Tensor, ...], facts: ProgramFacts) -> bytes:
    try:
        import onnx
        import onnxruntime  # noqa: F401 - the check needs it: better told before than after
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        msg = f"an ONNX file is written with {error.name}, which is not installed; {INSTALL}"
        raise CheckpointError(msg) from None
    found = torch.onnx.export(
        program,
        images,
        dynamo=True,
        input_names=facts.inputs,
        output_names=facts.outputs,
        dynamic_shapes=_dynamic(facts),
        opset_version=OPSET,
        verbose=False,
    )
    assert found is not None
    proto = found.model_proto
    onnx.helper.set_model_props(proto, {METADATA: facts.text()})
    proto.producer_name, proto.producer_version = "maskdepth", facts.version
    return proto.SerializeToString(deterministic=True)


def _compare(
    predictor: Predictor, content: bytes, facts: ProgramFacts, path: Path
) -> tuple[float, int]:
    """Open the file as a user would and compare.

    Raises:
        CheckpointError: Something differs by more than `TOLERANCE`.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"program{path.suffix}"
        copy.write_bytes(content)
        program = read_exported(copy, torch.device("cpu"))
    difference, num_images = 0.0, 0
    for background, composite in _probes(facts.size):
        wanted = predictor.from_pixels(background, composite)
        found = program.from_pixels(background, composite)
        for part, other in zip(wanted, found, strict=True):
            if part is not None and other is not None:
                difference = max(difference, _largest(part - other))
        num_images += len(composite)
    if difference > TOLERANCE:
        msg = (
            f"{path} would differ from the checkpoint by {difference:.2g}, more than the "
            f"{TOLERANCE:g} tolerated, so it was not written; choose the other --format"
        )
        raise CheckpointError(msg)
    return difference, num_images


def _probes(size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Backgrounds and composites: noise, one pair and several, and what no camera delivers."""
    yield _pixels(1, size, 10), _pixels(1, size, 11)
    black, white = (torch.full((1, 3, size, size), value, dtype=torch.uint8) for value in (0, 255))
    chequered = torch.arange(size).view(-1, 1).add(torch.arange(size)).remainder(2).mul(255)
    board = chequered.to(torch.uint8).expand(1, 3, size, size)
    red = black.clone()
    red[:, 0] = 255
    noise = _pixels(1, size, 12)
    yield (
        torch.cat((black, white, white, board, 255 - board, red, noise)),
        torch.cat((black, white, black, 255 - board, board, noise, noise)),
    )


def _pixels(count: int, size: int, seed: int) -> Tensor:
    numbers = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=numbers)


def _largest(difference: Tensor) -> float:
    """Infinite where anything is not a number."""
    return float(difference.abs().nan_to_num(nan=float("inf")).max())


def _own_version() -> str:
    try:
        return version("maskdepth")
    except PackageNotFoundError:  # a checkout that was never installed
        return "unknown"


@contextmanager
def _quiet() -> Iterator[None]:
    """Torch's exporters tell of their own future, and of packages that nobody here asked for."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
