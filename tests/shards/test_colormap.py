import numpy as np
import pytest
from PIL import Image

from shards.colormap import Frame, cut_out, find_frame, invert
from shards.imagery import ImageError, decode, read_header
from shards.repair import DepthStorage, repaired

# first, middle and last entry as published (matplotlib 3.10, `colormaps[name](n, bytes=True)`)
ENDS = {"plasma": ((13, 8, 135), (204, 71, 120), (240, 249, 33)),
        "magma": ((0, 0, 4), (183, 55, 121), (252, 253, 191))}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_the_ends_and_the_middle_of_a_map_are_found(name: str) -> None:
    colours = np.array([ENDS[name]], np.uint8)
    luma = np.asarray(Image.fromarray(colours).convert("L"))
    assert np.abs(invert(luma, name)[0].astype(int) - (0, 128, 255)).max() <= 2


def ramp() -> np.ndarray:
    y, x = np.mgrid[0:224, 0:224]
    depth = 200 - 150 * y / 224 + 10 * np.sin(x / 9)
    depth[90:150, 60:130] = 20
    return np.clip(depth, 0, 255).astype(np.uint8)


def plasma(grey: np.ndarray) -> np.ndarray:
    """Coloured through the product's own table of 256 colours, found again by its luma."""
    from shards.colormap import PLASMA

    return np.frombuffer(bytes.fromhex(PLASMA), np.uint8).reshape(256, 3)[grey]


def figure(grey: np.ndarray, frame: Frame) -> bytes:
    import io

    canvas = Image.new("RGB", (224, 224), "white")
    size = (frame.right - frame.left, frame.bottom - frame.top)
    canvas.paste(Image.fromarray(plasma(grey)).resize(size, Image.Resampling.BILINEAR), frame[:2])
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "frame", [Frame(28, 27, 202, 200), Frame(26, 21, 204, 203), Frame(40, 10, 200, 180)]
)
def test_a_framed_figure_is_turned_back_into_its_map(frame: Frame) -> None:
    data = [figure(np.roll(ramp(), shift, axis=1), frame) for shift in (0, 31, 77)]
    found = find_frame([decode(content, read_header(content), 3) for content in data])
    assert found == frame
    storage = DepthStorage(encoding="plasma", frame=found)
    header = read_header(data[0])
    grey = repaired("depth", data[0], header, storage, (224, 224))[..., 0].astype(float)
    truth = ramp().astype(float)
    assert np.corrcoef(grey.ravel(), truth.ravel())[0, 1] > 0.995
    assert np.abs(grey - truth).mean() < 4
    edges = np.abs(np.diff(grey, axis=0))[:, 90].argsort()[-2:]
    assert set(edges) <= {88, 89, 90, 148, 149, 150}, "the object's edges, within a pixel"


def test_a_map_without_a_frame_has_none() -> None:
    assert find_frame([plasma(ramp())]) is None


def test_cutting_out_resamples_to_the_composites_pixels() -> None:
    assert cut_out(ramp(), Frame(28, 27, 202, 200), (200, 180)).shape == (200, 180)


def encoded(image: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=25)
    return buffer.getvalue()


def test_a_mask_of_three_equal_channels_becomes_grey() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 10:50] = 255
    data = encoded(np.stack([mask] * 3, axis=-1))
    storage = DepthStorage(encoding="grey", frame=None)
    grey = repaired("mask", data, read_header(data), storage, (64, 64))
    assert grey.shape == (64, 64, 1)
    assert ((grey[..., 0] >= 128) == (mask >= 128)).all()


def test_a_colour_picture_is_no_depth_map() -> None:
    data = encoded(plasma(ramp()))
    storage = DepthStorage(encoding="grey", frame=None)
    with pytest.raises(ImageError, match="colour picture where a grey depth belongs"):
        repaired("depth", data, read_header(data), storage, (224, 224))
