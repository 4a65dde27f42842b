"""What NVIDIA's libraries say of the GPUs here: the driver's list, and the JPEG engines.

Both are asked by ctypes, so that a machine without either says so instead of failing.
"""

import ctypes
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NVML = "libnvidia-ml.so.1"
_VIDEO = "libnvcuvid.so.1"
_TEXT_BYTES = 96
_BACKEND_HARDWARE = 3
_NO_ENGINES = (7, 9)
"""nvJPEG: another architecture is needed; not implemented here."""

LoadLibrary = Callable[[str], Any]
"""`ctypes.CDLL`, or a test's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One GPU, as the driver names it."""

    name: str
    memory: int
    """Bytes in all."""
    free: int
    """Bytes that nobody uses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Driver:
    """What the driver says."""

    version: str | None
    """None without a driver."""

    gpus: tuple[Gpu, ...]

    reason: str
    """Why there is no driver or no list; empty if there is one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JpegEngines:
    """The hardware JPEG decoders (NVJPG) of the current GPU."""

    engines: int | None
    """None: unknown."""

    cores: int | None
    """Cores per engine."""

    reason: str
    """Why there are none, or why it is unknown; empty otherwise."""


class _MemoryInfo(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def read_driver(load: LoadLibrary = ctypes.CDLL) -> Driver:
    """Ask the driver for its GPUs. `CUDA_VISIBLE_DEVICES` does not hide any of them here."""
    try:
        nvml = load(_NVML)
    except OSError:
        return Driver(version=None, gpus=(), reason=f"no NVIDIA driver ({_NVML} is not here)")
    if status := nvml.nvmlInit_v2():
        reason = f"the NVIDIA driver does not answer (nvmlInit: {status})"
        return Driver(version=None, gpus=(), reason=reason)
    try:
        version = ctypes.create_string_buffer(_TEXT_BYTES)
        status = nvml.nvmlSystemGetDriverVersion(version, _TEXT_BYTES)
        count = ctypes.c_uint()
        status = status or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        if status:
            reason = f"the NVIDIA driver does not list its GPUs (status {status})"
            return Driver(version=None, gpus=(), reason=reason)
        gpus = tuple(_gpu(nvml, index) for index in range(count.value))
        return Driver(version=version.value.decode(), gpus=gpus, reason="")
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Gpu:
    handle, memory = ctypes.c_void_p(), _MemoryInfo()
    name = ctypes.create_string_buffer(_TEXT_BYTES)
    if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
        return Gpu(name=f"GPU {index} (not permitted)", memory=0, free=0)
    nvml.nvmlDeviceGetName(handle, name, _TEXT_BYTES)
    # a slice of a GPU may refuse this one; its name is of use all the same
    nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    return Gpu(name=name.value.decode(), memory=memory.total, free=memory.free)


def read_jpeg_engines(load: LoadLibrary = ctypes.CDLL) -> JpegEngines:
    """Ask nvJPEG, of the library that DALI or torch bring. Takes a context on the current GPU."""
    nvjpeg = _first_loadable(_nvjpeg_libraries(), load)
    if nvjpeg is None:
        return _unknown("no nvJPEG library beside DALI or torch")
    if not hasattr(nvjpeg, "nvjpegGetHardwareDecoderInfo"):
        return _unknown("this nvJPEG is too old to be asked")
    handle, engines, cores = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_uint()
    status = nvjpeg.nvjpegCreateEx(_BACKEND_HARDWARE, None, None, 0, ctypes.byref(handle))
    if status in _NO_ENGINES:
        return JpegEngines(engines=0, cores=0, reason="nvJPEG finds none")
    if status:
        return _unknown(f"nvJPEG does not start (status {status})")
    status = nvjpeg.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores))
    nvjpeg.nvjpegDestroy(handle)
    if status:
        return _unknown(f"nvJPEG does not tell (status {status})")
    return JpegEngines(engines=engines.value, cores=cores.value, reason="")


def has_video(load: LoadLibrary = ctypes.CDLL) -> bool:
    """Whether the driver's video libraries are here: a container without them has no engines."""
    return _first_loadable([_VIDEO], load) is not None


def _unknown(reason: str) -> JpegEngines:
    return JpegEngines(engines=None, cores=None, reason=reason)


def _nvjpeg_libraries() -> Iterator[str]:
    for package in ("nvidia", "torch"):
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            yield from map(str, sorted(Path(folder).glob("**/lib/libnvjpeg.so*")))
    yield from ("libnvjpeg.so.13", "libnvjpeg.so.12")


def _first_loadable(names: "Iterator[str] | list[str]", load: LoadLibrary) -> Any:
    for name in names:
        try:
            return load(name)
        except OSError:
            continue
    return None
