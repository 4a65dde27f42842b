"""Exported networks: one file that takes pixels and gives probabilities, without this program.

    FILE.onnx   for onnxruntime                       `maskdepth export --format onnx`
    FILE.pt2    for `torch.export.load(...).module()` `maskdepth export --format torch-export`

Normalisation and sigmoids are inside, so nobody has to repeat them. What the file says of itself is
a JSON object called `maskdepth`: in an ONNX file's `metadata_props`, in a .pt2's extra files. Each
ends with the SHA-256 of all bytes before, in a place where its own format allows a remark.

Shapes: N images, 3 RGB channels, S x S pixels.
"""

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.error import CheckpointError
from models.predict import Maps, restore_pixels
from models.prediction import Prediction
from models.seal import ONNX, PT2, unsealed

FORMATS = {"onnx": ONNX, "torch-export": PT2}
"""File suffix by format."""

METADATA = "maskdepth"
INSTALL = "pip install 'maskdepth[export]'"

_LOGIT_EPS = 1e-7


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramFacts:
    """What an exported file says of itself."""

    network: str
    """A key of `models.registry.NETWORKS`."""

    width: str
    """One of its widths."""

    size: int
    """S, fixed when it was exported."""

    batch: int | None
    """N if that is fixed, too; None: any."""

    inputs: tuple[str, ...]
    """`background` and `composite`, or the latter alone: (N, 3, S, S) uint8 RGB."""

    outputs: tuple[str, ...]
    """`mask` and `depth`, or one of them: (N, 1, S, S) float32 in [0, 1]."""

    pixel_mean: tuple[float, ...]
    """What the program subtracts from each channel of value / 255."""

    pixel_std: tuple[float, ...]
    """What it divides each channel by after that."""

    version: str
    """Of the maskdepth that wrote it."""

    def text(self) -> str:
        """As kept in the file."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def of(cls, text: str, path: Path) -> "ProgramFacts":
        """Read what `text` wrote.

        Raises:
            CheckpointError: It is not what this version writes.
        """
        try:
            found = json.loads(text)
            lists = {key: tuple(value) for key, value in found.items() if isinstance(value, list)}
            return cls(**{**found, **lists})
        except (ValueError, TypeError, AttributeError):
            msg = f"{path} was exported by another version of maskdepth; export it again"
            raise CheckpointError(msg) from None


Run = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Inputs by name to outputs by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedNetwork:
    """An exported file, ready to run; takes a `Predictor`'s place."""

    facts: ProgramFacts
    """What the file says of itself."""

    run: Run
    """The program."""

    @property
    def size(self) -> int:
        """Side of its images in pixels."""
        return self.facts.size

    def from_pixels(self, background: Tensor | None, composite: Tensor) -> Maps:
        """Predict from (N, 3, S, S) uint8 images, whatever batch the file was made for.

        Raises:
            ValueError: The network needs backgrounds, and there is none.
        """
        images = {"composite": composite}
        if "background" in self.facts.inputs:
            if background is None:
                name = self.facts.network
                msg = f"network {name!r} compares the composite with its background; give one"
                raise ValueError(msg)
            images["background"] = background
        step = self.facts.batch or max(1, len(composite))
        found = []
        for start in range(0, len(composite), step):
            count = min(step, len(composite) - start)
            chunk = {name: part[start : start + count] for name, part in images.items()}
            if self.facts.batch:  # the last image fills up a batch of fixed length
                chunk = {
                    name: torch.cat((part, part[-1:].expand(step - count, -1, -1, -1)))
                    for name, part in chunk.items()
                }
            outputs = self.run({name: part.contiguous() for name, part in chunk.items()})
            found.append({name: part[:count].float().cpu() for name, part in outputs.items()})
        joined = {name: torch.cat([part[name] for part in found]) for name in self.facts.outputs}
        return Maps(joined.get("mask"), joined.get("depth"))

    def as_network(self, mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
        """The same as a module from normalised images to logits, to be scored like a network.

        Args:
            mean: What was subtracted from the images it will be given.
            std: What they were divided by.
        """
        return _Logits(self, mean, std)


class _Logits(nn.Module):
    def __init__(
        self, program: ExportedNetwork, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.program = program
        self.mean, self.std = mean, std

    def forward(self, background: Tensor | None, composite: Tensor) -> Prediction:
        maps = self.program.from_pixels(
            None if background is None else restore_pixels(background, self.mean, self.std),
            restore_pixels(composite, self.mean, self.std),
        )
        mask_logits, depth_logits = (
            None if part is None else part.to(composite.device).logit(eps=_LOGIT_EPS)
            for part in maps
        )
        return Prediction(mask_logits, depth_logits)


def is_exported(path: Path) -> bool:
    """Whether a file's name says that it is an exported network, not a checkpoint."""
    return path.suffix in FORMATS.values()


def read_exported(path: Path, device: torch.device) -> ExportedNetwork:
    """Open an exported network.

    A .pt2 file is a program: as with any program, run only one that you trust.

    Args:
        path: FILE.onnx or FILE.pt2.
        device: Where it is to run. onnxruntime's usual build knows the CPU alone.

    Raises:
        CheckpointError: There is no such file, it is damaged or none of ours, or what runs it is
            not installed.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        msg = f"there is no file {path}; `maskdepth export` makes one from a checkpoint"
        raise CheckpointError(msg) from None
    open_program = _open_onnx if path.suffix == ONNX else _open_pt2
    return open_program(path, unsealed(content, path), device)


def _open_onnx(path: Path, content: bytes, device: torch.device) -> ExportedNetwork:
    try:
        import onnxruntime
    except ImportError:
        msg = f"{path} is run by onnxruntime, which is not installed; {INSTALL}"
        raise CheckpointError(msg) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: they are raised as well
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # onnxruntime's own, one class for each of its status codes
        raise _foreign(path, str(error)) from None
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    if text is None:
        raise _foreign(path, "it does not say what it is")
    facts = ProgramFacts.of(text, path)

    def run(images: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        feeds = {name: part.cpu().numpy() for name, part in images.items()}
        found = session.run(list(facts.outputs), feeds)
        return {name: torch.from_numpy(part) for name, part in zip(facts.outputs, found)}  # noqa: B905

    return ExportedNetwork(facts=facts, run=run)


def _open_pt2(path: Path, content: bytes, device: torch.device) -> ExportedNetwork:
    from torch.export.passes import move_to_device_pass

    extra: dict[str, Any] = {f"{METADATA}.json": ""}
    try:
        program = torch.export.load(io.BytesIO(content), extra_files=extra)
    except (RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _foreign(path, str(error)) from None
    if not extra[f"{METADATA}.json"]:
        raise _foreign(path, "it does not say what it is")
    facts = ProgramFacts.of(extra[f"{METADATA}.json"], path)
    if device.type != "cpu":
        program = move_to_device_pass(program, device)
    module = program.module()

    def run(images: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        # it was checked in float32, and says of each value inside that it is
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            return module(*(images[name].to(device) for name in facts.inputs))

    return ExportedNetwork(facts=facts, run=run)


def _foreign(path: Path, found: str) -> CheckpointError:
    first = (found.splitlines() or [""])[0][:200]
    return CheckpointError(f"{path} is no exported network of ours ({first}); export it again")
