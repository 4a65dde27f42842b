import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shards.imagery import Header, ImageError, check, check_size, decode, read_header


def scene(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 3, y * 4, (x + y) * 2], axis=-1).astype(np.uint8)


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene()).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded("JPEG"), ("jpg", 48, 64, 3)),
        (encoded("JPEG", "L"), ("jpg", 48, 64, 1)),
        (encoded("JPEG", progressive=True), ("jpg", 48, 64, 3)),
        (encoded("PNG"), ("png", 48, 64, 3)),
        (encoded("PNG", "L"), ("png", 48, 64, 1)),
        (encoded("PNG", "RGBA"), ("png", 48, 64, 3)),
    ],
)
def test_the_header_tells_kind_size_and_channels(data: bytes, expected: tuple[object, ...]) -> None:
    assert read_header(data) == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_pillows(kind: str, mode: str) -> None:
    data = encoded(kind, mode)
    channels = 3 if mode == "RGB" else 1
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image).reshape(48, 64, channels)
    np.testing.assert_array_equal(decode(data, read_header(data), channels), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_cut_off_is_refused(kind: str) -> None:
    data = encoded(kind)
    header = read_header(data)
    for length in (len(data) // 2, len(data) - 20):
        with pytest.raises(ImageError):
            decode(data[:length], header, 3)


def test_what_pillow_lets_pass_is_refused() -> None:
    """Noise after the header decodes in Pillow without a word; libjpeg's warning is our error."""
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    data = bytearray(simplejpeg.encode_jpeg(image, quality=75))
    middle = len(data) // 2
    data[middle : middle + 2] = b"\xff\xd5"
    with Image.open(io.BytesIO(bytes(data))) as lenient:
        lenient.load()
    with pytest.raises(ImageError, match="decode cleanly"):
        decode(bytes(data), read_header(bytes(data)), 3)


@pytest.mark.parametrize("data", [b"", b"GIF89a...", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_other_files_are_no_images(data: bytes) -> None:
    with pytest.raises(ImageError):
        read_header(data)


@pytest.mark.parametrize(
    ("side", "found"),
    [(60_000, "is 60000 x 60000 px, and"), (4_000, "is 4000 x 4000 px, the set is 64 x 48")],
)
def test_a_huge_size_is_refused_before_decoding(side: int, found: str) -> None:
    png = bytearray(encoded("PNG"))
    png[16:24] = struct.pack(">2L", side, side)
    with pytest.raises(ImageError, match=found):
        check_size(read_header(bytes(png)), (48, 64))


@given(
    st.booleans(),
    st.sampled_from([(48, 64), (17, 33)]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    st.floats(0.3, 1),
)
def test_checking_refuses_what_decoding_refuses(
    progressive: bool, size: tuple[int, int], changes: list[tuple[float, int]], kept: float
) -> None:
    """Bytes changed anywhere, the end cut off: reading the codes is enough to see it."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=60, progressive=progressive)
    data = bytearray(buffer.getvalue())
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    changed = bytes(data[: int(kept * len(data))])
    try:
        header = read_header(changed)
        check_size(header, size)
    except ImageError:
        return
    for channels in (1, 3):
        assert refuses(check, changed, header, channels) == refuses(
            decode, changed, header, channels
        )


def refuses(look: Callable[..., object], data: bytes, header: Header, channels: int) -> bool:
    try:
        look(data, header, channels)
    except ImageError:
        return True
    return False
