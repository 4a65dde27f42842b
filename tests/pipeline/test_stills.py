"""Single images against Pillow, and damage that Pillow lets pass."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline import stills
from pipeline.stills import Colour, DecodeError, Pixels, decode


def _encode(pixels: Pixels, form: str, mode: str = "", **options: object) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, form, **{"quality": 75, **options})
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


@pytest.mark.parametrize(
    ("form", "stored", "options"),
    [
        ("JPEG", "L", {}),
        ("JPEG", "L", {"progressive": True}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"subsampling": "4:4:4"}),
        ("JPEG", "RGB", {"subsampling": "4:2:2"}),
        ("JPEG", "RGB", {"optimize": True, "restart_marker_rows": 1}),
        ("PNG", "L", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("PNG", "LA", {}),
        ("PNG", "RGBA", {}),
    ],
)
@pytest.mark.parametrize("in_place", [False, True])
def test_every_kind_of_member_decodes_to_pillows_pixels(
    pixels: Pixels, form: str, stored: str, options: dict[str, object], in_place: bool
) -> None:
    content = _encode(pixels, form, stored, **options)
    into = np.zeros((48, 40, 3), np.uint8) if in_place else None
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(decode(content, "RGB", into=into), expected)
    if into is not None:
        np.testing.assert_array_equal(into, expected)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_decoded_at_half_its_size_is_pillows_draft(
    pixels: Pixels, progressive: bool
) -> None:
    content = _encode(pixels[:40], "JPEG", progressive=progressive)
    image = Image.open(io.BytesIO(content))
    image.draft("RGB", (20, 20))
    assert image.size == (20, 20)
    np.testing.assert_array_equal(decode(content, "RGB", at_least=20), np.asarray(image))


@pytest.mark.parametrize("mode", ["I;16", "RGB"])
def test_16_bits_a_channel_are_refused_with_what_to_do(pixels: Pixels, mode: str) -> None:
    """Pillow would clip grey at 255: nearly all of it would be white."""
    content = bytearray(_encode(pixels[..., 0].astype(np.uint16) * 257, "PNG"))
    if mode == "RGB":
        content[25] = 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
    with pytest.raises(DecodeError, match="16 bits a channel; save it with 8"):
        decode(bytes(content), "RGB")


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
