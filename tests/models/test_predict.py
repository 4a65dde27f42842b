import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from models.predict import (
    Decoded,
    Pair,
    Predictor,
    pair_folders,
    predict_files,
    predict_set,
)
from models.prediction import Prediction
from pipeline.batch import Batch

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


class RedIsMask(nn.Module):
    """The mask is where the red channel is bright, the depth is the green channel."""

    def forward(self, background: Tensor | None, composite: Tensor) -> Prediction:
        """Undo the normalisation and read the channels."""
        assert not self.training
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        rgb = composite * std + mean
        if background is not None:
            rgb = rgb + 0 * background
        return Prediction(20 * (rgb[:, :1] - 0.5), torch.logit(rgb[:, 1:2], eps=1e-4))


def predictor(size: int = 32, network: nn.Module | None = None) -> Predictor:
    return Predictor(
        network=network or RedIsMask(),
        size=size,
        mean=MEAN,
        std=STD,
        device=torch.device("cpu"),
    )


def decode(path: Path, size: int) -> Decoded:
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB").resize((size, size)))
        return Decoded(torch.from_numpy(pixels).permute(2, 0, 1), (image.height, image.width))


def picture(path: Path, green: int = 100, size: tuple[int, int] = (48, 64)) -> Path:
    """An image of (height, width) whose left half is red."""
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    pixels[:, : size[1] // 2, 0] = 255
    pixels[..., 1] = green
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


def test_one_pair_becomes_a_mask_and_a_depth_at_the_composites_own_size(tmp_path: Path) -> None:
    pair = Pair(picture(tmp_path / "bg.png"), picture(tmp_path / "scene.png", green=100))
    assert predict_files(predictor(), [pair], tmp_path / "out", decode=decode) == 1
    mask, depth = (read(tmp_path / f"out/scene.{part}.png") for part in ("mask", "depth"))
    expected = np.zeros((48, 64), dtype=np.uint8)
    expected[:, :32] = 255
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(depth, np.full((48, 64), 100, dtype=np.uint8))
    with Image.open(tmp_path / "out/panel.png") as image:
        assert image.mode == "RGB"


def test_the_networks_own_size_is_kept_where_asked(tmp_path: Path) -> None:
    pair = Pair(None, picture(tmp_path / "scene.png"))
    predict_files(predictor(), [pair], tmp_path, decode=decode, original_size=False)
    assert read(tmp_path / "scene.depth.png").shape == (32, 32)


def test_a_folder_in_several_batches_keeps_every_image_with_its_name(tmp_path: Path) -> None:
    greens = {f"scene{number}": 20 * number for number in range(5)}
    for stem, green in greens.items():
        picture(tmp_path / "composites" / f"{stem}.png", green)
        picture(tmp_path / "backgrounds" / f"{stem}.png", 255 - green)
    pairs = pair_folders(tmp_path / "backgrounds", tmp_path / "composites")
    assert all(pair.background and pair.background.stem == pair.composite.stem for pair in pairs)
    count = predict_files(predictor(), pairs, tmp_path / "out", decode=decode, batch_size=2)
    assert count == len(greens)
    for stem, green in greens.items():
        assert (read(tmp_path / "out" / f"{stem}.depth.png") == green).all()


def test_one_background_serves_a_whole_folder(tmp_path: Path) -> None:
    background = picture(tmp_path / "bg.png")
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / "composites").mkdir(exist_ok=True)
        (tmp_path / "composites" / name).touch()
    pairs = pair_folders(background, tmp_path / "composites")
    assert [(pair.background, pair.composite.name) for pair in pairs] == [
        (background, "a.JPG"),
        (background, "b.png"),
    ]


def test_composites_without_a_background_of_their_name_are_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / "composites" / name)
    picture(tmp_path / "backgrounds" / "b.png")
    with pytest.raises(ValueError, match=r"2 composites have no background .*\(a.png, c.png\)"):
        pair_folders(tmp_path / "backgrounds", tmp_path / "composites")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image"):
        pair_folders(None, tmp_path)


