"""LitData: our JPEGs in chunks of its own, decoded by Pillow in its DataLoader's processes."""

import os
from collections.abc import Iterator
from typing import Any

import litdata
import torch

from benchmarks.peers.job import Arrays, Job
from benchmarks.peers.pillow_loader import decode
from benchmarks.peers.set_files import SetFiles


class _Decoded(litdata.StreamingDataset):
    size = 0

    def __getitem__(self, index: Any) -> tuple[torch.Tensor, ...]:
        return decode(super().__getitem__(index), self.size)


def prepare(job: Job) -> None:
    """Write the chunks, unless they are there."""
    chunks = job.folder / "chunks"
    if chunks.exists():
        return
    for name in ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER"):
        os.environ[name] = str(job.folder / name.lower())  # not /tmp/chunks, /tmp/data
    files = SetFiles(job.set_path)
    litdata.optimize(
        fn=files.__getitem__,
        inputs=list(range(len(files))),
        output_dir=str(chunks),
        chunk_bytes="16MB",
        num_workers=1,
        start_method="fork",
        keep_data_ordered=True,
        verbose=False,
    )


def batches(job: Job, *, shuffled: bool) -> Iterator[Arrays]:
    """See `Peer.batches`."""
    dataset = _Decoded(str(job.folder / "chunks"), shuffle=shuffled, drop_last=shuffled)
    dataset.size = job.size
    yield from litdata.StreamingDataLoader(
        dataset,
        batch_size=job.batch_size,
        num_workers=job.threads if shuffled else 0,
        drop_last=True,
        **({"prefetch_factor": 3, "persistent_workers": True} if shuffled else {}),
    )
