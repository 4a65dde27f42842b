"""Puts the pipeline together: a set's path and a configuration in, batches on the device out.

`train` and `validate` give what the training step reads; `train_pixels` gives the same stream one
hop earlier, as uint8, for whoever keeps or times it.
"""

import importlib.util
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import torch

from pipeline.ahead import one_ahead
from pipeline.allocator import give_back_freed_memory, give_back_holes
from pipeline.augment import AugmentConfig
from pipeline.backgrounds import BackgroundBank
from pipeline.batch import Batch, Sets
from pipeline.cache.caches import Caches, CacheSettings, TellPlan, TrainingStage, installed_decoders
from pipeline.cache.free_memory import ranks_here
from pipeline.cache.memory_plan import CHOICES
from pipeline.decoder import DecodedBatch, Decoder, Request
from pipeline.error import LoaderError
from pipeline.finish import Finisher
from pipeline.ledger import BadSampleLedger
from pipeline.normalise import Normalisation
from pipeline.order import Numbers, SampleOrder, rank_share
from pipeline.remote.folder import RemoteConfig
from pipeline.sets import Location, open_sets
from pipeline.source import BadSample, SampleSource
from pipeline.subset import Subset
from pipeline.tuning.settings import AUTO, Settings, Wish, by_rule, own_cores
from pipeline.tuning.tuner import Stage, open_tuner
from pipeline.turbojpeg import TurboJpegDecoder
from pipeline.windowed import ORDERS, check_window

DECODERS = ("auto", "turbojpeg", "dali")

T = TypeVar("T")

_Finished = tuple[Batch, tuple[BadSample, ...]]
"""A batch, and what was found bad in it: it counts when the batch is handed out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderConfig:
    """How a set is streamed."""

    decoder: str = "auto"
    """`turbojpeg` (threads on the processor), `dali`, or `auto`: DALI on a CUDA device."""

    threads: int | str = AUTO
    """Threads that decode, or `auto`: as many as this process may use cores, or fewer if they are
    measured to do as much."""

    prefetch_batches: int | str = AUTO
    """Batches under way while the consumer holds one, or `auto`: 3, or enough for all threads."""

    exact_decode: bool = False
    """Decode in full before resizing while training, too; evaluation always does. Otherwise
    turbojpeg decodes at a reduced scale no smaller than the stage: mean difference under 3 levels,
    and twice as fast at 64 px."""

    seed: int = 0
    """Chooses the order of training."""

    order: str = "global"
    """`global` (every epoch permutes all samples) or `windowed` (all shards, and then the samples
    in a moving window of shards: for sets that are remote or larger than memory)."""

    window_shards: int | None = None
    """Shards that the windowed order draws from at a time; None: 64, more where they are small."""

    cache: str = "auto"
    """Where decoded samples are kept for the next pass: `device`, `host`, `file` (shared by all
    processes, and kept after the run), `off`, or `auto`: the first of these that holds them all,
    if a pass follows."""

    cache_dir: Path | None = None
    """Folder of cache files. None: `auto` makes none, `file` takes the user's cache folder."""

    fill_ahead: bool = False
    """Fill the next stage's cache while this stage trains, at low priority, where both fit."""

    repeats: tuple[int, ...] = ()
    """How often an epoch of training holds each of several sets; () is once."""

    remote: RemoteConfig = field(default_factory=RemoteConfig)
    """How sets at URLs are fetched."""

    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """What training changes in its images; validation changes nothing."""

    max_bad_samples: float = 0.001
    """Share of a split's samples that may turn out bad; a first one is tolerated unless this is 0.
    They are replaced at weight 0; one more is an error."""

    hw_decoder_load: float | str = AUTO
    """Share of the JPEGs that the NVJPG engines take, of those they can (DALI on a GPU), or `auto`:
    the best of a few."""

    tune: str = AUTO
    """Whether `auto` measures: `auto` (once per machine, in a few seconds, if the stage is worth
    it; then remembered), `again`, or `off` (by rule alone)."""

    deterministic: bool = False
    """Decode by one back end: on a GPU the engines, which differ from CUDA in the last bit, get
    nothing. Elsewhere decoding is always deterministic."""

    verify_hashes: bool = False
    """Check the SHA-256 of every file when the set is opened, not only its size. What is fetched
    from a URL is hashed when it arrives, always."""

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            msg = f"decoder is {self.decoder!r}; it must be one of {', '.join(DECODERS)}"
            raise ValueError(msg)
        if self.cache not in CHOICES:
            msg = f"cache is {self.cache!r}; it must be one of {', '.join(CHOICES)}"
            raise ValueError(msg)
        if self.order not in ORDERS:
            msg = f"order is {self.order!r}; it must be one of {', '.join(ORDERS)}"
            raise ValueError(msg)
        if self.window_shards is not None:
            check_window(self.window_shards)
            if self.order != "windowed":
                msg = f"window_shards is of no use to the {self.order} order; ask for 'windowed'"
                raise ValueError(msg)
        if not 0 <= self.max_bad_samples <= 1:
            msg = f"max_bad_samples is {self.max_bad_samples}; it must be 0 to 1"
            raise ValueError(msg)
        _ = self.wish  # its checks

    @property
    def settings(self) -> Settings:
        """Threads, queue depth and the engines' share, before anything is measured."""
        return by_rule(self.wish, cores=own_cores())

    @property
    def wish(self) -> Wish:
        """What is asked of threads, queue depth and the engines' share."""
        return Wish(
            threads=self.threads,
            prefetch_batches=self.prefetch_batches,
            hw_decoder_load=self.hw_decoder_load,
            tune=self.tune,
            deterministic=self.deterministic,
        )

    @property
    def num_threads(self) -> int:
        """Threads that decode."""
        return self.settings.threads


