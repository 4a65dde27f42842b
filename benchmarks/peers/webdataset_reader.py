"""webdataset with simplejpeg: the shards as the plain WebDataset they are, in worker processes.

Given what it can do: JPEGs decoded at a reduced scale no smaller than asked for, as ours are while
training, and torch's antialiased resize of uint8, four times as fast as Pillow's.
"""

from collections.abc import Iterator

import simplejpeg
import torch
import webdataset as wds

from benchmarks.peers.job import Arrays, Job

_PARTS = ("fgbg.jpg", "mask.jpg", "depth.jpg")
_BUFFER = 1_000


def prepare(job: Job) -> None:
    """Our shards are read as they are."""


def batches(job: Job, *, shuffled: bool) -> Iterator[Arrays]:
    """See `Peer.batches`; shuffled within a buffer, as this format is."""
    shards = sorted(map(str, job.set_path.glob("train-*.tar")))
    dataset = wds.WebDataset(shards, shardshuffle=len(shards) if shuffled else False)
    if shuffled:
        dataset = dataset.repeat().shuffle(_BUFFER)
    dataset = dataset.to_tuple(*_PARTS).map(_Decode(job.size))
    dataset = dataset.batched(job.batch_size, partial=False)
    yield from wds.WebLoader(
        dataset, batch_size=None, num_workers=job.threads if shuffled else 0,
        **({"prefetch_factor": 3} if shuffled else {}),
    )  # fmt: skip


class _Decode:
    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, parts: tuple[bytes, bytes, bytes]) -> tuple[torch.Tensor, ...]:
        composite, mask, depth = parts
        return self._one(composite, "RGB"), self._one(mask, "GRAY"), self._one(depth, "GRAY")

    def _one(self, content: bytes, colours: str) -> torch.Tensor:
        decoded = simplejpeg.decode_jpeg(
            content, colours, min_height=self._size, min_width=self._size, min_factor=1
        )
        image = torch.from_numpy(decoded).permute(2, 0, 1)[None]
        if image.shape[-1] != self._size:
            image = torch.nn.functional.interpolate(
                image, size=(self._size, self._size), mode="bilinear", antialias=True
            )
        return image[0].permute(1, 2, 0) if colours == "RGB" else image[0, 0]
