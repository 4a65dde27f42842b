"""The last hop on made-up pixels, and through the loader: what is promised of augmented batches."""

from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.augment import PRESETS, AugmentConfig, read_augment
from pipeline.augment.augmenter import Pixels, Planes
from pipeline.finish import Finisher
from pipeline.loader import Loader, LoaderConfig
from pipeline.normalise import Normalisation

CPU = torch.device("cpu")
NORMALISATION = Normalisation(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
EVERYTHING = (
    "strong,flip_vertical=0.3,hsv_hue=0.1,hsv_value=0.1,hsv_chance=0.5,shift=0.1,shift_chance=0.5"
)
NAMES = ("background", "composite", "mask", "depth")


def finisher(text: str, *, device: torch.device = CPU) -> Finisher:
    return Finisher(NORMALISATION, read_augment(text), seed=3, device=device)


def random_pixels(num: int, size: int = 48, *, device: torch.device = CPU) -> Pixels:
    made = torch.Generator().manual_seed(num)

    def images(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=made).to(device)

    return Pixels(
        background=images(num, size, size, 3),
        composite=images(num, size, size, 3),
        mask=images(num, size, size),
        depth=images(num, size, size),
    )


def part(pixels: Pixels, rows: slice) -> Pixels:
    return Pixels(**{field.name: getattr(pixels, field.name)[rows] for field in fields(pixels)})


def finish(text: str, pixels: Pixels, first: int = 0) -> Planes:
    """Samples `first`... of epoch 1."""
    numbers = np.arange(first, first + len(pixels.mask))
    device = pixels.mask.device
    return finisher(text, device=device).planes(pixels, numbers, np.ones_like(numbers))


def assert_same(found: Planes, expected: Planes) -> None:
    for field in fields(found):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        assert torch.equal(one, other), field.name


@pytest.mark.parametrize("text", [*PRESETS, EVERYTHING, f"{EVERYTHING},independent=true,fill=zero"])
def test_images_are_channels_last_and_within_range_and_targets_stay_targets(text: str) -> None:
    found = finish(text, random_pixels(40))
    black, white = (
        (torch.tensor([value] * 3) - torch.tensor(NORMALISATION.mean))
        / torch.tensor(NORMALISATION.std)
        for value in (0.0, 1.0)
    )
    for name in NAMES:
        images = getattr(found, name)
        assert images.shape == (40, 3 if name in NAMES[:2] else 1, 48, 48)
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
    for images in (found.background, found.composite):
        assert images is not None
        assert (images >= black.view(3, 1, 1) - 1e-5).all()
        assert (images <= white.view(3, 1, 1) + 1e-5).all()
    assert set(found.mask.unique().tolist()) == {0.0, 1.0}
    assert found.depth.min() >= 0
    assert found.depth.max() <= 1


@pytest.mark.parametrize("size", [48, 160])
def test_a_sample_is_the_same_in_any_batch(size: int) -> None:
    """Bit for bit: one by one, in other batches, and however many are augmented at once."""
    pixels = random_pixels(20, size)
    whole = finish(EVERYTHING, pixels)
    for rows in (slice(0, 1), slice(1, 8), slice(8, 20)):
        some = finish(EVERYTHING, part(pixels, rows), rows.start)
        expected = Planes(**{f.name: getattr(whole, f.name)[rows] for f in fields(whole)})
        assert_same(some, expected)


@pytest.mark.parametrize("text", ["none", "flip", "strong"])
def test_batches_that_are_kept_keep_what_they_show(text: str) -> None:
    """Memory is used again, of those alone that are not."""
    pixels, made = random_pixels(6), finisher(text)
    numbers, addresses = np.arange(6), set()
    kept = []
    for epoch in range(12):
        planes = made.planes(pixels, numbers, np.full(6, epoch))
        addresses.add(planes.composite.data_ptr())
        if epoch % 4 == 0:
            kept.append((epoch, planes))
        del planes
    for epoch, planes in kept:
        assert_same(planes, finisher(text).planes(pixels, numbers, np.full(6, epoch)))
    assert len(addresses) == len(kept) + 1


@pytest.mark.parametrize("text", ["none", "flip", "strong"])
def test_the_bits_do_not_depend_on_the_number_of_threads(text: str) -> None:
    pixels, before = random_pixels(9, 96), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(finish(text, pixels))
    finally:
        torch.set_num_threads(before)
    assert_same(*found)


def test_where_only_flips_are_drawn_pixels_stay_what_they_were() -> None:
    pixels = random_pixels(60)
    found, plain = finish("flip,flip_vertical=0.4", pixels), finish("none", pixels)
    kinds = set()
    for number in range(60):
        turns = {
            (across, down): [
                torch.equal(
                    getattr(found, name)[number],
                    getattr(plain, name)[number].flip([d for d, on in ((-1, across), (-2, down))
                                                       if on]),
                )
                for name in NAMES
            ]
            for across in (False, True) for down in (False, True)
        }  # fmt: skip
        (kind,) = (turn for turn, same in turns.items() if all(same))
        assert sum(any(same) for same in turns.values()) == 1
        kinds.add(kind)
    assert len(kinds) == 4


def test_a_sample_that_no_warp_meets_is_mirrored_exactly() -> None:
    """Rotation meets half of them: the others are those of flips alone, bit for bit."""
    pixels = random_pixels(40)
    found, flipped = finish("003", pixels), finish("flip", pixels)
    same = [torch.equal(a, b) for a, b in zip(found.depth, flipped.depth, strict=True)]
    assert 10 < sum(same) < 30
    for name in NAMES:
        # the arithmetic of `planes` is that of `images`
        for here, a, b in zip(same, getattr(found, name), getattr(flipped, name), strict=True):
            assert torch.equal(a, b) == here, name


def test_a_warp_mirrors_the_samples_that_flips_alone_would() -> None:
    """Once, not twice: a turn too small to see, of all samples, changes nothing."""
    pixels = random_pixels(40)
    flips = "flip,flip_vertical=0.4"
    found, expected = finish(f"{flips},rotation=0.001", pixels), finish(flips, pixels)
    assert not torch.equal(found.depth, expected.depth)  # it was interpolated
    for name in ("background", "composite", "depth"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=5e-3, rtol=0)


def test_geometry_moves_all_four_images_alike() -> None:
    """A marker at one place of all four is, after anything, at one other place of all four."""
    size, num = 96, 60
    y, x = np.mgrid[:size, :size]
    marker = ((abs(y - 40) < 6) & (abs(x - 58) < 9)) * np.uint8(255)
    grey = torch.from_numpy(marker).expand(num, size, size).contiguous()
    colour = grey.unsqueeze(3).expand(-1, -1, -1, 3).contiguous()
    pixels = Pixels(background=colour, composite=colour, mask=grey, depth=grey)
    text = "flip,flip_vertical=0.5,rotation=30,scale_min=0.7,scale_max=1.4,translate=0.1,fill=edge"
    found = finish(text, pixels)
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (NORMALISATION.mean, NORMALISATION.std)
    )
    for images in (found.background, found.composite):
        assert images is not None
        torch.testing.assert_close(
            images * std + mean, found.depth.expand_as(images), atol=1e-5, rtol=0
        )
    assert torch.equal(found.mask, (found.depth >= 127.5 / 255).float())
    seen = found.mask.flatten(1).sum(1) > 60
    assert seen.sum() > 45
    centres = [np.argwhere(mask[0]).mean(1).round() for mask in found.mask[seen].numpy()]
    assert len({tuple(centre) for centre in centres}) > 0.9 * len(centres)


