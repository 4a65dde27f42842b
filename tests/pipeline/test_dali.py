"""The DALI graph where it could differ from the other decoder: kinds of image, sizes, memory."""

import gc
import io
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from nvidia.dali import backend
from nvidia.dali.pipeline import Pipeline
from PIL import Image

from pipeline.dali import DaliDecoder, mixed_options
from pipeline.decoder import Decoder, Request
from pipeline.loader import Loader, LoaderConfig, open_decoder
from pipeline.source import SampleSource
from pipeline.turbojpeg import TurboJpegDecoder
from shards.manifest import read_manifest

Pixels = npt.NDArray[np.uint8]
CPU = torch.device("cpu")
TURBOJPEG = TurboJpegDecoder(threads=2, prefetch_batches=2)
Replace = Callable[[int, Collection[bytes]], Path]


def _decoder(name: str) -> DaliDecoder:
    if name == "dali-gpu" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    device = torch.device("cuda" if name == "dali-gpu" else "cpu")
    return DaliDecoder(device=device, threads=2, prefetch_batches=2, hw_decoder_load=0.65)


@pytest.fixture(params=["dali", pytest.param("dali-gpu", marks=pytest.mark.gpu)])
def dali(request: pytest.FixtureRequest) -> DaliDecoder:
    return _decoder(request.param)


