"""Exported files against the checkpoint, by the runtimes that a user has, and what is refused."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import cli
from models import export as export_module
from models.checkpoint import encode
from models.error import CheckpointError
from models.export import CompositeProgram, PixelProgram, export
from models.exported import read_exported
from models.predict import Predictor
from models.registry import NETWORKS, NetworkConfig, build_network
from models.seal import ONNX, PT2, sealed, unsealed
from models.training.config import TrainConfig
from shards.manifest import read_manifest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CPU = torch.device("cpu")
SIZE = 32
FORMATS = {"onnx": ONNX, "torch-export": PT2}
Numbers = tuple[float, float, float]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code if isinstance(ended.value.code, int) else 0


def lively(network: nn.Module, seed: int) -> nn.Module:
    """Give BatchNorm a past, so that leaving it out would show."""
    numbers = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.3, generator=numbers)
            module.running_var.uniform_(0.3, 3, generator=numbers)
    return network.eval()


def checkpoint_at(path: Path, mean: Numbers, std: Numbers) -> Path:
    """A checkpoint whose averaged weights differ from its last ones."""
    config = NetworkConfig()
    torch.manual_seed(1)
    last, averaged = (lively(build_network(config), seed).state_dict() for seed in (1, 2))
    empty: dict[str, Any] = {}
    state = {
        "model": last,
        "ema": averaged,
        "optimizer": empty,
        "schedule": empty,
        "scaler": empty,
        "rng": empty,
        "progress": empty,
        "config": {
            "network": dataclasses.asdict(config),
            "train": TrainConfig(stages=f"{SIZE}:1").to_dict(),
        },
        "set": {"pixel_mean": mean, "pixel_std": std},
    }
    path.write_bytes(encode(state))
    return path


@pytest.fixture(scope="module")
def scaling(small_set: Path) -> tuple[Numbers, Numbers]:
    statistics = read_manifest(small_set).statistics["composite"]
    return statistics.mean, statistics.std  # type: ignore[return-value]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, scaling: tuple[Numbers, Numbers]) -> Path:
    return checkpoint_at(tmp_path_factory.mktemp("export") / "best.pt", *scaling)


@pytest.fixture(scope="module", params=FORMATS)
def exported(request: pytest.FixtureRequest, checkpoint: Path) -> Path:
    """The checkpoint in each format, where the command puts it unasked."""
    assert run("export", "--checkpoint", checkpoint, "--format", request.param) == 0
    return checkpoint.with_name(f"best-{SIZE}px{FORMATS[request.param]}")


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8)


def by_hand(
    checkpoint: Path,
    scaling: tuple[Numbers, Numbers],
    background: np.ndarray,
    composite: np.ndarray,
) -> list[np.ndarray]:
    """The averaged weights in float64, on images that numpy normalised."""
    state = torch.load(checkpoint, weights_only=True)
    network = build_network(NetworkConfig()).double().eval()
    network.load_state_dict(state["ema"])
    mean, std = (np.reshape(values, (1, 3, 1, 1)) for values in scaling)
    normalised = (torch.from_numpy((part / 255 - mean) / std) for part in (background, composite))
    with torch.no_grad():
        logits = network(*normalised)
    return [(1 / (1 + np.exp(-part.numpy()))) for part in logits[:2]]


def by_its_own_runtime(path: Path, background: np.ndarray, composite: np.ndarray) -> list[Any]:
    """As a user would who has nothing of ours."""
    if path.suffix == ONNX:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(["mask", "depth"], {"background": background, "composite": composite})
    module = torch.export.load(path).module()
    found = module(torch.from_numpy(background), torch.from_numpy(composite))
    return [found["mask"].detach().numpy(), found["depth"].detach().numpy()]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_raw_pixels_give_the_checkpoints_probabilities_in_the_formats_own_runtime(
    exported: Path, checkpoint: Path, scaling: tuple[Numbers, Numbers], count: int
) -> None:
    """Normalisation and averaged weights are inside, and any number of images is taken."""
    background, composite = images(count, 1), images(count, 2)
    wanted = by_hand(checkpoint, scaling, background, composite)
    found = by_its_own_runtime(exported, background, composite)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == np.float32
        assert ours.shape == (count, 1, SIZE, SIZE)
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert np.ptp(wanted[0]) > 0.05, "a constant would prove nothing"


def test_the_file_says_what_it_is(exported: Path, scaling: tuple[Numbers, Numbers]) -> None:
    if exported.suffix == ONNX:
        model = onnx.load(exported)
        onnx.checker.check_model(model, full_check=True)
        found = {entry.key: entry.value for entry in model.metadata_props}["maskdepth"]
    else:
        extra = {"maskdepth.json": ""}
        torch.export.load(exported, extra_files=extra)
        found = extra["maskdepth.json"]
    facts = json.loads(found)
    assert facts["network"] == "unet"
    assert facts["size"] == SIZE
    assert facts["inputs"] == ["background", "composite"]
    assert facts["outputs"] == ["mask", "depth"]
    assert (facts["pixel_mean"], facts["pixel_std"]) == tuple(map(list, scaling))


def test_a_pair_and_a_set_are_predicted_as_by_the_checkpoint(
    exported: Path, checkpoint: Path, small_set: Path, tmp_path: Path
) -> None:
    for name, seed in (("bg", 3), ("fg", 4)):
        Image.fromarray(images(1, seed)[0].transpose(1, 2, 0)).save(tmp_path / f"{name}.png")
    pair = ("--background", tmp_path / "bg.png", "--composite", tmp_path / "fg.png")
    for given_ in (pair, ("--data", small_set)):
        written = []
        for network in (checkpoint, exported):
            out = tmp_path / f"{network.name}{len(given_)}"
            assert run("predict", "--checkpoint", network, *given_, "--out", out) == 0
            written.append({path.name: path for path in out.glob("*.depth.png")})
        wanted, found = written
        assert wanted.keys() == found.keys()
        assert len(found) == (1 if given_ is pair else 80)
        for name, path in found.items():
            with Image.open(path) as ours, Image.open(wanted[name]) as theirs:
                distance = np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)
            assert np.abs(distance).max() <= 1, name


def test_an_exported_file_is_scored_like_the_checkpoint(
    exported: Path, checkpoint: Path, small_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores: list[dict[str, Any]] = []
    capsys.readouterr()
    for network in (checkpoint, exported):
        assert run("evaluate", "--checkpoint", network, "--data", small_set, "--json") == 0
        scores.append(json.loads(capsys.readouterr().out))
    for name, value in scores[0].items():
        if name != "checkpoint":
            # the checkpoint is scored in bfloat16 where the processor has it
            assert scores[1][name] == pytest.approx(value, abs=0.01), name


def test_another_size_is_refused_in_one_line(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("predict", "--checkpoint", exported, "--composite", "x.png", "--out", tmp_path)
    capsys.readouterr()
    assert run(*asked, "--size", 64) == 2
    told = capsys.readouterr().err
    assert f"was exported for {SIZE} px, not 64; leave out --size" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content[:4000] + bytes([content[4000] ^ 1]) + content[4001:],
        lambda content: content[:-3] + b"0" * 3,
        lambda content: b"",
    ],
    ids=["a byte short", "half", "a bit", "the hash", "empty"],
)
def test_a_damaged_file_is_named_before_it_runs(
    exported: Path, tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / exported.name
    path.write_bytes(harm(exported.read_bytes()))
    with pytest.raises(CheckpointError, match=r"best-32px.* is damaged, cut short, .*export again"):
        read_exported(path, CPU)


def test_a_sealed_file_that_is_none_of_ours_is_refused(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / exported.name
    path.write_bytes(sealed(b"something else, and long enough to be read\0\0", exported.suffix))
    with pytest.raises(CheckpointError, match="is no exported network of ours"):
        read_exported(path, CPU)


@given(payload=st.binary(min_size=2, max_size=200), at=st.integers(0), flip=st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(payload: bytes, at: int, flip: int) -> None:
    for path in (Path("a.onnx"), Path("a.pt2")):
        original = payload if path.suffix == ONNX else payload + b"\0\0"
        content = sealed(original, path.suffix)
        assert unsealed(content, path) == original
        at %= len(content)
        changed = content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :]
        with pytest.raises(CheckpointError, match="is damaged"):
            unsealed(changed, path)


def predictor(network: nn.Module, size: int = SIZE) -> Predictor:
    return Predictor(
        network=network.eval(), size=size, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), device=CPU
    )


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("003-tied", PT2),
        *(
            pytest.param(name, suffix, marks=pytest.mark.soak)
            for name in NETWORKS
            for suffix in FORMATS.values()
        ),
    ],
)
def test_every_network_is_exported_and_agrees(name: str, suffix: str, tmp_path: Path) -> None:
    config = NetworkConfig(name=name)
    size = max(16, NETWORKS[name].sizes.least_alone)
    torch.manual_seed(3)
    ours = predictor(lively(build_network(config), 4), size)
    path = tmp_path / f"network{suffix}"
    export(ours, config, path)
    program = read_exported(path, CPU)
    background, composite = (
        torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, 3, size, size), np.uint8))
        for seed in (5, 6)
    )
    assert ("background" in program.facts.inputs) == NETWORKS[name].needs_background
    needed = background if NETWORKS[name].needs_background else None
    for wanted, found in zip(
        ours.from_pixels(needed, composite), program.from_pixels(needed, composite), strict=True
    ):
        assert (wanted is None) == (found is None)
        if wanted is not None and found is not None:
            torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)
    if NETWORKS[name].needs_background:
        with pytest.raises(ValueError, match="compares the composite with its background"):
            program.from_pixels(None, composite)


def test_a_program_of_a_fixed_batch_serves_any_number_of_images(tmp_path: Path) -> None:
    config, size = NetworkConfig(name="004-masknet3"), 16
    ours = predictor(lively(build_network(config), 1), size)
    export(ours, config, tmp_path / "four.pt2", batch=4)
    program = read_exported(tmp_path / "four.pt2", CPU)
    assert program.facts.batch == 4
    background, composite = (
        torch.randint(0, 256, (7, 3, size, size), dtype=torch.uint8) for _ in range(2)
    )
    found, wanted = (one.from_pixels(background, composite).mask for one in (program, ours))
    assert found is not None
    assert wanted is not None
    assert found.shape == (7, 1, size, size)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fault", ["scale", "nan"])
def test_a_program_that_computes_something_else_is_not_written(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older file of that name stays, and nothing lies beside it."""
    config = NetworkConfig(name="004-masknet3")
    path = tmp_path / "network.pt2"
    path.write_bytes(b"the older one")

    def wrong(self: PixelProgram, pixels_N3SS: Tensor) -> Tensor:
        images = (pixels_N3SS.float() / 255 - self.mean) / self.std
        is_white = pixels_N3SS.float().mean((1, 2, 3), keepdim=True) > 254
        return images * 1.05 if fault == "scale" else images.masked_fill(is_white, torch.nan)

    monkeypatch.setattr(PixelProgram, "_normalise", wrong)
    with pytest.raises(CheckpointError, match=r"would differ from the checkpoint by .*not written"):
        export(predictor(lively(build_network(config), 1), 16), config, path)
    assert path.read_bytes() == b"the older one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_told_with_the_extra_that_has_it(
    package: str,
    checkpoint: Path,
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    capsys.readouterr()
    assert run("export", "--checkpoint", checkpoint, "--out", tmp_path / "a.onnx") == 2
    told = capsys.readouterr().err
    assert f"{package}, which is not installed; pip install 'maskdepth[export]'" in told
    if (package, exported.suffix) == ("onnxruntime", ONNX):
        with pytest.raises(CheckpointError, match="onnxruntime, which is not installed; pip"):
            read_exported(exported, CPU)
    else:
        assert read_exported(exported, CPU).size == SIZE


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--size", 50), "multiple of 32"),
        (("--size", 0), "multiple of 32 px, not 0"),
        (("--format", "tensorrt"), "format is 'tensorrt'; it must be onnx or torch-export"),
        (("--out", "network.pt2"), "network.pt2 must end in .onnx"),
        (("--batch", 0), "batch is '0'; it must be a number of images, or dynamic"),
        (("--batch", "few"), "batch is 'few'"),
        (("--dtype", "int3"), "dtype is 'int3'; it must be fp32"),
        (("--checkpoint", "nowhere/last.pt"), "there is no checkpoint nowhere/last.pt"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(
    options: tuple[object, ...],
    expected: str,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("export", "--checkpoint", checkpoint, *options) == 2
    told = capsys.readouterr().err
    assert expected in told
    assert told.count("\n") == 1


def test_the_composites_program_has_no_second_input() -> None:
    program = CompositeProgram(predictor(build_network(NetworkConfig(name="003-tied"))))
    found = program.eval()(torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8))
    assert found["depth"].shape == (2, 1, SIZE, SIZE), "three channels are averaged"
    assert export_module.TOLERANCE <= 1e-3 / 3.9, "under a grey level"
