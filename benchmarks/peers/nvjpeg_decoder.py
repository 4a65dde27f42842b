"""torchvision's batched nvJPEG: whole batches decoded and resized on the GPU, read by a thread."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_jpeg

from benchmarks.peers.job import Arrays, Job
from benchmarks.peers.set_files import SetFiles

_MODES = (ImageReadMode.RGB, ImageReadMode.GRAY, ImageReadMode.GRAY)
_Encoded = list[tuple[torch.Tensor, ...]]


def prepare(job: Job) -> None:
    """Our shards are read as they are."""


def finish() -> None:
    """Wait for the GPU."""
    torch.cuda.synchronize()


def batches(job: Job, *, shuffled: bool) -> Iterator[Arrays]:
    """See `Peer.batches`; on the GPU."""
    files = SetFiles(job.set_path)
    numbers = np.random.default_rng().permutation(len(files)) if shuffled else np.arange(len(files))
    chunks = numbers[: len(files) // job.batch_size * job.batch_size].reshape(-1, job.batch_size)
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(_read, files, chunks[0])
        for number in range(len(chunks)):
            encoded = following.result()
            if number + 1 < len(chunks):
                following = reader.submit(_read, files, chunks[number + 1])
            yield _decode(encoded, job.size)


def _read(files: SetFiles, numbers: np.ndarray) -> _Encoded:
    samples = [files[number] for number in numbers.tolist()]
    return [
        tuple(torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in sample)
        for sample in samples
    ]


def _decode(encoded: _Encoded, size: int) -> Arrays:
    composite, mask, depth = (
        _resize(torch.stack(decode_jpeg([sample[part] for sample in encoded], mode, "cuda")), size)
        for part, mode in enumerate(_MODES)
    )
    return composite.permute(0, 2, 3, 1), mask[:, 0], depth[:, 0]


def _resize(images: torch.Tensor, size: int) -> torch.Tensor:
    if images.shape[-1] == size:
        return images
    resized = torch.nn.functional.interpolate(
        images.float(), size=(size, size), mode="bilinear", antialias=True
    )
    return resized.round().clamp(0, 255).byte()
