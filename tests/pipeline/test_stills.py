"""Single images against Pillow, and damage that Pillow lets pass."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline import stills
from pipeline.stills import Colour, DecodeError, Pixels, decode


def _encode(pixels: Pixels, form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, quality=75)
    return file.getvalue()


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    gradient = np.arange(48 * 40 * 3).reshape(48, 40, 3) % 251
    return gradient.astype(np.uint8)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize(("colour", "mode"), [("RGB", "RGB"), ("GRAY", "L")])
@pytest.mark.parametrize("in_place", [False, True])
def test_jpeg_and_png_decode_to_pillows_pixels(
    pixels: Pixels,
    form: str,
    colour: Colour,
    mode: str,
    in_place: bool,
) -> None:
    content = _encode(pixels, form)
    channels = 3 if colour == "RGB" else 1
    into = np.zeros((48, 40, channels), np.uint8) if in_place else None
    found = decode(content, colour, into=into)
    if form == "JPEG" and colour == "GRAY":  # libjpeg takes the luma as stored
        image = Image.open(io.BytesIO(content))
        image.draft("L", image.size)
        expected = np.asarray(image)
    else:
        expected = np.asarray(Image.open(io.BytesIO(content)).convert(mode))
    np.testing.assert_array_equal(found, expected.reshape(48, 40, channels))
    if into is not None:
        np.testing.assert_array_equal(into, found)


@pytest.mark.parametrize("shape", [(20, 20, 3), (100, 100, 3)])
def test_an_image_of_another_size_than_its_place_comes_back_by_itself(
    pixels: Pixels,
    shape: tuple[int, int, int],
) -> None:
    content = _encode(pixels, "JPEG")
    found = decode(content, "RGB", into=np.zeros(shape, np.uint8))
    np.testing.assert_array_equal(found, np.asarray(Image.open(io.BytesIO(content))))


def test_a_scan_damaged_in_the_middle_is_an_error_where_pillow_shows_noise(
    pixels: Pixels,
) -> None:
    content = bytearray(_encode(pixels, "JPEG"))
    content[-len(content) // 4 : -2] = bytes(len(content) // 4 - 2)
    Image.open(io.BytesIO(content)).load()  # Pillow is content
    with pytest.raises(DecodeError, match="cannot be decoded"):
        decode(bytes(content), "RGB")


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"\xff\xd8\xff", b"no image at all"])
def test_what_is_no_image_is_an_error(content: bytes) -> None:
    with pytest.raises(DecodeError, match="cannot be decoded"):
        decode(content, "GRAY")


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_an_image_over_the_limit_is_refused_before_it_is_decoded(
    pixels: Pixels,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stills, "MAX_PIXELS", 48 * 40 - 1)
    with pytest.raises(DecodeError, match="40 x 48 pixels"):
        decode(_encode(pixels, form), "RGB")
