"""Decoded samples kept between passes: on the device, in host memory, in a file, or not at all.

The caches of one loader: which there are, where they lie, and when they make room. A cache belongs
to a split or some of its sets, a size and a way of decoding. The first stream that asks for it
opens it, and fills it with what it decodes anyway; it stays for the next stream, and goes when
training moves on to another size or other sets.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from pipeline.batch import Sets
from pipeline.cache.cache_file import Identity, bytes_on_disk, cache_path, open_file_table
from pipeline.cache.cached_stream import CachedStream
from pipeline.cache.fill_ahead import Filler
from pipeline.cache.free_memory import measure_room
from pipeline.cache.gather import gather
from pipeline.cache.memory_plan import MemoryPlan, Need, Room, gigabytes, plan_cache
from pipeline.cache.sample_table import DeviceTable, HostTable, Numbers, SampleCache, memory_rows
from pipeline.decoder import DecodedBatch, Decoder, Request
from pipeline.error import LoaderError
from pipeline.source import SampleSource
from pipeline.subset import Subset
from pipeline.user_folder import user_cache_folder

TrainingStage = tuple[int, float, Sets]
"""Size, epochs and sets of a stage of training."""

TellPlan = Callable[[MemoryPlan], None]
"""Takes a plan before anything is filled."""

_DECODING_PACKAGES = ("simplejpeg", "torch", "nvidia-dali-cuda120", "nvidia-dali-cuda130")
"""Another version of these may give other pixels, and a file outlives an installation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheSettings:
    """What all caches of a loader have in common."""

    wish: str
    """One of `CHOICES`."""

    folder: Path | None
    """Where files lie; None: `auto` makes none, and `file` takes the user's cache folder."""

    device: torch.device
    """Where batches go."""

    ranks: int
    """Processes on this machine that share its memory."""

    threads: int
    """Threads that gather."""

    ahead: int
    """Batches under way while the consumer holds one."""

    identity: Identity
    """The set's fingerprint, and what else decides the pixels."""

    tell: TellPlan | None = None
    """Told each plan."""

    @property
    def file_folder(self) -> Path | None:
        """Where files lie, if there may be any."""
        if self.folder is None and self.wish == "file":
            return user_cache_folder()
        return self.folder


def installed_decoders() -> dict[str, str]:
    """Versions of the packages that decode and resize."""
    found = {}
    for name in _DECODING_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(kw_only=True)
class _Entry:
    """An open cache, or None where streaming is better."""

    cache: SampleCache | None
    num_users: int = field(default=0)

    def is_filled(self) -> bool:
        """All that will ever be in it is."""
        return self.cache is None or self.cache.is_filled


class _Key(NamedTuple):
    """Which samples a cache keeps, and at which size."""

    split: str
    size: int
    sets: Sets