@pytest.mark.parametrize("text", ["004", "001", "none,blur=2,noise=0.1"])
def test_photometry_leaves_the_targets_alone_and_treats_both_pictures_alike(text: str) -> None:
    pixels = random_pixels(30)
    twice = Pixels(background=pixels.composite, composite=pixels.composite, mask=pixels.mask,
                   depth=pixels.depth)  # fmt: skip
    found, plain = finish(text, twice), finish("none", twice)
    assert torch.equal(found.mask, plain.mask)
    assert torch.equal(found.depth, plain.depth)
    assert found.background is not None
    assert torch.equal(found.background, found.composite)
    changed = [not torch.allclose(a, b) for a, b in
               zip(found.composite, plain.composite, strict=True)]  # fmt: skip
    assert sum(changed) >= (15 if text == "004" else 30)  # 004: one of three, each at 0.5
    apart = finish(f"{text},independent=true", twice)
    assert torch.equal(apart.composite, found.composite)
    assert apart.background is not None
    same = [torch.equal(a, b) for a, b in zip(apart.background, apart.composite, strict=True)]
    assert sum(same) <= 10


def test_contrast_keeps_the_composites_mean_grey_and_the_backgrounds_difference() -> None:
    """What composite and background have in common stays equal: both turn about one pivot."""
    pixels = random_pixels(10)
    pixels.composite.clamp_(90, 160)
    assert pixels.background is not None
    pixels.background.copy_(pixels.composite)
    pixels.background[:, :10] = 200
    found, plain = finish("none,contrast=0.3", pixels), finish("none", pixels)
    assert found.background is not None
    assert torch.equal(found.background[:, :, 10:], found.composite[:, :, 10:])
    grey = torch.tensor([0.299, 0.587, 0.114]) * torch.tensor(NORMALISATION.std)
    means = [(p.composite.mean((2, 3)) @ grey) for p in (found, plain)]
    torch.testing.assert_close(*means, atol=1e-5, rtol=0)
    spread = found.composite.std((1, 2, 3)) / plain.composite.std((1, 2, 3))
    assert spread.min() < 0.9
    assert spread.max() > 1.1