class Loader:
    """Streams a set, or several as one; a `BatchLoader`. One thread consumes it.

    Args:
        data: Folder or URL of the set, or those of several.
        config: How to stream it.
        device: Where batches go.
        rank: This process among those that share each global batch.
        world_size: How many they are.
        tell_plan: Told where decoded samples are kept, before any are.
        normalisation: Of the images: what a trained network knows; None: the set's own.

    Raises:
        ShardError: There is no sound manifest.
        LoaderError: Files of the set are missing or differ from the manifest.
    """

    def __init__(
        self,
        data: Location | Sequence[Location],
        config: LoaderConfig,
        device: torch.device,
        *,
        rank: int = 0,
        world_size: int = 1,
        tell_plan: TellPlan | None = None,
        normalisation: Normalisation | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            msg = f"rank is {rank}; it must be 0 to {world_size - 1}"
            raise ValueError(msg)
        give_back_freed_memory()
        self.config = config
        self.device = device
        self.decoder = open_decoder(config, device)
        self.sets = open_sets(
            [data] if isinstance(data, Location) else data,
            repeats=config.repeats,
            verify_hashes=config.verify_hashes,
            remote=config.remote,
        )
        self.manifest = self.sets.manifest
        self.normalisation = normalisation or Normalisation.of_set(self.manifest)
        self._tuner = open_tuner(config.wish, self.decoder, device)
        self._tuned: dict[int, Settings] = {}
        self._rank, self._world_size = rank, world_size
        self._banks: dict[int, BackgroundBank | None] = {}
        self._streams: list[ExitStack] = []
        self._caches = Caches(self._cache_settings(tell_plan))
        with ExitStack() as stack:
            stack.enter_context(self.sets)
            self.training = stack.enter_context(self.sets.source("train"))
            self.validation = stack.enter_context(self.sets.source("val"))
            self._files = stack.pop_all()
        """`training` and `validation` also tell each sample's background and foreground number."""
        self._ledgers = {
            source.split: BadSampleLedger(
                self.sets.to_verify, source.split, source.num_samples, config.max_bad_samples
            )
            for source in (self.training, self.validation)
        }

    @property
    def num_samples(self) -> int:
        """Samples in one epoch of training."""
        return self.training.num_samples

    @property
    def set_lengths(self) -> tuple[int, ...]:
        """See `JointLoader.set_lengths`."""
        return self.training.set_lengths

    @cached_property
    def order(self) -> SampleOrder:
        """The endless stream of training samples.

        Raises:
            LoaderError: There are none.
        """
        if not self.num_samples:
            msg = f"{self.sets.told} has no training samples; convert it with a smaller --val"
            raise LoaderError(msg)
        return self._order(self.training.subset())

    def _order(self, subset: Subset) -> SampleOrder:
        return subset.open_order(
            self.config.order, seed=self.config.seed, window_shards=self.config.window_shards
        )

    @property
    def num_validation_samples(self) -> int:
        """Samples in the validation split."""
        return self.validation.num_samples

    @property
    def bad_samples(self) -> tuple[BadSample, ...]:
        """The samples found bad so far, each once: training's, then validation's."""
        return tuple(bad for ledger in self._ledgers.values() for bad in ledger.samples)

    @property
    def num_bad_samples(self) -> int:
        """How many they are, also where not everything is kept of each."""
        return sum(map(len, self._ledgers.values()))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the samples found bad, by split."""
        return {split: ledger.state_dict() for split, ledger in self._ledgers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know of the bad samples of a checkpoint: they count, and are not logged again.

        Raises:
            LoaderError: They are more than tolerated now.
        """
        for split, known in state.items():
            self._ledgers[split].load_state_dict(known)

    @property
    def record(self) -> dict[str, Any]:
        """What decides the batches, for checkpoints and results."""
        return {
            "seed": self.config.seed,
            **self.order.record,
            "augment": asdict(self.config.augment),
            "decoding": self.decoding,
        }

    @property
    def decoding(self) -> dict[str, Any]:
        """What decides the pixels, for checkpoints and results."""
        scaled = self.decoder.name == "turbojpeg" and not self.config.exact_decode
        device = self.device.type if self.decoder.name == "dali" else "cpu"
        found = {
            "decoder": self.decoder.name,
            "device": device,
            "filter": "antialiased bilinear",
            "scaled": scaled,
        }
        if device == "cuda":
            found["engines"] = not self.config.deterministic
        return found

    def expect(self, stages: Sequence[TrainingStage]) -> None:
        """Tell what training is going to read, stage by stage."""
        if self.config.fill_ahead:
            self._caches.expect(stages)

    @contextmanager
    def train(
        self, *, size: int, batch_size: int, start: int, num_steps: int, sets: Sets = ()
    ) -> Iterator[Iterator[Batch]]:
        """See `JointLoader.train`; this rank's share of each global batch.

        Raises:
            LoaderError: There is no such set, or no training sample in these.
        """
        subset = self.training.subset(sets)
        bank, finish = self.backgrounds(size), self._finisher()
        share = rank_share(batch_size, self._world_size)
        firsts = itertools.count(start + self._rank * share, batch_size)

        def finished(job: tuple[int, DecodedBatch]) -> _Finished:
            first, pixels = job
            consumed = np.arange(first, first + len(pixels.numbers))
            epochs = subset.first_epoch + consumed // subset.num_samples
            return finish(self.training, bank, pixels, epochs), pixels.bad

        with self._training_stream(
            subset, size=size, batch_size=batch_size, start=start, num_steps=num_steps
        ) as (decoded, stack):
            yield self._handed_out(
                self.training, zip(firsts, decoded, strict=False), finished, stack
            )

    @contextmanager
    def train_pixels(
        self, *, size: int, batch_size: int, start: int, num_steps: int, sets: Sets = ()
    ) -> Iterator[Iterator[DecodedBatch]]:
        """`train` before the last hop: uint8, each batch valid until the next is asked for."""
        subset = self.training.subset(sets)
        with self._training_stream(
            subset, size=size, batch_size=batch_size, start=start, num_steps=num_steps
        ) as (decoded, _):
            yield (self._accounted(self.training, pixels, pixels.bad) for pixels in decoded)

    @contextmanager
    def _training_stream(
        self, subset: Subset, *, size: int, batch_size: int, start: int, num_steps: int
    ) -> Iterator[tuple[Iterator[DecodedBatch], ExitStack]]:
        """Decoded training batches, and what ends with them."""
        order = self._order(subset) if subset.sets else self.order

        def slices() -> Iterator[Numbers]:
            return order.batches(
                batch_size=batch_size,
                start=start,
                num_steps=num_steps,
                rank=self._rank,
                world_size=self._world_size,
            )

        self.sets.check_room(order, subset.sets)
        requests = (Request(numbers=numbers, num_counted=len(numbers)) for numbers in slices())
        exact = self.config.exact_decode
        passes = num_steps * batch_size / subset.num_samples
        share = rank_share(batch_size, self._world_size)
        near = int(order.sample_numbers(start, 1)[0])
        stage = Stage(source=self.training, size=size, batch_size=share, exact=exact, near=near)
        self._tuned[size] = self._tuner.settings_for(stage, samples=num_steps * share)
        with self._stream(
            self.training, requests, slices(), size, exact=exact, passes=passes, subset=subset
        ) as stream:
            yield stream

    @contextmanager
    def validate(self, *, size: int, batch_size: int) -> Iterator[Iterator[Batch]]:
        """See `BatchLoader.validate`; this rank's share of each batch."""
        bank, finish = self.backgrounds(size), self._finisher()
        requests = self._validation_requests(batch_size)
        upcoming = (request.numbers for request in self._validation_requests(batch_size))

        def finished(pixels: DecodedBatch) -> _Finished:
            return finish(self.validation, bank, pixels), pixels.bad

        with self._stream(self.validation, requests, upcoming, size, exact=True) as (
            decoded,
            stack,
        ):
            yield self._handed_out(self.validation, decoded, finished, stack)

    def backgrounds(self, size: int) -> BackgroundBank | None:
        """The set's backgrounds at a size, on the device; None if it has none."""
        if size not in self._banks:
            self._banks[size] = BackgroundBank.open(
                self.sets.sets, self.decoder, size=size, device=self.device
            )
        return self._banks[size]

    def validation_key(self, number: int) -> str:
        """Name of a validation sample in its shard, safe as a file name; else its number."""
        return self.validation.key(number) or f"{number:06d}"

    def close(self) -> None:
        """End what is still streaming, and close the shards."""
        self.sets.interrupt()
        while self._streams:
            self._streams[-1].close()
        self._caches.close()
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
        self,
        source: SampleSource,
        requests: Iterable[Request],
        upcoming: Iterable[Numbers],
        size: int,
        *,
        exact: bool,
        passes: float | None = None,
        subset: Subset | None = None,
    ) -> Iterator[tuple[Iterator[DecodedBatch], ExitStack]]:
        """Decoded batches, nothing of them accounted for, and what ends with them."""
        settings = self._tuned.get(size, self.config.settings)
        subset = subset or source.subset()
        to_read = (self._caches.not_held(source, subset, size, numbers) for numbers in upcoming)
        # beside those decoded ahead: one handed out, one about to be taken, one to spare
        under_way = settings.prefetch_batches + 3
        look_ahead = source.look_ahead(to_read, num_under_way=under_way, sets=subset.sets)
        if look_ahead is not None:
            requests = look_ahead.over(requests)
        stream = self._caches.stream(
            settings.applied(self.decoder),
            source,
            requests,
            subset=subset,
            size=size,
            exact=exact,
            passes=passes,
        )
        with ExitStack() as stack:
            stack.callback(give_back_holes)
            decoded = stack.enter_context(stream)
            if look_ahead is not None:
                stack.enter_context(look_ahead)  # left first: the stream waits for what it reads
            self._streams.append(stack)
            stack.callback(self._streams.remove, stack)
            yield decoded, stack

    def _handed_out(
        self,
        source: SampleSource,
        jobs: Iterator[T],
        finished: Callable[[T], _Finished],
        stack: ExitStack,
    ) -> Iterator[Batch]:
        """Batches, each finished while the consumer works on the one before it.

        A GPU does that by itself: what it is told to do it does later. Where shards are fetched, a
        batch must not wait for the pixels of the one after it, which may be long in coming.
        """
        made: Iterator[_Finished] = map(finished, jobs)
        if self.device.type == "cpu" and source.is_here:
            made = stack.enter_context(closing(one_ahead(jobs, finished)))
        return (self._accounted(source, batch, bad) for batch, bad in made)

    def _cache_settings(self, tell: TellPlan | None) -> CacheSettings:
        return CacheSettings(
            wish=self.config.cache,
            folder=self.config.cache_dir,
            device=self.device,
            ranks=ranks_here(self._world_size),
            threads=self.config.num_threads,
            ahead=self.config.settings.prefetch_batches,
            identity={
                "set": self.manifest.fingerprint,
                "decoding": self.decoding,
                "packages": installed_decoders(),
            },
            tell=tell,
        )

    def _validation_requests(self, batch_size: int) -> Iterator[Request]:
        share = rank_share(batch_size, self._world_size)
        num = self.num_validation_samples
        for first in range(self._rank * share, self._rank * share + num, batch_size):
            numbers = np.arange(first, first + share)
            counted = min(max(num - first, 0), share)
            yield Request(numbers=numbers % num, num_counted=counted)

    def _accounted(self, source: SampleSource, batch: T, bad: tuple[BadSample, ...]) -> T:
        self._ledgers[source.split].record(bad)
        return batch

    def _finisher(self) -> Finisher:
        config = self.config
        return Finisher(self.normalisation, config.augment, seed=config.seed, device=self.device)


def open_decoder(config: LoaderConfig, device: torch.device) -> Decoder:
    """The decoder that the configuration names, or that suits the device.

    Raises:
        LoaderError: DALI is asked for and not installed.
    """
    has_dali = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali")
    if config.decoder == "dali" and not has_dali:
        msg = "DALI is not installed; install nvidia-dali-cuda120, or use the turbojpeg decoder"
        raise LoaderError(msg)
    settings = config.settings
    if config.decoder == "dali" or (
        config.decoder == "auto" and device.type == "cuda" and has_dali
    ):
        # the only import of the module that imports DALI: it takes seconds, and not all have it
        from pipeline.dali import DaliDecoder

        return DaliDecoder(
            device=device,
            threads=settings.threads,
            prefetch_batches=settings.prefetch_batches,
            hw_decoder_load=settings.hw_decoder_load,
        )
    return TurboJpegDecoder(
        threads=settings.threads,
        prefetch_batches=settings.prefetch_batches,
        pin_memory=device.type == "cuda",
    )