def _picture(side: int = 224) -> Image.Image:
    y, x = np.mgrid[:side, :side]
    channels = ((x * 3) % 256, (y * 2) % 256, ((x + 2 * y) // 3) % 256)
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _side(content: bytes) -> int:
    return Image.open(io.BytesIO(content)).width


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


KINDS = {
    "baseline": _encoded(_picture(), "JPEG", quality=60),
    "baseline 4:4:4": _encoded(_picture(), "JPEG", quality=60, subsampling=0),
    "progressive": _encoded(_picture(), "JPEG", quality=60, progressive=True),
    "grey": _encoded(_picture().convert("L"), "JPEG", quality=60),
    "grey progressive": _encoded(_picture().convert("L"), "JPEG", quality=60, progressive=True),
    "turned by its EXIF": _encoded(_picture(), "JPEG", quality=60, exif=_turned()),
    "PNG": _encoded(_picture().resize((40, 40)), "PNG"),
    "PNG grey": _encoded(_picture(100).convert("L"), "PNG"),
    "PNG of a palette": _encoded(_picture(100).quantize(16), "PNG"),
    "PNG turned by its EXIF": _encoded(_picture().resize((40, 30)), "PNG", exif=_turned()),
}


@pytest.fixture
def with_images(copied_set: Path, reseal: Callable[[Path], None]) -> Replace:
    """`with_images(part, contents)`: the copied set; the first training samples have them there."""

    def put(part: int, contents: Collection[bytes]) -> Path:
        shard = read_manifest(copied_set).split_shards("train")[0].name
        tar, index = copied_set / f"{shard}.tar", copied_set / f"{shard}.npy"
        rows, tape = np.load(index), bytearray(tar.read_bytes())
        for i, content in enumerate(contents):
            begin, room = int(rows["offset"][i, part]), int(rows["size"][i, part])
            assert len(content) <= room, "what takes its place must not be longer"
            tape[begin : begin + len(content)] = content
            rows["size"][i, part], rows["crc"][i, part] = len(content), zlib.crc32(content)
        tar.write_bytes(tape)
        np.save(index, rows)
        reseal(copied_set)
        return copied_set

    return put


@contextmanager
def _source(path: Path) -> Iterator[SampleSource]:
    with Loader(path, LoaderConfig(decoder="turbojpeg"), CPU) as loader:
        yield loader.training


def _decoded(decoder: Decoder, path: Path, size: int) -> list[Pixels]:
    """Composites, masks and depth maps of the first 12 training samples, all of them good."""
    requests = [Request(numbers=np.arange(at, at + 4), num_counted=4) for at in (0, 4, 8)]
    parts: list[list[Pixels]] = [[], [], []]
    with (
        _source(path) as source,
        decoder.stream(source, requests, size=size, exact=True) as batches,
    ):
        for batch in batches:
            assert batch.weights.tolist() == [1] * 4
            for part, tensor in zip(parts, (batch.composite, batch.mask, batch.depth), strict=True):
                part.append(tensor.cpu().numpy().copy())
    return [np.concatenate(part) for part in parts]


def _differing(
    found: Pixels, expected: Pixels, names: Collection[str], *, mean: float, most: float
) -> list[str]:
    """Names of the images that differ by more: in the mean, and in one pixel of a thousand."""
    difference = np.abs(found.astype(int) - expected)
    return [
        f"{name}: mean {of.mean():.2f}, 99.9 % under {np.quantile(of, 0.999):.0f}"
        for name, of in zip(names, difference, strict=False)
        if of.mean() > mean or np.quantile(of, 0.999) > most
    ]


@pytest.mark.parametrize("size", [64, 224])
def test_every_kind_of_composite_is_decoded_as_the_other_decoder_does(
    dali: DaliDecoder, with_images: Replace, size: int
) -> None:
    path = with_images(0, KINDS.values())
    found, expected = _decoded(dali, path, size), _decoded(TURBOJPEG, path, size)
    assert _differing(found[0], expected[0], KINDS, mean=1, most=8) == []
    assert _differing(found[1], expected[1], KINDS, mean=1, most=8) == []


def test_at_native_size_the_processors_pixels_are_the_same_to_the_bit(with_images: Replace) -> None:
    native = {name: content for name, content in KINDS.items() if _side(content) == 224}
    path = with_images(0, native.values())
    found, expected = _decoded(_decoder("dali"), path, 224), _decoded(TURBOJPEG, path, 224)
    assert len(native) == 6
    for part in range(3):
        assert _differing(found[part], expected[part], native, mean=0, most=0) == []


def test_a_depth_map_of_any_kind_is_its_grey_levels(
    dali: DaliDecoder, with_images: Replace
) -> None:
    kinds = {
        "grey": _encoded(_picture(40).convert("L"), "JPEG"),
        "colour": _encoded(_picture(40), "JPEG", quality=60),
        "PNG grey": _encoded(_picture(32).convert("L"), "PNG"),
        "PNG colour": _encoded(_picture(20), "PNG"),
    }
    path = with_images(2, kinds.values())
    found, expected = _decoded(dali, path, 64), _decoded(TURBOJPEG, path, 64)
    assert _differing(found[2], expected[2], kinds, mean=1, most=8) == []


def test_an_image_of_another_size_costs_nobody_at_the_sets_own_size(
    dali: DaliDecoder, with_images: Replace
) -> None:
    """DALI's outputs must be of one size where nothing is resized."""
    odd = _encoded(_picture(100), "JPEG", quality=60)
    found = _decoded(dali, with_images(0, [odd]), 224)
    expected = Image.open(io.BytesIO(odd)).resize((224, 224), Image.Resampling.BILINEAR)
    assert _differing(found[0][:1], np.asarray(expected)[None], ["odd"], mean=1, most=8) == []


def test_what_a_gpu_is_told_is_known_to_the_operator_and_fits_the_images() -> None:
    """The twin of decoding there: names and types are checked by the operator's own schema."""
    options = mixed_options((200, 320), 0.25)
    schema = backend.GetSchema("decoders__Image")
    assert [name for name in options if not schema.HasArgument(name)] == []
    assert [name for name in options if schema.IsDeprecatedArg(name)] == []
    assert options["hw_decoder_load"] == 0.25
    assert (options["preallocate_height_hint"], options["preallocate_width_hint"]) == (200, 320)
    assert 9 * 200 * 320 <= options["device_memory_padding"] < 16 << 20
    assert mixed_options((1, 1), 0)["host_memory_padding"] == 1 << 16


def test_deterministic_decoding_leaves_the_engines_out() -> None:
    """The engines take the first images of a batch: who is decoded by them depends on its place."""
    decoder = open_decoder(LoaderConfig(decoder="dali", deterministic=True), CPU)
    assert isinstance(decoder, DaliDecoder)
    assert decoder.hw_decoder_load == 0


def _pipelines() -> int:
    gc.collect()
    return sum(type(thing) is Pipeline for thing in gc.get_objects())


@pytest.mark.parametrize("consumed", [0, 1, 3])
def test_no_pipeline_outlives_its_stream(dali: DaliDecoder, small_set: Path, consumed: int) -> None:
    before = _pipelines()
    requests = [Request(numbers=np.arange(8), num_counted=8)] * 3
    with (
        _source(small_set) as source,
        dali.stream(source, requests, size=64, exact=True) as batches,
    ):
        for _ in range(consumed):
            next(batches)
    assert _pipelines() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_deterministic_pixels_do_not_depend_on_the_place_in_the_batch(
    small_set: Path,
) -> None:
    decoder = open_decoder(LoaderConfig(decoder="dali", deterministic=True), torch.device("cuda"))
    pixels = []
    for numbers in (np.arange(32), np.arange(32)[::-1].copy()):
        request = Request(numbers=numbers, num_counted=32)
        with (
            _source(small_set) as source,
            decoder.stream(source, [request], size=64, exact=True) as batches,
        ):
            pixels.append(next(batches).composite.clone())
    assert torch.equal(pixels[0], pixels[1].flip(0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_a_closed_stream_gives_its_memory_back(small_set: Path) -> None:
    decoder = _decoder("dali-gpu")
    requests = [Request(numbers=np.arange(64), num_counted=64)] * 3

    def used() -> int:
        with _source(small_set) as source:
            with decoder.stream(source, requests, size=224, exact=True) as batches:
                for _ in batches:
                    pass
            free, total = torch.cuda.mem_get_info()
            return total - free

    first = used()
    assert max(used() for _ in range(5)) <= first + (64 << 20)
