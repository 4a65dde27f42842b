"""What only the threads on the processor do: scales, tasks, sets whose images differ in size."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decoder import Request
from pipeline.opening import open_set
from pipeline.source import SampleSource
from pipeline.turbojpeg import CHUNK, MOST_PER_TASK, TurboJpegDecoder, samples_per_task, scaled_size
from shards.convert import convert
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise

Pixels = npt.NDArray[np.uint8]
Reference = Callable[[int, int], Pixels]


def _decoded(source: SampleSource, numbers: Pixels, *, size: int, exact: bool) -> list[Pixels]:
    """Composites, masks and depth maps."""
    decoder = TurboJpegDecoder(threads=2, prefetch_batches=1)
    request = Request(numbers=numbers, num_counted=len(numbers))
    with decoder.stream(source, [request], size=size, exact=exact) as batches:
        [batch] = batches
    assert not batch.bad
    return [part.numpy() for part in (batch.composite, batch.mask, batch.depth)]


@pytest.mark.parametrize(
    ("image_size", "at_least", "expected"),
    [
        ((224, 224), 64, (112, 112)),  # 3/8 takes longer
        ((224, 224), 112, (112, 112)),
        ((224, 224), 113, (224, 224)),  # 5/8 to 7/8 take longer than all of it
        ((224, 224), 56, (56, 56)),
        ((224, 224), 28, (28, 28)),
        ((200, 320), 90, (100, 160)),
        ((50, 50), 64, (50, 50)),
        ((223, 225), 64, (112, 113)),
    ],
)
def test_the_scale_is_the_smallest_quick_one_that_covers_the_stage(
    image_size: tuple[int, int], at_least: int, expected: tuple[int, int]
) -> None:
    assert scaled_size(image_size, at_least) == expected


@pytest.mark.parametrize("size", [224, 200, 128])
def test_above_half_the_native_size_nothing_is_scaled(small_set: Path, size: int) -> None:
    with SampleSource([open_set(small_set)], "train") as source:
        training, evaluation = (
            _decoded(source, np.arange(20), size=size, exact=exact) for exact in (False, True)
        )
    for part in range(3):
        np.testing.assert_array_equal(training[part], evaluation[part])


def test_a_mask_is_decoded_in_full_where_half_the_size_would_blur_its_edges(
    small_set: Path, reference: Reference
) -> None:
    with SampleSource([open_set(small_set)], "train") as source:
        composite, mask, _ = _decoded(source, np.arange(20), size=96, exact=False)
    np.testing.assert_array_equal(mask, reference(1, 96)[:20])
    assert (composite != reference(0, 96)[:20]).any()


@given(num=st.integers(1, 5_000), threads=st.integers(1, 300))
def test_tasks_are_whole_chunks_and_as_many_as_keep_all_threads_busy(
    num: int, threads: int
) -> None:
    step = samples_per_task(num, threads)
    assert step % CHUNK == 0
    assert CHUNK <= step <= MOST_PER_TASK
    assert step == CHUNK or -(-num // step) >= 2 * threads


@pytest.mark.parametrize("num", [1, 7, 33, 131, 240])
@pytest.mark.parametrize("size", [224, 64])
def test_every_place_of_a_batch_of_any_length_gets_its_own_sample(
    small_set: Path, reference: Reference, num: int, size: int
) -> None:
    numbers = np.random.default_rng(num).permutation(240)[:num]
    with SampleSource([open_set(small_set)], "train") as source:
        found = _decoded(source, numbers, size=size, exact=True)
    for part in range(3):
        np.testing.assert_array_equal(found[part], reference(part, size)[numbers])


@pytest.fixture(scope="module")
def larger_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 training samples at 320 px."""
    folder = tmp_path_factory.mktemp("larger")
    synthesise(folder / "source", SynthConfig(count=40, seed=9, size=320, num_foregrounds=4))
    convert(ConvertConfig(sources=(folder / "source",), out=folder / "set", val=0.25, processes=1))
    return folder / "set"


@pytest.fixture
def both_sizes(small_set: Path, larger_set: Path) -> Iterator[SampleSource]:
    with SampleSource([open_set(small_set), open_set(larger_set)], "train") as source:
        yield source


@pytest.mark.parametrize("size", [224, 96])
def test_images_of_another_size_than_most_decode_exactly_among_the_others(
    both_sizes: SampleSource, larger_set: Path, reference: Reference, size: int
) -> None:
    num = both_sizes.num_samples - 240
    mixed = np.stack([np.arange(num), 240 + np.arange(num)], axis=1).ravel()
    found = _decoded(both_sizes, mixed, size=size, exact=True)
    with SampleSource([open_set(larger_set)], "train") as source:
        alone = _decoded(source, np.arange(num), size=size, exact=True)
    for part in range(3):
        np.testing.assert_array_equal(found[part][::2], reference(part, size)[:num])
        np.testing.assert_array_equal(found[part][1::2], alone[part])


LARGER_AGAIN = """
import os, sys
from pathlib import Path
import numpy as np
from pipeline.decoder import Request
from pipeline.opening import open_set
from pipeline.source import SampleSource
from pipeline.turbojpeg import TurboJpegDecoder

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

with SampleSource([open_set(Path(path)) for path in sys.argv[1:]], "train") as source:
    larger = 240 + np.arange(250) % (source.num_samples - 240)
    held = []
    for _ in range(12):
        decoder = TurboJpegDecoder(threads=2, prefetch_batches=1)
        with decoder.stream(
            source, [Request(numbers=larger, num_counted=250)], size=64, exact=True
        ) as batches:
            [batch] = batches
        assert not batch.bad
        held.append(resident())
print(held[-1] - held[3])
"""


def test_images_larger_than_most_leak_no_memory(small_set: Path, larger_set: Path) -> None:
    """Each JPEG larger than the place it is given costs simplejpeg 4 kB for good."""
    command = [sys.executable, "-c", LARGER_AGAIN, str(small_set), str(larger_set)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 4 << 20, "8 x 250 samples, 24 MB where each leaks"
