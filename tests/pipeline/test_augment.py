from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.augment import AugmentConfig, choose_flips, draws, flip
from pipeline.loader import Loader, LoaderConfig

CPU = torch.device("cpu")


def test_draws_are_uniform_and_unrelated() -> None:
    numbers, epochs = np.arange(20_000), np.zeros(20_000, np.int64)
    first = draws(0, epochs, numbers, 1)
    others = [draws(1, epochs, numbers, 1), draws(0, epochs + 1, numbers, 1),
              draws(0, epochs, numbers, 2), np.roll(first, 1)]  # fmt: skip
    assert first.min() >= 0
    assert first.max() < 1
    np.testing.assert_allclose(np.histogram(first, 10, (0, 1))[0] / 2_000, 1, atol=0.12)
    for other in others:
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.03


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(1, 50))
def test_a_draw_depends_on_nothing_but_its_own_sample(seed: int, epoch: int, count: int) -> None:
    numbers = np.arange(count)
    together = draws(seed, np.full(count, epoch), numbers, 3)
    alone = [draws(seed, np.array([epoch]), numbers[n : n + 1], 3)[0] for n in range(count)]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_so_many_samples_are_mirrored_as_asked(share: float) -> None:
    zeros = np.zeros(4_000, np.int64)
    chosen = choose_flips(AugmentConfig(flip=share), seed=0, epochs=zeros, numbers=np.arange(4_000))
    assert chosen.float().mean().item() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 6, 5, 3)])
def test_a_flip_is_numpys_and_leaves_the_others_alone(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    chosen = np.array([True, False, False, True])
    expected = pixels.copy()
    expected[chosen] = pixels[chosen][:, :, ::-1]
    found = flip(torch.from_numpy(pixels), torch.from_numpy(chosen))
    np.testing.assert_array_equal(found.numpy(), expected)


def batches(path: Path, share: float, start: int, num_steps: int) -> list[dict[str, torch.Tensor]]:
    config = LoaderConfig(augment=AugmentConfig(flip=share), threads=2, seed=5)
    found = []
    with Loader(path, config, CPU) as loader:
        stream = loader.train(size=64, batch_size=24, start=start, num_steps=num_steps)
        with stream as made:
            for batch in made:
                assert batch.background is not None
                found.append({
                    name: getattr(batch, name).clone()
                    for name in ("background", "composite", "mask", "depth", "number")
                })  # fmt: skip
    return found


def test_all_four_images_of_a_sample_are_mirrored_together(small_set: Path) -> None:
    for plain, mixed in zip(
        batches(small_set, 0.0, 0, 12), batches(small_set, 0.5, 0, 12), strict=True
    ):
        mirrored = {
            name: [bool((one.flip(-1) == other).all()) for one, other in
                   zip(plain[name], mixed[name], strict=True)]
            for name in ("background", "composite", "mask", "depth")
        }  # fmt: skip
        untouched = [bool((one == other).all()) for one, other in
                     zip(plain["composite"], mixed["composite"], strict=True)]  # fmt: skip
        assert mirrored["composite"] == [not same for same in untouched]
        assert mirrored["composite"] == mirrored["background"] == mirrored["mask"]
        assert mirrored["composite"] == mirrored["depth"]
        assert 0 < sum(mirrored["composite"]) < 24


def test_a_resumed_stream_is_augmented_as_the_undisturbed_one(small_set: Path) -> None:
    """Across an epoch border: 240 samples are 10 batches."""
    whole = batches(small_set, 0.5, 0, 14)
    resumed = batches(small_set, 0.5, 9 * 24, 5)
    for one, other in zip(whole[9:], resumed, strict=True):
        for name, images in one.items():
            assert torch.equal(images, other[name]), name


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"flip is 1\.5; it is a probability"):
        AugmentConfig(flip=1.5)