def test_two_composites_of_one_stem_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    pairs = [Pair(None, tmp_path / "a.png"), Pair(None, tmp_path / "a.jpg")]
    with pytest.raises(ValueError, match="would both be written as a; rename one"):
        predict_files(predictor(), pairs, tmp_path / "out", decode=decode)
    assert not (tmp_path / "out").exists()


def test_pairs_of_which_only_some_have_a_background_are_refused(tmp_path: Path) -> None:
    pairs = [
        Pair(None, picture(tmp_path / "a.png")),
        Pair(picture(tmp_path / "bg.png"), picture(tmp_path / "b.png")),
    ]
    with pytest.raises(ValueError, match=r"1 of 2 pairs has no background: .*a\.png"):
        predict_files(predictor(), pairs, tmp_path / "out", decode=decode)


def batch(numbers: list[int], weights: list[float]) -> Batch:
    num = len(numbers)
    colour = torch.zeros(num, 3, 32, 32)
    colour[:, 0, :, :16] = 1
    colour[:, 1] = torch.tensor(numbers).view(-1, 1, 1) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    target = torch.zeros(num, 1, 32, 32)
    return Batch(
        background=None,
        composite=(colour - mean) / std,
        mask=target,
        depth=target,
        number=torch.tensor(numbers),
        weight=torch.tensor(weights),
    )


def test_a_set_is_written_by_sample_number_without_its_padding(tmp_path: Path) -> None:
    batches = [batch([50, 70], [1, 1]), batch([90, 91], [1, 0])]
    assert predict_set(predictor(), batches, tmp_path, mean=MEAN, std=STD) == 3
    written = {path.name for path in tmp_path.iterdir()}
    names = {f"{number:06d}.{part}.png" for number in (50, 70, 90) for part in ("mask", "depth")}
    assert written == names | {"panel.png"}
    for number in (50, 70, 90):
        assert (read(tmp_path / f"{number:06d}.depth.png") == number).all()
        assert (read(tmp_path / f"{number:06d}.mask.png")[:, :16] == 255).all()


def test_another_sets_batches_are_prepared_as_in_training(tmp_path: Path) -> None:
    """The network knows its own set's mean and deviation, whatever the given set was divided by."""
    plain = batch([50], [1])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    other = dataclasses.replace(plain, composite=(plain.composite * std + mean - 0.1) / 0.7)
    predict_set(predictor(), [other], tmp_path, mean=(0.1,) * 3, std=(0.7,) * 3)
    assert (read(tmp_path / "000050.depth.png") == 50).all()


def test_a_network_of_one_task_writes_that_task_alone(tmp_path: Path) -> None:
    class MaskOnly(RedIsMask):
        def forward(self, background: Tensor | None, composite: Tensor) -> Prediction:
            return super().forward(background, composite)._replace(depth_logits=None)

    predict_set(predictor(network=MaskOnly()), [batch([7], [1])], tmp_path, mean=MEAN, std=STD,
                stem=lambda n: f"s{n}")  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"s7.mask.png", "panel.png"}


def test_the_network_runs_under_the_autocast_type_that_was_asked_for() -> None:
    class Linear(nn.Module):
        seen: torch.dtype | None = None

        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Conv2d(3, 1, 1)

        def forward(self, background: Tensor | None, composite: Tensor) -> Prediction:
            logits = self.mix(composite)
            Linear.seen = logits.dtype
            return Prediction(logits, None)

    for dtype, seen in ((torch.bfloat16, torch.bfloat16), (None, torch.float32)):
        run = Predictor(
            network=Linear(),
            size=32,
            mean=MEAN,
            std=STD,
            device=torch.device("cpu"),
            autocast_dtype=dtype,
        )
        maps = run.from_pixels(None, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
        assert Linear.seen == seen
        assert maps.mask is not None
        assert maps.mask.dtype == torch.float32
