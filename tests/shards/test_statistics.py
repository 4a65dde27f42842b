import base64
import io

import numpy as np
import pytest
from PIL import Image

from shards.statistics import MeanImage, Moments, encode_png


@pytest.mark.parametrize("shape", [(224, 224, 3), (600, 40, 3), (5, 7, 1)])
def test_moments_are_exact(shape: tuple[int, int, int]) -> None:
    """Against int64 arithmetic, all-255 images included, where float32 would first lose a bit."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, shape, dtype=np.uint8), np.full(shape, 255, np.uint8)]
    moments = Moments(shape[2])
    for image in images:
        moments.add(image)
    pixels = np.concatenate([image.reshape(-1, shape[2]) for image in images]).astype(np.int64)
    assert moments.sums == pixels.sum(axis=0).tolist()
    assert moments.squares == (pixels**2).sum(axis=0).tolist()
    result = moments.result()
    np.testing.assert_allclose(result.mean, pixels.mean(axis=0) / 255, atol=1e-8)
    np.testing.assert_allclose(result.std, pixels.std(axis=0) / 255, atol=1e-8)


def test_merging_gives_what_one_would_have_counted() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    whole, halves = Moments(3), [Moments(3), Moments(3)]
    for number, image in enumerate(images):
        whole.add(image)
        halves[number % 2].add(image)
    halves[0].merge(Moments.from_json(halves[1].to_json()))
    assert halves[0].to_json() == whole.to_json()


def test_the_mean_image_is_the_mean() -> None:
    images = np.random.default_rng(2).integers(0, 256, (10, 64, 64, 1), dtype=np.uint8)
    mean = MeanImage(64, 64)
    for image in images:
        mean.add(image)
    assert mean.total.tolist() == images[..., 0].sum(axis=0, dtype=int).tolist()
    with Image.open(io.BytesIO(base64.b64decode(mean.png_base64()))) as decoded:
        found = np.asarray(decoded, dtype=float)
    np.testing.assert_allclose(found, images[..., 0].mean(axis=0), atol=0.5)


def test_more_images_than_16_bits_can_sum_are_summed() -> None:
    """And a total that was looked at goes on growing; another one's is added to it."""
    mean, white = MeanImage(2, 3), np.full((2, 3, 1), 255, np.uint8)
    for _ in range(600):
        mean.add(white)
    assert mean.total.tolist() == [[600 * 255] * 3] * 2
    mean.add(white)
    mean.merge(4, np.ones((2, 3), np.int64))
    assert mean.total.tolist() == [[601 * 255 + 1] * 3] * 2
    assert mean.images == 605


def test_a_png_has_the_bytes_it_always_had() -> None:
    """Golden: another deflate would give other sets on other machines."""
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert encode_png(image).hex() == GOLDEN_PNG


GOLDEN_PNG = (
    "89504e470d0a1a0a0000000d49484452000000100000001008000000003a98a0bd0000001749444154785e6364"
    "60440302687c96e12cc0f801cdb7002a7702f887609cd40000000049454e44ae426082"
)
