"""Puts the pipeline together: a set's path and a configuration in, batches on the device out.

`train` and `validate` give what the training step reads; `train_pixels` gives the same stream one
hop earlier, as uint8, for whoever keeps or times it.
"""

import importlib.util
import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from pipeline import normalise
from pipeline.augment import AugmentConfig, choose_flips, flip
from pipeline.backgrounds import BackgroundBank
from pipeline.batch import Batch
from pipeline.decoder import DecodedBatch, Decoder, Request
from pipeline.error import LoaderError
from pipeline.ledger import BadSampleLedger
from pipeline.normalise import Normalisation
from pipeline.opening import open_set
from pipeline.order import Order, rank_share
from pipeline.source import BadSample, SampleSource
from pipeline.turbojpeg import TurboJpegDecoder
from shards.manifest import Manifest

DECODERS = ("auto", "turbojpeg", "dali")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderConfig:
    """How a set is streamed."""

    decoder: str = "auto"
    """`turbojpeg` (threads on the processor), `dali`, or `auto`: DALI on a CUDA device."""

    threads: int | None = None
    """Threads that decode; None: as many as this process may use cores."""

    prefetch_batches: int = 3
    """Batches under way while the consumer holds one."""

    exact_decode: bool = False
    """Decode in full before resizing while training, too; evaluation always does. Otherwise
    turbojpeg decodes at a reduced scale no smaller than the stage: mean difference under 3 levels,
    and twice as fast at 64 px."""

    seed: int = 0
    """Chooses the order of training."""

    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """What training changes in its images; validation changes nothing."""

    max_bad_samples: float = 0.001
    """Share of a split's samples that may turn out bad; a first one is tolerated unless this is 0.
    They are replaced at weight 0; one more is an error."""

    hw_decoder_load: float = 0.65
    """Share of the JPEGs that the NVJPG engines take, of those they can (DALI on a GPU)."""

    verify_hashes: bool = False
    """Check the SHA-256 of every file when the set is opened, not only its size."""

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            msg = f"decoder is {self.decoder!r}; it must be one of {', '.join(DECODERS)}"
            raise ValueError(msg)
        if self.threads is not None and self.threads < 1:
            msg = f"threads is {self.threads}; it must be at least 1"
            raise ValueError(msg)
        if self.prefetch_batches < 1:
            msg = f"prefetch_batches is {self.prefetch_batches}; it must be at least 1"
            raise ValueError(msg)
        for name in ("max_bad_samples", "hw_decoder_load"):
            if not 0 <= getattr(self, name) <= 1:
                msg = f"{name} is {getattr(self, name)}; it must be 0 to 1"
                raise ValueError(msg)

    @property
    def num_threads(self) -> int:
        """Threads that decode."""
        return self.threads or len(os.sched_getaffinity(0))


