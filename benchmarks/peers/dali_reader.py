"""DALI as its manual has it: its own webdataset reader with our `.idx`, decode and resize, CPU."""

from collections.abc import Iterator, Sequence
from typing import Any

from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from benchmarks.peers.job import Arrays, Job

_PARTS = ("fgbg.jpg", "mask.jpg", "depth.jpg")
_COLOURS = (types.DALIImageType.RGB, types.DALIImageType.GRAY, types.DALIImageType.GRAY)
_BUFFER = 1_000


def prepare(job: Job) -> None:
    """Our shards and indices are read as they are."""


def batches(job: Job, *, shuffled: bool) -> Iterator[Arrays]:
    """See `Peer.batches`; shuffled within a buffer, as this reader does."""
    pipeline = Pipeline(
        batch_size=job.batch_size, num_threads=job.threads, device_id=None, prefetch_queue_depth=3
    )
    with pipeline:
        pipeline.set_outputs(*_graph(job, shuffled=shuffled))
    iterator = DALIGenericIterator(
        pipeline,
        ["composite", "mask", "depth"],
        reader_name="reader",
        last_batch_policy=LastBatchPolicy.DROP,
        auto_reset=True,
    )
    while True:
        for (batch,) in iterator:
            yield batch["composite"], batch["mask"][..., 0], batch["depth"][..., 0]


def _graph(job: Job, *, shuffled: bool) -> list[Any]:
    tars = sorted(job.set_path.glob("train-*.tar"))
    encoded = fn.readers.webdataset(
        paths=[str(path) for path in tars],
        index_paths=[str(path.with_suffix(".idx")) for path in tars],
        ext=list(_PARTS),
        missing_component_behavior="error",
        random_shuffle=shuffled,
        initial_fill=_BUFFER,
        tensor_init_bytes=32_768,
        name="reader",
    )
    assert isinstance(encoded, Sequence)
    images = [
        fn.decoders.image(part, device="cpu", output_type=colours)
        for part, colours in zip(encoded, _COLOURS, strict=True)
    ]
    if job.size == job.stored_size:
        return images
    return [fn.resize(image, size=[job.size, job.size]) for image in images]