def test_a_hole_shows_the_mean_colour_in_both_pictures_and_no_object() -> None:
    pixels = random_pixels(30)
    pixels.mask.fill_(255)
    found = finish("none,cutout=0.5,cutout_holes=2,cutout_size=0.5", pixels)
    plain = finish("none", pixels)
    hidden = found.mask == 0
    assert 8 < hidden.flatten(1).any(1).sum() < 22
    assert torch.equal(found.depth, plain.depth)
    for images, before in ((found.composite, plain.composite),
                           (found.background, plain.background)):  # fmt: skip
        assert images is not None
        assert before is not None
        assert (images.where(hidden, 0) == 0).all()
        assert torch.equal(images.where(~hidden, 0), before.where(~hidden, 0))


def test_noise_is_as_strong_as_asked_in_levels_of_every_channel() -> None:
    size, num = 128, 200
    grey = torch.full((num, size, size, 3), 128, dtype=torch.uint8)
    flat = torch.zeros(num, size, size, dtype=torch.uint8)
    pixels = Pixels(background=None, composite=grey, mask=flat, depth=flat)
    found = finish("none,noise=0.1,noise_chance=0.5", pixels).composite
    sigmas = found.std((2, 3)) * torch.tensor(NORMALISATION.std)
    noisy = sigmas[:, 0] > 1e-4
    assert 80 < noisy.sum() < 120
    torch.testing.assert_close(sigmas[:, 0], sigmas[:, 2], rtol=0.05, atol=1e-5)
    assert sigmas.max() == pytest.approx(0.1, rel=0.05)
    assert sigmas[noisy].mean() == pytest.approx(0.05, rel=0.15)


