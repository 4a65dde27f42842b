"""Decode and resize by DALI: on the GPU (NVJPG engines and CUDA), or on the processor.

Encoded bytes come in by `external_source`, read ahead by our own threads in our own order; uint8
tensors go out by DLPack. This is the only module that imports DALI.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nvidia.dali import backend, fn, types
from nvidia.dali.pipeline import Pipeline, pipeline_def
from simplejpeg import encode_jpeg
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from pipeline.ahead import in_order
from pipeline.decoder import DecodedBatch, Request, first_good, undecodable
from pipeline.error import LoaderError
from pipeline.source import BadSample, EncodedSample, SampleSource
from pipeline.stills import COLOURS, Colour, DecodeError, decode

_READERS = 2
"""Threads that read ahead; one reads 85,000 samples/s from the page cache."""

_BYTES_PER_PIXEL = 16
"""What nvJPEG works with per pixel of a colour image, rounded up: coefficients of two bytes and
planes of one, three of each. DALI's own guess is 16 MiB per thread and part."""

_Encoded = tuple[list[npt.NDArray[np.uint8]], ...]
"""One batch: per part, the encoded bytes of each sample."""


@pipeline_def
def graph(
    source: Iterator[_Encoded],
    *,
    colours: Sequence[Colour],
    size: int | None,
    device: str,
    gpu_options: Mapping[str, Any],
) -> tuple[Any, ...]:
    """Encoded batches in, uint8 batches out, one output per part.

    Args:
        source: Gives the batches.
        colours: What each part is decoded to.
        size: Side in pixels to resize to; None where the images have that size.
        device: "cpu" or "gpu".
        gpu_options: What `mixed_options` gives; used on a GPU only.
    """
    encoded = fn.external_source(
        source, num_outputs=len(colours), dtype=types.DALIDataType.UINT8, ndim=1
    )
    images = [
        _decode(part, colour, device, gpu_options)
        for part, colour in zip(encoded, colours, strict=True)
    ]
    if size is not None:
        images = [_resize(image, size) for image in images]
    return tuple(images)


def mixed_options(image_size: tuple[int, int], hw_decoder_load: float) -> dict[str, Any]:
    """What `decoders.image` is told where a GPU decodes.

    The engines take baseline JPEGs, and of those the first of each batch up to their share; CUDA
    the others and progressive ones; the processor PNGs. With a share of 0 what decodes an image
    depends on the image alone.

    Args:
        image_size: Height and width of the set's images; larger ones make buffers grow.
        hw_decoder_load: Share of the JPEGs that the NVJPG engines take, of those they can.
    """
    height, width = image_size
    padding = max(_BYTES_PER_PIXEL * height * width, 1 << 16)
    return {
        "hw_decoder_load": hw_decoder_load,
        "jpeg_fancy_upsampling": True,  # the GPU's default differs from libjpeg's in chroma
        "preallocate_height_hint": height,
        "preallocate_width_hint": width,
        "device_memory_padding": padding,
        "host_memory_padding": padding,
    }


def _decode(part: Any, colour: Colour, device: str, gpu_options: Mapping[str, Any]) -> Any:
    return fn.decoders.image(
        part,
        output_type=getattr(types.DALIImageType, colour),
        adjust_orientation=False,  # a mask has no EXIF to turn it along with its composite
        **({"device": "mixed", **gpu_options} if device == "gpu" else {"device": "cpu"}),
    )


def _resize(image: Any, size: int) -> Any:
    linear = types.DALIInterpType.INTERP_LINEAR
    return fn.resize(image, size=[size, size], interp_type=linear, antialias=True)


