import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards.imagery import ImageError, read_header
from shards.jpeg_frames import are_plain, num_scans

SIZE = (24, 40)
PIXELS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def encoded(mode: str, size: tuple[int, int] = SIZE, kind: str = "JPEG", **how: object) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(PIXELS).convert(mode).resize(size[::-1])
    image.save(buffer, kind, **how)
    return buffer.getvalue()


IMAGES = {
    "colour": (encoded("RGB"), 3),
    "grey": (encoded("L"), 1),
    "progressive": (encoded("RGB", progressive=True), 3),
    "4:4:4": (encoded("RGB", subsampling=0), 3),
    "4:2:2": (encoded("RGB", subsampling=1), 3),
    "with a comment": (encoded("L", comment=b"\xff\xc0" * 500), 1),
    "with a profile": (encoded("RGB", icc_profile=bytes(70_000), exif=b"Exif\0\0" + bytes(99)), 3),
}
OTHERS = {
    "colour for grey": (IMAGES["colour"][0], 1),
    "grey for colour": (IMAGES["grey"][0], 3),
    "turned": (encoded("RGB", SIZE[::-1]), 3),
    "CMYK": (encoded("CMYK"), 3),
    "PNG": (encoded("RGB", kind="PNG"), 3),
    "empty": (b"", 3),
    "a start alone": (b"\xff\xd8" * 30, 3),
}


def plain(*images: tuple[bytes, int]) -> list[bool]:
    begins, content = [], b"\xff\xd8\xff"
    for data, _ in images:
        begins.append(len(content))
        content += data
    ends = [begin + len(data) for begin, (data, _) in zip(begins, images, strict=True)]
    channels = np.array([channels for _, channels in images])
    buffer = np.frombuffer(content, np.uint8)
    return are_plain(buffer, np.array(begins), np.array(ends), SIZE, channels).tolist()


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_of_the_size_is_recognised(name: str) -> None:
    assert plain(IMAGES[name]) == [True]


@pytest.mark.parametrize("name", OTHERS)
def test_anything_else_is_left_to_a_closer_look(name: str) -> None:
    assert plain(OTHERS[name]) == [False]


def test_images_are_told_apart_in_one_buffer() -> None:
    mixed = [*IMAGES.values(), *OTHERS.values()] * 3
    assert plain(*mixed) == [each in IMAGES.values() for each in mixed]


@settings(max_examples=400)
@given(
    name=st.sampled_from(sorted(IMAGES)),
    at=st.integers(0, 700),
    byte=st.integers(0, 255),
    cut=st.none() | st.integers(0, 800),
)
def test_what_is_recognised_is_what_libjpeg_says(
    name: str, at: int, byte: int, cut: int | None
) -> None:
    """Never another size or other colours than the decoder will find, whatever is changed."""
    data = bytearray(IMAGES[name][0])
    data[at % len(data)] = byte
    changed = bytes(data[:cut])
    for channels in (1, 3):
        if plain((changed, channels)) == [True]:
            try:
                header = read_header(changed)
            except ImageError:
                continue  # a table is damaged: `none` copies, strict checking refuses
            assert (header.height, header.width, header.channels) == (*SIZE, channels)


@given(st.lists(st.binary(max_size=12), max_size=8), st.integers(0, 3))
def test_scans_are_counted_as_each_image_by_itself_has_them(texts: list[bytes], lead: int) -> None:
    """Wherever an image lies, and whatever lies before and after it."""
    images = [text.replace(b"\0", b"\xff\xda").replace(b"\1", b"\xff") for text in texts]
    ends = lead + np.cumsum([len(image) for image in images], dtype=np.int64)
    begins = ends - [len(image) for image in images]
    buffer = np.frombuffer(b"\xff" * lead + b"".join(images) + b"\xda", np.uint8)
    expected = [image.count(b"\xff\xda") for image in images]
    assert num_scans(buffer, begins, ends).tolist() == expected