def test_a_set_without_backgrounds_is_augmented_alike() -> None:
    pixels = random_pixels(12)
    alone = Pixels(background=None, composite=pixels.composite, mask=pixels.mask,
                   depth=pixels.depth)  # fmt: skip
    found, expected = finish(EVERYTHING, alone), finish(EVERYTHING, pixels)
    assert found.background is None
    for name in NAMES[1:]:
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_another_seed_and_another_epoch_draw_anew() -> None:
    pixels, numbers = random_pixels(8), np.arange(8)
    results = [
        Finisher(NORMALISATION, read_augment("strong"), seed=seed, device=CPU)
        .planes(pixels, numbers, np.full(8, epoch))
        .composite
        for seed, epoch in ((0, 0), (1, 0), (0, 1))
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(results[one], results[other])


def test_validation_is_never_augmented() -> None:
    pixels = random_pixels(8)
    found = finisher(EVERYTHING).planes(pixels, np.arange(8))
    assert_same(found, finish("none", pixels))


@pytest.mark.gpu
def test_a_gpu_makes_the_same_of_it_without_being_asked_anything() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    device = torch.device("cuda")
    for text in (EVERYTHING, f"{EVERYTHING},independent=true,fill=zero"):
        expected = finish(text, random_pixels(40))
        pixels = random_pixels(40, device=device)
        finish(text, pixels)  # what is kept on the device is made by the first
        torch.cuda.set_sync_debug_mode("error")
        try:
            found = finish(text, pixels)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for name in ("background", "composite", "depth"):
            torch.testing.assert_close(
                getattr(found, name).cpu(), getattr(expected, name), atol=2e-3, rtol=0
            )
        assert (found.mask.cpu() != expected.mask).float().mean() < 1e-4


def batches(
    path: Path, text: str, *, start: int = 0, num_steps: int = 14, rank: int = 0, ranks: int = 1
) -> list[dict[str, Tensor]]:
    config = LoaderConfig(
        decoder="turbojpeg", augment=read_augment(text), threads=2, seed=5, tune="off"
    )
    found = []
    with (
        Loader(path, config, CPU, rank=rank, world_size=ranks) as loader,
        loader.train(size=64, batch_size=24, start=start, num_steps=num_steps) as made,
    ):
        for batch in made:
            assert batch.background is not None
            found.append({name: getattr(batch, name).clone() for name in (*NAMES, "number")})
    return found


@pytest.mark.parametrize("text", ["flip", "strong"])
def test_a_resumed_stream_is_augmented_as_the_undisturbed_one(small_set: Path, text: str) -> None:
    """Across an epoch border: 240 samples are 10 batches."""
    whole = batches(small_set, text)
    resumed = batches(small_set, text, start=9 * 24, num_steps=5)
    for one, other in zip(whole[9:], resumed, strict=True):
        for name, images in one.items():
            assert torch.equal(images, other[name]), name
    again = whole[0]["number"].tolist()
    places = [(b, i) for b in (10, 11, 12, 13) for i, n in enumerate(whole[b]["number"].tolist())
              if n in again]  # fmt: skip
    assert places  # the second epoch draws anew
    assert any(
        not torch.equal(whole[b]["depth"][i],
                        whole[0]["depth"][again.index(int(whole[b]["number"][i]))])
        for b, i in places
    )  # fmt: skip


def test_two_ranks_share_the_batches_of_one(small_set: Path) -> None:
    whole = batches(small_set, "strong", num_steps=3)
    halves = [batches(small_set, "strong", num_steps=3, rank=r, ranks=2) for r in (0, 1)]
    for one, *parts in zip(whole, *halves, strict=True):
        for name, images in one.items():
            assert torch.equal(images, torch.cat([part[name] for part in parts])), name


def test_the_checkpoint_keeps_every_value_of_a_preset(small_set: Path) -> None:
    config = read_augment("004,noise=0.02")
    with Loader(small_set, LoaderConfig(decoder="turbojpeg", augment=config), CPU) as loader:
        recorded = loader.record["augment"]
    assert recorded == asdict(config)
    assert AugmentConfig(**recorded) == config