@dataclass(frozen=True, kw_only=True)
class DaliDecoder:
    """A DALI pipeline per stream."""

    device: torch.device
    """Where images are decoded and resized; on a CUDA device they stay there."""

    threads: int
    """DALI's own threads; on the GPU they do the Huffman decoding that NVJPG does not."""

    prefetch_batches: int
    """Batches under way while the consumer holds one."""

    hw_decoder_load: float
    """Share of the JPEGs that the NVJPG engines take."""

    name: str = field(default="dali", init=False)

    @contextmanager
    def stream(
        self, source: SampleSource, requests: Iterable[Request], *, size: int, exact: bool
    ) -> Iterator[Iterator[DecodedBatch]]:
        """See `Decoder.stream`; always exact, since DALI has no scaled decoding."""
        with (
            self._memory_given_back(),
            ThreadPoolExecutor(_READERS, thread_name_prefix="maskdepth-read") as pool,
            closing(self._read_ahead(source, requests, pool)) as encoded,
            closing(self._batches(source, encoded, size)) as batches,
        ):
            yield batches

    def decode_images(
        self, images: Sequence[bytes], *, size: int, names: Sequence[str] = ()
    ) -> Tensor:
        """See `Decoder.decode_images`."""
        for number, content in enumerate(images):
            try:
                decode(content, "RGB")
            except DecodeError as error:
                raise undecodable(names, number, error) from None
        batch = ([np.frombuffer(content, np.uint8) for content in images],)
        pipe = self._build(iter([batch]), ["RGB"], size, len(images), image_size=(size, size))
        return self._run(pipe)[0]

    @contextmanager
    def _memory_given_back(self) -> Iterator[None]:
        """A cache or a network may want what DALI would keep for a next pipeline."""
        try:
            yield
        finally:
            if self.device.type == "cuda":
                backend.ReleaseUnusedMemory()  # type: ignore[attr-defined] # missing in its stub

    def _read_ahead(
        self, source: SampleSource, requests: Iterable[Request], pool: ThreadPoolExecutor
    ) -> Generator["_EncodedBatch"]:
        jobs = ((request, [partial(source.read_many, request.numbers)]) for request in requests)
        for request, [samples] in in_order(jobs, pool, ahead=self.prefetch_batches):
            yield _EncodedBatch(source, request, samples)

    def _batches(
        self, source: SampleSource, encoded: Iterator["_EncodedBatch"], size: int
    ) -> Generator[DecodedBatch]:
        resize_to = None if set(source.image_sizes) == {(size, size)} else size
        fed: deque[_EncodedBatch] = deque()
        first = next(encoded, None)
        if first is None:
            return
        batch_size, image_size = len(first.request.numbers), max(source.image_sizes)
        waiting = chain([first], encoded)
        while True:
            pipe = self._build(
                _feed(waiting, fed), COLOURS, resize_to, batch_size, image_size=image_size
            )
            try:
                while True:
                    composite, mask, depth = self._run(pipe)
                    yield fed.popleft().finish(composite, mask[..., 0], depth[..., 0])
            except StopIteration:
                return
            except RuntimeError as error:
                # DALI loses the whole batch and does not name the sample: find it, start again
                if not sum(batch.replace_undecodable() for batch in fed):
                    if resize_to is not None:
                        raise _dali_error(error) from error
                    resize_to = size  # an image of another size than the set's; exact for the rest
                waiting, fed = chain(fed, waiting), deque()

    def _build(
        self,
        source: Iterator[_Encoded],
        colours: Sequence[Colour],
        resize_to: int | None,
        batch_size: int,
        *,
        image_size: tuple[int, int],
    ) -> Pipeline:
        on_gpu = self.device.type == "cuda"
        device_id = None
        if on_gpu:
            index = self.device.index
            device_id = torch.cuda.current_device() if index is None else index
        pipe = graph(
            source,
            colours=colours,
            size=resize_to,
            device="gpu" if on_gpu else "cpu",
            gpu_options=mixed_options(image_size, self.hw_decoder_load),
            batch_size=batch_size,
            num_threads=self.threads,
            device_id=device_id,
            prefetch_queue_depth=self.prefetch_batches,
        )
        pipe.build()
        return pipe

    def _run(self, pipe: Pipeline) -> list[Tensor]:
        """The next batch's outputs as torch tensors, without a copy.

        On the GPU they are bound to torch's current stream: work queued there waits for them, and
        DALI takes their memory back only after it. On the processor DALI's executor leaves a batch
        alone for as long as a DLPack view of it lives.
        """
        stream = torch.cuda.current_stream(self.device) if self.device.type == "cuda" else None
        outputs = pipe.run(stream)
        return [from_dlpack(output.as_tensor()) for output in outputs]


def _feed(waiting: Iterable["_EncodedBatch"], fed: deque["_EncodedBatch"]) -> Iterator[_Encoded]:
    for batch in waiting:
        fed.append(batch)
        yield batch.arrays()


def _dali_error(error: RuntimeError) -> LoaderError:
    lines = [line for line in str(error).splitlines() if "rror" in line]
    found = lines[-1] if lines else str(error)
    return LoaderError(f"DALI cannot decode a batch ({found}); use the turbojpeg decoder")


@lru_cache(maxsize=4)
def _blank(image_size: tuple[int, int]) -> EncodedSample:
    """What is decoded for a batch without a good sample."""
    image = memoryview(encode_jpeg(np.zeros((*image_size, 1), np.uint8), colorspace="GRAY"))
    return EncodedSample(image, image, image)


class _EncodedBatch:
    """A batch on its way to DALI, kept until its images have come out."""

    def __init__(
        self, source: SampleSource, request: Request, samples: list[EncodedSample | BadSample]
    ) -> None:
        self.request = request
        self._source = source
        self._samples = samples

    def arrays(self) -> _Encoded:
        """Per part the bytes of each sample; a good sample's in the place of a bad one."""
        found = first_good(self.request, self._bad())
        stand_in = _blank(self._source.image_size) if found is None else self._samples[found]
        good = [stand_in if isinstance(s, BadSample) else s for s in self._samples]
        return tuple([np.frombuffer(c, np.uint8) for c in part] for part in zip(*good, strict=True))

    def replace_undecodable(self) -> int:
        """Mark the samples that do not decode strictly as bad; returns how many."""
        found = 0
        for i, sample in enumerate(self._samples):
            if isinstance(sample, EncodedSample) and (bad := self._decode_fault(i, sample)):
                self._samples[i] = bad
                found += 1
        return found

    def _decode_fault(self, i: int, sample: EncodedSample) -> BadSample | None:
        for part, content in enumerate(sample):
            try:
                decode(content, COLOURS[part])
            except DecodeError as error:
                return self._source.bad(int(self.request.numbers[i]), part, str(error))
        return None

    def finish(self, composite: Tensor, mask: Tensor, depth: Tensor) -> DecodedBatch:
        """The batch as the consumer gets it."""
        bad = self._bad()
        counted = [i for i in bad if i < self.request.num_counted]
        if first_good(self.request, bad) is None:  # a blank JPEG need not be all zeros
            composite, mask, depth = map(torch.zeros_like, (composite, mask, depth))
        return DecodedBatch(
            composite=composite,
            mask=mask,
            depth=depth,
            numbers=self.request.numbers,
            weights=self.request.weights(bad),
            bad=tuple(bad[i] for i in counted),
        )

    def _bad(self) -> dict[int, BadSample]:
        return {i: s for i, s in enumerate(self._samples) if isinstance(s, BadSample)}