class Caches:
    """All caches of a loader; see the module. One thread opens streams."""

    def __init__(self, settings: CacheSettings) -> None:
        self._settings = settings
        self._entries: dict[_Key, _Entry] = {}
        self._training: _Key | None = None
        self._passes = 1.0
        self._stages: Sequence[TrainingStage] = ()
        self._filler: Filler | None = None

    def expect(self, stages: Sequence[TrainingStage]) -> None:
        """Fill each of these training stages' caches while the one before it trains.

        Only where there is room for both, and only what the stage before leaves of the machine.
        """
        self._stages = stages

    @contextmanager
    def stream(
        self,
        decoder: Decoder,
        source: SampleSource,
        requests: Iterable[Request],
        *,
        subset: Subset,
        size: int,
        exact: bool,
        passes: float | None = None,
    ) -> Iterator[Iterator[DecodedBatch]]:
        """`Decoder.stream`, with what is held gathered and what is not kept.

        Args:
            decoder: Decodes what is not held.
            source: The split.
            requests: The batches.
            subset: The samples of the split that they are of.
            size: Side in pixels.
            exact: See `Decoder.stream`.
            passes: How often training is about to read each sample; None: validation, once per
                pass of training.
        """
        entry = self._entry(source, subset, size=size, exact=exact, passes=passes)
        entry.num_users += 1
        if passes is not None:
            self._fill_next(decoder, source, _Key(source.split, size, subset.sets), exact=exact)
            if entry.cache is not None and isinstance(entry.cache.table, HostTable):
                gather.expect(passes * entry.cache.table.rows.nbytes)
        try:
            with ExitStack() as stack:
                if entry.cache is None:
                    yield stack.enter_context(
                        decoder.stream(source, requests, size=size, exact=exact)
                    )
                else:
                    stream = CachedStream(
                        entry.cache,
                        decoder,
                        source,
                        exact=exact,
                        device=self._settings.device,
                        threads=self._settings.threads,
                        ahead=self._settings.ahead,
                    )
                    yield stack.enter_context(closing(stream.batches(requests)))
        finally:
            entry.num_users -= 1

    def not_held(
        self, source: SampleSource, subset: Subset, size: int, numbers: Numbers
    ) -> Numbers:
        """Of sample numbers, those that a stream would have to decode."""
        entry = self._entries.get(_Key(source.split, size, subset.sets))
        if entry is None or entry.cache is None:
            return numbers
        return numbers[~entry.cache.table.holds(entry.cache.rows(numbers))]

    def plan(self, need: Need, identity: Identity | None = None) -> MemoryPlan:
        """What would be kept where, as of now.

        Args:
            need: What there is to keep.
            identity: Of the cache file, whose place on the disk counts as free if it exists.

        Raises:
            LoaderError: The tier that was asked for does not exist here.
        """
        wish, device = self._settings.wish, self._settings.device
        if wish == "device" and device.type != "cuda":
            msg = (
                f"cache is 'device', and the device is the {device.type.upper()}; use --cache host"
            )
            raise LoaderError(msg)
        return plan_cache(wish, need, self._room(identity))

    def close(self) -> None:
        """Let go of all memory and files; no stream may be open."""
        self._stop_filling()
        for entry in self._entries.values():
            if entry.cache is not None:
                entry.cache.table.close()
        self._entries.clear()

    def _entry(
        self,
        source: SampleSource,
        subset: Subset,
        *,
        size: int,
        exact: bool,
        passes: float | None,
    ) -> _Entry:
        key = _Key(source.split, size, subset.sets)
        if passes is not None:
            self._passes = passes
            self._make_room(key)
        entry = self._entries.get(key)
        # what no pass read again may be read again now
        if entry is None or (entry.cache is None and not entry.num_users):
            what = "training" if passes is not None else "validation"
            need = Need(samples=subset.num_samples, size=size, passes=self._passes, what=what)
            plan, identity = self._planned(key, need, exact=exact)
            if passes is not None or plan.tier != "off":
                self._tell(plan)
            entry = self._entries[key] = _Entry(cache=self._open(plan, identity, subset))
        return entry

    def _fill_next(
        self, decoder: Decoder, source: SampleSource, present: "_Key", *, exact: bool
    ) -> None:
        """Begin with the cache of the stage after this one, if all of it fits beside."""
        keys = [_Key(source.split, size, sets) for size, _, sets in self._stages]
        if present not in keys[:-1]:
            return
        self._stages = self._stages[keys.index(present) :]
        size, passes, sets = self._stages[1]
        key = _Key(source.split, size, sets)
        if key in self._entries:
            return
        subset = source.subset(sets)
        need = Need(samples=subset.num_samples, size=size, passes=passes)
        plan, identity = self._planned(key, need, exact=exact)
        if plan.num_cached < need.samples:
            return
        self._tell(plan)
        cache = self._open(plan, identity, subset)
        assert cache is not None
        self._entries[key] = _Entry(cache=cache)
        self._filler = Filler(
            cache,
            # as it decodes for training, or the pixels would be others
            cast("Decoder", replace(cast("Any", decoder), threads=1, prefetch_batches=1)),
            source,
            exact=exact,
            device=self._settings.device,
            may_begin=self._entries[present].is_filled,
        )

    def _stop_filling(self) -> None:
        if self._filler is not None:
            self._filler.stop()
            self._filler = None

    def _make_room(self, present: "_Key") -> None:
        """Close the caches of other sizes and sets, where training moves on to these."""
        if present == self._training:
            return
        self._training = present
        self._stop_filling()
        for key, entry in [*self._entries.items()]:
            is_read = key.size == present.size and (
                key.split != present.split or key.sets == present.sets
            )
            if not is_read and not entry.num_users:
                if entry.cache is not None:
                    entry.cache.table.close()
                del self._entries[key]

    def _planned(self, key: "_Key", need: Need, *, exact: bool) -> tuple[MemoryPlan, Identity]:
        identity: Identity = {
            **self._settings.identity,
            "split": key.split,
            "size": need.size,
            "samples": need.samples,
            "exact": exact,
            **({"sets": key.sets} if key.sets else {}),
        }
        return self.plan(need, identity), identity

    def _tell(self, plan: MemoryPlan) -> None:
        if self._settings.tell is not None:
            self._settings.tell(plan)

    def _open(self, plan: MemoryPlan, identity: Identity, subset: Subset) -> SampleCache | None:
        if plan.tier == "off":
            return None
        return SampleCache(table=self._table(plan, identity), subset=subset)

    def _table(self, plan: MemoryPlan, identity: Identity) -> HostTable | DeviceTable:
        num, size, folder = plan.num_cached, plan.need.size, self._settings.file_folder
        if plan.tier == "file":
            assert folder is not None
            return open_file_table(folder, identity, num=num)
        try:
            if plan.tier == "device":
                return DeviceTable(num, size, self._settings.device)
            return HostTable(memory_rows(num, size), size)
        except (torch.OutOfMemoryError, OSError):
            msg = (
                f"the {plan.tier} has no longer the {gigabytes(plan.bytes)} that the cache at "
                f"{size} px needs; use --cache {'host' if plan.tier == 'device' else 'off'}"
            )
            raise LoaderError(msg) from None

    def _room(self, identity: Identity | None) -> Room:
        folder = self._settings.file_folder
        room = measure_room(self._settings.device, folder, ranks=self._settings.ranks)
        file = room.file
        if folder is not None and file is not None and identity is not None:
            file += bytes_on_disk(cache_path(folder, identity))
        return Room(device=room.device, host=room.host - self._promised(), file=file)

    def _promised(self) -> int:
        """Bytes of host memory that open caches will yet take."""
        return sum(
            table.rows.nbytes - table.num_held * table.rows.shape[1]
            for entry in self._entries.values()
            if entry.cache is not None and type(table := entry.cache.table) is HostTable
        )
