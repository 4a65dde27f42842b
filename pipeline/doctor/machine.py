"""What the doctor says of a machine: cores, memory, GPUs, and the packages that use them."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version

import torch

from pipeline.cache.caches import installed_decoders
from pipeline.cache.free_memory import host_room
from pipeline.cache.gather import gather
from pipeline.cache.memory_plan import gigabytes
from pipeline.doctor.gpus import Driver, JpegEngines, has_video, read_driver, read_jpeg_engines
from pipeline.doctor.section import Section
from pipeline.hardware import (
    Cores,
    is_container,
    open_file_limit,
    processor,
    read_cores,
    read_memory,
)

_DALI_BUILDS = ("nvidia-dali-cuda120", "nvidia-dali-cuda130")
_CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"


def examine_machine() -> Section:
    """Cores, memory, open files."""
    cores, memory = read_cores(), read_memory()
    limit = "" if memory.limit is None else f", {gigabytes(memory.limit)} by this container's limit"
    room, files = host_room(), open_file_limit()
    told = "" if files is None else f"{files:,} "
    return Section(
        name="machine",
        lines=(
            f"{processor() or 'a processor without a name'}, {_told_cores(cores)}",
            f"memory {gigabytes(memory.total)}{limit}, {gigabytes(memory.available)} available, "
            f"{gigabytes(max(room, 0))} for a cache; /dev/shm {gigabytes(memory.shared)}",
            f"{told or 'any number of '}open files; {'a' if is_container() else 'no'} container",
        ),
        facts={
            "processor": processor(),
            "cores": {**asdict(cores), "usable": cores.usable},
            "memory": {**asdict(memory), "for_a_cache": max(room, 0)},
            "open_files": files,
            "container": is_container(),
        },
    )


def _told_cores(cores: Cores) -> str:
    noun = "core" if cores.usable == 1 else "cores"
    if cores.quota is None or cores.usable == cores.allowed:
        return f"{cores.usable} {noun}"
    return f"{cores.usable} {noun} (a quota of {cores.quota:g} on {cores.allowed})"


def examine_gpus() -> Section:
    """The driver's GPUs, what torch sees of them, and their JPEG engines."""
    driver = read_driver()
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    engines = read_jpeg_engines() if driver.gpus else None
    video = has_video()
    return Section(
        name="gpu",
        lines=tuple(_told_gpus(driver, engines, seen)),
        facts={
            **asdict(driver),
            "seen_by_torch": seen,
            "jpeg_engines": None if engines is None else asdict(engines),
            "video_libraries": video,
        },
        remarks=tuple(gpu_remarks(driver, engines, seen, video=video, environment=os.environ)),
    )


def _told_gpus(driver: Driver, engines: JpegEngines | None, seen: int) -> Iterator[str]:
    if not driver.gpus:
        yield f"none: {driver.reason or 'the driver lists none'}"
        return
    for gpu in driver.gpus:
        yield f"{gpu.name}, {gigabytes(gpu.memory)}, {gigabytes(gpu.free)} free"
    yield f"driver {driver.version}; torch sees {seen}"
    assert engines is not None
    if engines.engines is None:
        yield f"JPEG engines unknown: {engines.reason}"
    else:
        yield f"JPEG engines {engines.engines}; cores per engine {engines.cores}"


def gpu_remarks(
    driver: Driver,
    engines: JpegEngines | None,
    seen: int,
    *,
    video: bool,
    environment: Mapping[str, str],
) -> Iterator[str]:
    """What keeps GPUs or their engines from being used.

    Args:
        driver: What the driver lists.
        engines: What nvJPEG says; None without a GPU.
        seen: GPUs that torch sees.
        video: Whether the driver's video libraries are here.
        environment: The process's.
    """
    if not driver.gpus:
        return
    if not seen:
        yield (
            "torch sees no GPU: it is a build without CUDA, the driver is too old for it, or "
            "CUDA_VISIBLE_DEVICES hides them; install a CUDA build of torch for this driver"
        )
    if engines is not None and not engines.engines:
        given = environment.get(_CAPABILITIES, "")
        told = f" ({_CAPABILITIES} is {given!r} here)" if given else ""
        if video:
            yield "no JPEG engine is to be seen; CUDA decodes alone, with the cores' help"
        else:
            yield (
                "no JPEG engine is to be seen, and the driver's video libraries are missing; start "
                f"the container with {_CAPABILITIES}=compute,utility,video{told}"
            )


def examine_packages() -> Section:
    """Versions of what decodes and computes, and what does not go together."""
    found = installed_decoders()
    cuda = torch.version.cuda
    gatherer, hindrance = read_gatherer()
    return Section(
        name="packages",
        lines=(
            f"torch {torch.__version__}, {f'CUDA {cuda}' if cuda else 'without CUDA'}",
            ", ".join(f"{name} {version}" for name, version in found.items() if name != "torch"),
            f"cached samples are gathered by {gatherer}",
        ),
        facts={"versions": found, "torch_cuda": cuda, "gatherer": gatherer},
        remarks=(*package_remarks(found, has_gpu=torch.cuda.is_available()), *hindrance),
        faults=tuple(package_faults(found)),
    )


def read_gatherer() -> tuple[str, tuple[str, ...]]:
    """What copies cached samples in host memory once there are many, and a remark if it is numpy.

    Compiles it: what is measured after this is what long runs get.
    """
    try:
        gather.compile()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        remark = f"numba cannot gather cached samples, and numpy is slower; reinstall it ({reason})"
        return f"numpy {version('numpy')}", (remark,)
    return f"numba {version('numba')}", ()


def package_faults(versions: Mapping[str, str]) -> Iterator[str]:
    """What is installed and cannot work."""
    builds = [name for name in _DALI_BUILDS if name in versions]
    if len(builds) > 1:
        yield (
            f"{' and '.join(builds)} are both installed and overwrite each other's files; "
            f"uninstall both, then install one"
        )


def package_remarks(versions: Mapping[str, str], *, has_gpu: bool) -> Iterator[str]:
    """What is missing."""
    if has_gpu and not any(name in versions for name in _DALI_BUILDS):
        yield f"there is a GPU and no DALI, so the processor decodes; install {_DALI_BUILDS[0]}"
