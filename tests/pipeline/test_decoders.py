"""Both decoders against Pillow and against each other, on the processor and on the GPU.

Limits in levels of 255, mean and 99.9th percentile: 0 at native size; 1 and 8 after resizing a
full decode; 3 and 16 for decoding at a reduced scale.
"""

import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.dali import DaliDecoder
from pipeline.decoder import Decoder, Request
from pipeline.error import LoaderError
from pipeline.opening import open_set
from pipeline.source import SampleSource
from pipeline.turbojpeg import TurboJpegDecoder

Pixels = npt.NDArray[np.uint8]
NATIVE, RESIZED, SCALED = (0, 0), (1, 8), (3, 16)


def _decoder(name: str) -> Decoder:
    if name == "turbojpeg":
        return TurboJpegDecoder(threads=2, prefetch_batches=2)
    device = torch.device("cuda" if name == "dali-gpu" else "cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return DaliDecoder(device=device, threads=2, prefetch_batches=2, hw_decoder_load=0.65)


DALI_GPU = pytest.param("dali-gpu", marks=pytest.mark.gpu)


@pytest.fixture(params=["turbojpeg", "dali", DALI_GPU])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return _decoder(request.param)


@pytest.fixture
def opened(small_set: Path) -> Iterator[SampleSource]:
    with SampleSource([open_set(small_set)], "train") as source:
        yield source


def _requests(num: int, batch_size: int) -> list[Request]:
    return [
        Request(numbers=np.arange(at, at + batch_size) % num, num_counted=min(batch_size, num - at))
        for at in range(0, num, batch_size)
    ]


def _all(decoder: Decoder, source: SampleSource, *, size: int, exact: bool) -> list[Pixels]:
    """Composites, masks and depth maps of the first 40 samples."""
    parts: list[list[Pixels]] = [[], [], []]
    with decoder.stream(source, _requests(40, 20), size=size, exact=exact) as batches:
        for batch in batches:
            for part, tensor in zip(parts, (batch.composite, batch.mask, batch.depth), strict=True):
                part.append(tensor.cpu().numpy().copy())
    return [np.concatenate(part) for part in parts]


def _assert_close(found: Pixels, expected: Pixels, limits: tuple[float, float]) -> None:
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    assert difference.mean() <= limits[0]
    assert np.quantile(difference, 0.999) <= limits[1]


@pytest.mark.parametrize("size", [224, 96, 64])
def test_turbojpeg_gives_pillows_pixels_bit_for_bit(
    opened: SampleSource, reference: Callable[[int, int], Pixels], size: int
) -> None:
    found = _all(_decoder("turbojpeg"), opened, size=size, exact=True)
    for part in range(3):
        np.testing.assert_array_equal(found[part], reference(part, size)[:40])


def test_enlarging_differs_from_pillow_by_rounding_only(
    opened: SampleSource, reference: Callable[[int, int], Pixels]
) -> None:
    found = _all(_decoder("turbojpeg"), opened, size=256, exact=False)
    for part in range(3):
        difference = np.abs(found[part].astype(int) - reference(part, 256)[:40])
        assert difference.max() <= 2


@pytest.mark.parametrize("name", ["dali", DALI_GPU])
@pytest.mark.parametrize(("size", "limits"), [(224, NATIVE), (96, RESIZED), (64, RESIZED)])
def test_dali_agrees_with_pillow_and_turbojpeg(
    opened: SampleSource,
    reference: Callable[[int, int], Pixels],
    name: str,
    size: int,
    limits: tuple[float, float],
) -> None:
    on_gpu = name == "dali-gpu"  # nvJPEG has an inverse DCT of its own
    found = _all(_decoder(name), opened, size=size, exact=True)
    ours = _all(_decoder("turbojpeg"), opened, size=size, exact=True)
    for part in range(3):
        _assert_close(found[part], reference(part, size)[:40], RESIZED if on_gpu else limits)
        _assert_close(found[part], ours[part], RESIZED if on_gpu else limits)


@pytest.mark.parametrize("size", [96, 64])
def test_scaled_decoding_stays_near_the_exact_pixels_and_is_not_the_same(
    opened: SampleSource, size: int
) -> None:
    scaled = _all(_decoder("turbojpeg"), opened, size=size, exact=False)
    exact = _all(_decoder("turbojpeg"), opened, size=size, exact=True)
    for part in range(3):
        _assert_close(scaled[part], exact[part], SCALED)
    assert (scaled[0] != exact[0]).any()


def test_padding_keeps_the_shape_has_weight_0_and_shows_real_pixels(
    decoder: Decoder, opened: SampleSource
) -> None:
    request = Request(numbers=np.arange(6), num_counted=4)
    with decoder.stream(opened, [request], size=64, exact=True) as batches:
        [batch] = batches
        assert batch.weights.tolist() == [1, 1, 1, 1, 0, 0]
        assert batch.composite.shape == (6, 64, 64, 3)
        assert batch.composite[4:].float().std() > 1


def test_nothing_but_padding_has_weight_0(decoder: Decoder, opened: SampleSource) -> None:
    request = Request(numbers=np.arange(6), num_counted=0)
    with decoder.stream(opened, [request], size=64, exact=True) as batches:
        [batch] = batches
        assert batch.weights.tolist() == [0] * 6
        assert batch.depth.shape == (6, 64, 64)


@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize("part", [0, 2])
def test_a_bad_sample_shows_a_good_ones_pixels_at_weight_0_and_is_named(
    decoder: Decoder, spoil: Callable[..., Path], hide: bool, part: int
) -> None:
    """`hide`: bytes that fit their CRC and decode to nothing; DALI must lose only that sample."""
    damaged = spoil([9, 21], part=part, hide=hide)
    with SampleSource([open_set(damaged)], "train") as source:
        told, parts = [], []
        with decoder.stream(source, _requests(32, 8), size=64, exact=True) as batches:
            for batch in batches:
                told.append((batch.numbers.tolist(), batch.weights.tolist(), batch.bad))
                parts.append(batch.composite.clone())
        assert [number for numbers, _, _ in told for number in numbers] == list(range(32))
        weights = [weight for _, weights, _ in told for weight in weights]
        assert [i for i, weight in enumerate(weights) if weight == 0] == [9, 21]
        assert [[bad.number for bad in bads] for _, _, bads in told] == [[], [9], [21], []]
        [bad] = told[1][2]
        assert bad.member.startswith(bad.key + (".fgbg." if part == 0 else ".depth."))
        assert torch.equal(parts[1][1], parts[1][0])
        assert torch.equal(parts[2][5], parts[2][0])


@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize("size", [64, 224])
def test_a_batch_without_a_good_sample_is_zeros_at_weight_0_and_the_stream_goes_on(
    decoder: Decoder, spoil: Callable[..., Path], hide: bool, size: int
) -> None:
    damaged = spoil([2, 3], hide=hide)
    with SampleSource([open_set(damaged)], "train") as source:
        with decoder.stream(source, _requests(6, 2), size=size, exact=True) as batches:
            told = [
                (batch.weights.tolist(), [bad.number for bad in batch.bad],
                 [int(part.max()) for part in (batch.composite, batch.mask, batch.depth)])
                for batch in batches
            ]  # fmt: skip
        assert [weights for weights, _, _ in told] == [[1, 1], [0, 0], [1, 1]]
        assert [bad for _, bad, _ in told] == [[], [2, 3], []]
        assert told[1][2] == [0, 0, 0]
        assert min(told[0][2] + told[2][2]) > 0


def test_single_images_of_any_size_decode_exactly(
    decoder: Decoder, opened: SampleSource, reference: Callable[[int, int], Pixels]
) -> None:
    contents = [bytes(opened.read(i).composite) for i in range(5)]  # type: ignore[union-attr]
    found = decoder.decode_images(contents, size=64).cpu().numpy()
    _assert_close(found, reference(0, 64)[:5], RESIZED)
    with pytest.raises(LoaderError, match=r"second\.png: it cannot be decoded"):
        decoder.decode_images([contents[0], b"junk"], size=64, names=["first.jpg", "second.png"])


def _threads_and_files() -> tuple[int, int, int]:
    gc.collect()
    return (
        threading.active_count(),
        len(os.listdir("/proc/self/task")),  # noqa: PTH208 -- entries vanish while listed
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
    )


@pytest.mark.parametrize("consumed", [0, 1, 5, 12])
def test_leaving_a_stream_at_any_moment_leaves_no_thread_and_no_file(
    decoder: Decoder, opened: SampleSource, consumed: int
) -> None:
    with decoder.stream(opened, _requests(96, 8), size=64, exact=True) as batches:
        next(batches)  # what libraries start once and keep (OpenMP, DALI's logger) is there now
    before = _threads_and_files()
    with decoder.stream(opened, _requests(96, 8), size=64, exact=True) as batches:
        for _ in range(consumed):
            next(batches)
    assert _threads_and_files() == before
    assert next(batches, None) is None


def test_dali_batches_stay_whole_while_later_ones_are_made(opened: SampleSource) -> None:
    """The tensors are views of DALI's memory: it must not be written while they live."""
    with _decoder("dali").stream(opened, _requests(96, 8), size=64, exact=True) as batches:
        kept = [(batch.composite, batch.composite.clone()) for batch in batches]
    assert len(kept) == 12
    assert all(torch.equal(view, copy) for view, copy in kept)
