"""What people write first: a torch Dataset that opens images with Pillow, in worker processes."""

import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from benchmarks.peers.job import Arrays, Job
from benchmarks.peers.set_files import SetFiles


class _Samples(Dataset[tuple[torch.Tensor, ...]]):
    def __init__(self, job: Job) -> None:
        self._files, self._size = SetFiles(job.set_path), job.size

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, ...]:
        return decode(self._files[number], self._size)


class _Endless(Sampler[int]):
    """Epoch after epoch as one, so that no restart of processes falls into a turn."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(self._length).tolist()


def decode(sample: tuple[bytes, bytes, bytes], size: int) -> tuple[torch.Tensor, ...]:
    """Composite, mask and depth at a size."""
    return tuple(
        torch.from_numpy(_pixels(part, mode, size))
        for part, mode in zip(sample, ("RGB", "L", "L"), strict=True)
    )


def _pixels(content: bytes, mode: str, size: int) -> np.ndarray[tuple[int, ...], np.dtype]:
    with Image.open(io.BytesIO(content)) as image:
        converted = image.convert(mode)
    if converted.size != (size, size):
        converted = converted.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(converted).copy()


def prepare(job: Job) -> None:
    """Our shards are read as they are."""


def batches(job: Job, *, shuffled: bool) -> Iterator[Arrays]:
    """See `Peer.batches`."""
    samples = _Samples(job)
    yield from DataLoader(
        samples,
        batch_size=job.batch_size,
        sampler=_Endless(len(samples)) if shuffled else range(len(samples)),
        num_workers=job.threads,
        prefetch_factor=3,
        drop_last=True,
    )