class Loader:
    """Streams a set; a `BatchLoader`. One thread consumes it.

    Args:
        set_path: Folder of the set.
        config: How to stream it.
        device: Where batches go.
        rank: This process among those that share each global batch.
        world_size: How many they are.

    Raises:
        ShardError: There is no sound manifest.
        LoaderError: Files of the set are missing or differ from the manifest.
    """

    def __init__(
        self,
        set_path: Path,
        config: LoaderConfig,
        device: torch.device,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            msg = f"rank is {rank}; it must be 0 to {world_size - 1}"
            raise ValueError(msg)
        self.set_path = set_path
        self.config = config
        self.device = device
        self.manifest: Manifest = open_set(set_path, verify_hashes=config.verify_hashes)
        self.normalisation = Normalisation.of_set(self.manifest)
        self.decoder = open_decoder(config, device)
        self._rank, self._world_size = rank, world_size
        self._banks: dict[int, BackgroundBank | None] = {}
        self._streams: list[ExitStack] = []
        with ExitStack() as stack:
            self.training = stack.enter_context(SampleSource(set_path, self.manifest, "train"))
            self.validation = stack.enter_context(SampleSource(set_path, self.manifest, "val"))
            self._files = stack.pop_all()
        """`training` and `validation` also tell each sample's background and foreground number."""
        self._ledgers = {
            source.split: BadSampleLedger(
                set_path, source.split, source.num_samples, config.max_bad_samples
            )
            for source in (self.training, self.validation)
        }

    @property
    def num_samples(self) -> int:
        """Samples in one epoch of training."""
        return self.training.num_samples

    @property
    def num_validation_samples(self) -> int:
        """Samples in the validation split."""
        return self.validation.num_samples

    @property
    def bad_samples(self) -> tuple[BadSample, ...]:
        """The samples found bad so far, each once: training's, then validation's."""
        return tuple(bad for ledger in self._ledgers.values() for bad in ledger.samples)

    @property
    def record(self) -> dict[str, Any]:
        """What decides the batches, for checkpoints and results."""
        return {
            "seed": self.config.seed,
            "augment": asdict(self.config.augment),
            "decoding": self.decoding,
        }

    @property
    def decoding(self) -> dict[str, Any]:
        """What decides the pixels, for checkpoints and results."""
        scaled = self.decoder.name == "turbojpeg" and not self.config.exact_decode
        device = self.device.type if self.decoder.name == "dali" else "cpu"
        return {
            "decoder": self.decoder.name,
            "device": device,
            "filter": "antialiased bilinear",
            "scaled": scaled,
        }

    @contextmanager
    def train(
        self, *, size: int, batch_size: int, start: int, num_steps: int
    ) -> Iterator[Iterator[Batch]]:
        """See `BatchLoader.train`; this rank's share of each global batch."""
        bank = self.backgrounds(size)
        share = rank_share(batch_size, self._world_size)
        firsts = itertools.count(start + self._rank * share, batch_size)
        with self.train_pixels(
            size=size, batch_size=batch_size, start=start, num_steps=num_steps
        ) as decoded:
            yield (
                self._to_batch(self.training, bank, pixels, self._flips(first, pixels.numbers))
                for first, pixels in zip(firsts, decoded, strict=False)
            )

    @contextmanager
    def train_pixels(
        self, *, size: int, batch_size: int, start: int, num_steps: int
    ) -> Iterator[Iterator[DecodedBatch]]:
        """`train` before the last hop: uint8, each batch valid until the next is asked for."""
        if not self.num_samples:
            msg = f"{self.set_path} has no training samples; convert it with a smaller --val"
            raise LoaderError(msg)
        order = Order(num_samples=self.num_samples, seed=self.config.seed)
        slices = order.batches(
            batch_size=batch_size,
            start=start,
            num_steps=num_steps,
            rank=self._rank,
            world_size=self._world_size,
        )
        requests = (Request(numbers=numbers, num_counted=len(numbers)) for numbers in slices)
        exact = self.config.exact_decode
        with self._stream(self.training, requests, size=size, exact=exact) as decoded:
            yield decoded

    @contextmanager
    def validate(self, *, size: int, batch_size: int) -> Iterator[Iterator[Batch]]:
        """See `BatchLoader.validate`; this rank's share of each batch."""
        bank = self.backgrounds(size)
        requests = self._validation_requests(batch_size)
        with self._stream(self.validation, requests, size=size, exact=True) as decoded:
            yield (self._to_batch(self.validation, bank, pixels) for pixels in decoded)

    def backgrounds(self, size: int) -> BackgroundBank | None:
        """The set's backgrounds at a size, on the device; None if it has none."""
        if size not in self._banks:
            self._banks[size] = BackgroundBank.open(
                self.set_path, self.manifest, self.decoder, size=size, device=self.device
            )
        return self._banks[size]

    def validation_key(self, number: int) -> str:
        """Name of a validation sample in its shard, safe as a file name; else its number."""
        return self.validation.key(number) or f"{number:06d}"

    def close(self) -> None:
        """End what is still streaming, and close the shards."""
        while self._streams:
            self._streams[-1].close()
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _stream(
        self, source: SampleSource, requests: Iterable[Request], *, size: int, exact: bool
    ) -> Iterator[Iterator[DecodedBatch]]:
        stream = self.decoder.stream(source, requests, size=size, exact=exact)
        with ExitStack() as stack:
            decoded = stack.enter_context(stream)
            self._streams.append(stack)
            stack.callback(self._streams.remove, stack)
            yield (self._accounted(source, pixels) for pixels in decoded)

    def _validation_requests(self, batch_size: int) -> Iterator[Request]:
        share = rank_share(batch_size, self._world_size)
        num = self.num_validation_samples
        for first in range(self._rank * share, self._rank * share + num, batch_size):
            numbers = np.arange(first, first + share)
            counted = min(max(num - first, 0), share)
            yield Request(numbers=numbers % num, num_counted=counted)

    def _accounted(self, source: SampleSource, pixels: DecodedBatch) -> DecodedBatch:
        self._ledgers[source.split].record(pixels.bad)
        return pixels

    def _flips(self, first: int, numbers: npt.NDArray[np.int64]) -> torch.Tensor:
        """Which samples are mirrored, of those that begin at position `first` of the stream."""
        epochs = np.arange(first, first + len(numbers)) // self.num_samples
        return choose_flips(
            self.config.augment, seed=self.config.seed, epochs=epochs, numbers=numbers
        )

    def _to_batch(
        self,
        source: SampleSource,
        bank: BackgroundBank | None,
        pixels: DecodedBatch,
        flips: torch.Tensor | None = None,
    ) -> Batch:
        numbers = torch.from_numpy(pixels.numbers)
        backgrounds = torch.from_numpy(source.backgrounds[pixels.numbers])
        counts = torch.from_numpy(pixels.weights).long()
        mirrored = torch.zeros_like(numbers) if flips is None else flips.long()
        # one small copy to the device instead of four
        columns = self._to_device(torch.stack([numbers, backgrounds, counts, mirrored]))

        def placed(images: torch.Tensor) -> torch.Tensor:
            there = self._to_device(images)
            return there if flips is None else flip(there, columns[3].bool())

        return Batch(
            background=(
                None if bank is None else self.normalisation.images(placed(bank.gather(columns[1])))
            ),
            composite=self.normalisation.images(placed(pixels.composite)),
            mask=normalise.mask(placed(pixels.mask)),
            depth=normalise.depth(placed(pixels.depth)),
            number=columns[0],
            weight=columns[2].float(),
        )

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
            return pinned.to(self.device, non_blocking=True)
        return tensor


def open_decoder(config: LoaderConfig, device: torch.device) -> Decoder:
    """The decoder that the configuration names, or that suits the device.

    Raises:
        LoaderError: DALI is asked for and not installed.
    """
    has_dali = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali")
    if config.decoder == "dali" and not has_dali:
        msg = "DALI is not installed; install nvidia-dali-cuda120, or use the turbojpeg decoder"
        raise LoaderError(msg)
    if config.decoder == "dali" or (
        config.decoder == "auto" and device.type == "cuda" and has_dali
    ):
        # the only import of the module that imports DALI: it takes seconds, and not all have it
        from pipeline.dali import DaliDecoder

        return DaliDecoder(
            device=device,
            threads=config.num_threads,
            prefetch_batches=config.prefetch_batches,
            hw_decoder_load=config.hw_decoder_load,
        )
    return TurboJpegDecoder(
        threads=config.num_threads,
        prefetch_batches=config.prefetch_batches,
        pin_memory=device.type == "cuda",
    )
