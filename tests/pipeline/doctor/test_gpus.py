"""What NVIDIA's libraries say, by libraries of our own in their place."""

# ruff: noqa: D102, N802 -- the functions are called as NVIDIA calls them

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.doctor.gpus import Gpu, has_video, read_driver, read_jpeg_engines


class FakeNvml:
    """Two GPUs, the second of which may not be asked."""

    def __init__(self, *, init: int = 0, count: int = 0) -> None:
        self.init, self.count = init, count
        self.is_open = False

    def nvmlInit_v2(self) -> int:
        self.is_open = not self.init
        return self.init

    def nvmlShutdown(self) -> int:
        self.is_open = False
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, _: int) -> int:
        text.value = b"999.1"
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = 2
        return self.count

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:
        handle._obj.value = 7
        return 4 if index else 0

    def nvmlDeviceGetName(self, _: Any, text: Any, size: int) -> int:
        assert size == ctypes.sizeof(text)
        text.value = b"Imaginary 9"
        return 0

    def nvmlDeviceGetMemoryInfo(self, _: Any, memory: Any) -> int:
        memory._obj.total, memory._obj.free = 1000, 400
        return 0


class FakeNvjpeg:
    """Seven engines of one core each, unless it fails."""

    def __init__(self, *, create: int = 0, tell: int = 0) -> None:
        self.create, self.tell = create, tell
        self.num_open = 0

    def nvjpegCreateEx(self, *arguments: Any) -> int:
        assert arguments[0] == 3, "the hardware back end"
        self.num_open += not self.create
        return self.create

    def nvjpegDestroy(self, _: Any) -> int:
        self.num_open -= 1
        return 0

    def nvjpegGetHardwareDecoderInfo(self, _: Any, engines: Any, cores: Any) -> int:
        engines._obj.value, cores._obj.value = 7, 1
        return self.tell


def _absent(name: str) -> Any:
    raise OSError(name)


def _always(library: Any) -> Callable[[str], Any]:
    return lambda _: library


def test_the_driver_names_its_gpus_and_one_that_may_not_be_asked_hides_no_other() -> None:
    nvml = FakeNvml()
    driver = read_driver(_always(nvml))
    assert driver.version == "999.1"
    assert driver.gpus == (
        Gpu(name="Imaginary 9", memory=1000, free=400),
        Gpu(name="GPU 1 (not permitted)", memory=0, free=0),
    )
    assert driver.reason == ""
    assert not nvml.is_open


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (_absent, "no NVIDIA driver (libnvidia-ml.so.1 is not here)"),
        (_always(FakeNvml(init=9)), "does not answer (nvmlInit: 9)"),
        (_always(FakeNvml(count=3)), "does not list its GPUs (status 3)"),
    ],
)
def test_without_a_driver_that_answers_there_are_no_gpus_and_a_reason(
    load: Callable[[str], Any], reason: str
) -> None:
    driver = read_driver(load)
    assert driver.gpus == ()
    assert driver.version is None
    assert reason in driver.reason


@pytest.mark.parametrize(
    ("load", "engines", "reason"),
    [
        (_always(FakeNvjpeg()), 7, ""),
        (_always(FakeNvjpeg(create=9)), 0, "nvJPEG finds none"),
        (_always(FakeNvjpeg(create=7)), 0, "nvJPEG finds none"),
        (_always(FakeNvjpeg(create=6)), None, "nvJPEG does not start (status 6)"),
        (_always(FakeNvjpeg(tell=8)), None, "nvJPEG does not tell (status 8)"),
        (_always(object()), None, "this nvJPEG is too old to be asked"),
        (_absent, None, "no nvJPEG library beside DALI or torch"),
    ],
)
def test_jpeg_engines_are_counted_none_or_unknown_with_the_reason(
    load: Callable[[str], Any], engines: int | None, reason: str
) -> None:
    found = read_jpeg_engines(load)
    assert (found.engines, found.reason) == (engines, reason)


def test_nvjpeg_is_always_closed_again() -> None:
    for tell in (0, 8):
        nvjpeg = FakeNvjpeg(tell=tell)
        read_jpeg_engines(_always(nvjpeg))
        assert nvjpeg.num_open == 0


def test_the_video_libraries_are_there_or_not() -> None:
    assert has_video(_always(object()))
    assert not has_video(_absent)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_real_libraries_without_a_gpu_say_so_and_nothing_fails() -> None:
    assert read_driver().gpus == ()
    assert not read_jpeg_engines().engines


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_the_driver_and_torch_name_the_same_one() -> None:
    assert torch.cuda.get_device_name(0) in {gpu.name for gpu in read_driver().gpus}
    assert read_jpeg_engines().engines is not None
