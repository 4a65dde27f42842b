"""FFCV: a .beton file of its own, read from the page cache by its compiled pipeline.

Mode `jpg` holds our JPEGs, byte for byte, at the stored size: FFCV's only image field has three
channels, so masks and depth are decoded as RGB and one channel is taken; its resize is OpenCV's by
area. Mode `raw` holds the pixels at the size asked for, resized by Pillow: exactly what our cache
holds when it decodes in full.

One epoch follows another, as people iterate over its loader: each begins with threads and memory
of its own. Mode `raw in one epoch` shuffles the file's numbers repeated many times, which spares
FFCV that start; a sample is then no longer seen once per epoch.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ffcv.fields import NDArrayField, RGBImageField
from ffcv.fields.decoders import (
    CenterCropRGBImageDecoder,
    NDArrayDecoder,
    SimpleRGBImageDecoder,
)
from ffcv.fields.rgb_image import IMAGE_MODES
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import ToTensor
from ffcv.writer import DatasetWriter

from benchmarks.peers.job import Arrays, Job
from benchmarks.peers.pillow_loader import decode
from benchmarks.peers.set_files import SetFiles

_PARTS = ("composite", "mask", "depth")
_LONG = 1_000_000  # samples in that one epoch
_ENDLESS = " in one epoch"
_loaders: dict[tuple[Job, bool], Loader] = {}


class _JpegField(RGBImageField):
    """FFCV's field, of JPEGs that are there already: its own would encode them again."""

    def __init__(self, size: int) -> None:
        super().__init__(write_mode="jpg")
        self._size = size

    def encode(self, destination: Any, image: bytes, malloc: Any) -> None:
        destination["mode"] = IMAGE_MODES["jpg"]
        destination["height"] = destination["width"] = self._size
        destination["data_ptr"], storage = malloc(len(image))
        storage[:] = np.frombuffer(image, np.uint8)


class _Pixels:
    """Samples decoded and resized, for the writer."""

    def __init__(self, job: Job) -> None:
        self._files, self._size = SetFiles(job.set_path), job.size

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        return tuple(image.numpy() for image in decode(self._files[number], self._size))


def prepare(job: Job) -> None:
    """Write the .beton, unless this very one is there."""
    _loaders.clear()
    path = _path(job)
    if path.exists():
        return
    temporary = path.with_suffix(".tmp")
    if job.mode == "jpg":
        fields = {part: _JpegField(job.stored_size) for part in _PARTS}
        samples: Any = SetFiles(job.set_path)
    else:
        grey = {part: NDArrayField(np.dtype("u1"), (job.size, job.size)) for part in _PARTS[1:]}
        fields = {"composite": RGBImageField(write_mode="raw"), **grey}
        samples = _Pixels(job)
    writer = DatasetWriter(str(temporary), fields, num_workers=job.threads)
    writer.from_indexed_dataset(samples)
    temporary.rename(path)
    os.sync()  # the disk is at rest when a clock starts


def batches(job: Job, *, shuffled: bool) -> Iterator[Arrays]:
    """See `Peer.batches`."""
    if (job, shuffled) not in _loaders:  # compiled once: it takes seconds
        _loaders[job, shuffled] = _open(job, shuffled=shuffled)
    for composite, mask, depth in _loaders[job, shuffled]:
        yield (composite, mask[..., 0], depth[..., 0]) if job.mode == "jpg" else (
            composite, mask, depth
        )  # fmt: skip


def _open(job: Job, *, shuffled: bool) -> Loader:
    count = len(SetFiles(job.set_path))
    repeats = max(1, _LONG // count) if shuffled and job.mode.endswith(_ENDLESS) else 1
    grey = _image_decoder if job.mode == "jpg" else _array_decoder
    return Loader(
        str(_path(job)),
        batch_size=job.batch_size,
        num_workers=job.threads,
        os_cache=True,
        order=OrderOption.RANDOM if shuffled else OrderOption.SEQUENTIAL,
        indices=np.tile(np.arange(count), repeats),
        pipelines={
            "composite": [_image_decoder(job), ToTensor()],
            "mask": [grey(job), ToTensor()],
            "depth": [grey(job), ToTensor()],
        },
        custom_fields=dict.fromkeys(_PARTS, _JpegField) if job.mode == "jpg" else {},
    )


def _image_decoder(job: Job) -> Any:
    if job.mode != "jpg" or job.size == job.stored_size:
        return SimpleRGBImageDecoder()
    return CenterCropRGBImageDecoder((job.size, job.size), ratio=1)


def _array_decoder(_: Job) -> Any:
    return NDArrayDecoder()


def _path(job: Job) -> Path:
    size = job.stored_size if job.mode == "jpg" else job.size
    return job.folder / f"{job.mode.removesuffix(_ENDLESS)}-{size}.beton"
