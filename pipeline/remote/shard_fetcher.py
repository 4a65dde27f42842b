"""Shards of remote sets, at hand when they are read: fetched ahead of the stream, in its order.

A shard is kept open, and so in its folder, while a batch needs it that is under way or foreseen.
What is foreseen is fetched only into room that nothing needed takes; what is read now may also take
the room of what is foreseen last, and in the end of what another stream has under way and does not
read (training, while it validates). So the folder never holds more than it may, and no shard leaves
it under a read.
"""

import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.error import LoaderError
from pipeline.opening import hash_fault
from pipeline.remote.fetched_files import FetchedFiles, NoRoomError
from pipeline.remote.folder import FetchError, RemoteConfig, RemoteFolder
from shards.manifest import FileRecord

_POLL_S = 0.05

Fetching = Future[None]


@dataclass(kw_only=True, eq=False)
class RemoteShard:
    """One shard that has to be fetched. What changes is the fetcher's, under its lock."""

    folder: RemoteFolder
    """Where it comes from."""

    path: Path
    """Where it lies once it is fetched."""

    record: FileRecord
    """What it must be."""

    descriptor: int | None = field(default=None, init=False)
    """Open while it is at hand and needed."""

    failure: str = field(default="", init=False)
    """Why it cannot be had; kept while it is needed, so that not every sample tries again."""

    fetching: Fetching | None = field(default=None, init=False)
    """Done when this try to have it is over, however it ended."""

    readers: int = field(default=0, init=False)
    """Reads under way."""

    under_way: int = field(default=0, init=False)
    """Batches under way that need it."""

    foreseen: int = field(default=0, init=False)
    """Batches that will need it, with those under way."""

    turn: int = field(default=0, init=False)
    """When it was foreseen: what has a lower one is needed sooner."""

    is_abandoned: bool = field(default=False, init=False)
    """Its stream was closed while somebody waited for it."""

    @property
    def is_urgent(self) -> bool:
        """It is read, or may be at any moment."""
        return self.readers > 0 or self.under_way > 0

    @property
    def is_needed(self) -> bool:
        """It must stay, or come."""
        return self.is_urgent or self.foreseen > 0


class ShardFetcher:
    """Fetches shards by threads of its own, the most urgent first.

    Args:
        files: Where they are kept.
        config: How many at a time, and how patiently.
    """

    def __init__(self, files: FetchedFiles, config: RemoteConfig) -> None:
        self.files = files
        self._config = config
        self._lock = threading.Lock()
        self._wanted: list[RemoteShard] = []
        self._at_hand: set[RemoteShard] = set()
        self._turns = 0
        self._checked: set[tuple[Path, int]] = set()
        self._is_closed = False
        self._pool = ThreadPoolExecutor(config.fetches, thread_name_prefix="maskdepth-fetch")

    @contextmanager
    def held(self, shards: Collection[RemoteShard]) -> Iterator[None]:
        """Wait for shards: inside, each has a descriptor or a failure.

        Raises:
            LoaderError: There is no room for one, or its folder cannot be written.
        """
        with self._lock:
            for shard in shards:
                shard.readers += 1
        try:
            while waiting := self._missing(shards):
                for fetching in waiting:
                    fetching.result()
            yield
        finally:
            with self._lock:
                for shard in shards:
                    shard.readers -= 1
                    self._let_go(shard)

    def foresee(self, shards: Iterable[RemoteShard]) -> None:
        """A batch will need them: fetch them when there is room."""
        with self._lock:
            for shard in shards:
                if not shard.foreseen:
                    shard.turn = self._turns
                    self._turns += 1
                shard.foreseen += 1
                self._want(shard)

    def remind(self, shards: Iterable[RemoteShard]) -> None:
        """They are still foreseen; there may be room by now."""
        with self._lock:
            for shard in shards:
                self._want(shard)

    def begin(self, shards: Iterable[RemoteShard]) -> None:
        """A foreseen batch is under way."""
        with self._lock:
            for shard in shards:
                shard.under_way += 1
                self._want(shard)

    def finish(self, shards: Iterable[RemoteShard]) -> None:
        """A batch that was begun needs its shards no more."""
        with self._lock:
            for shard in shards:
                shard.under_way -= 1
                shard.foreseen -= 1
                self._let_go(shard)

    def abandon(self, shards: Iterable[RemoteShard], *, begun: bool) -> None:
        """A stream was closed before this batch was finished: who waits for it, waits no more."""
        with self._lock:
            for shard in shards:
                shard.under_way -= begun
                shard.foreseen -= 1
                shard.is_abandoned = shard.foreseen == 0
                self._let_go(shard)

    def interrupt(self) -> None:
        """Fetch no more: what is not at hand cannot be had from now on."""
        self._is_closed = True

    def close(self) -> None:
        """End all fetching; nobody may be reading."""
        self.interrupt()
        with self._lock:
            for shard in [*self._wanted]:
                self._drop(shard)
        self._pool.shutdown()
        for shard in self._at_hand:
            assert shard.descriptor is not None
            os.close(shard.descriptor)
            shard.descriptor = None
        self._at_hand.clear()

    def _missing(self, shards: Iterable[RemoteShard]) -> list[Fetching]:
        with self._lock:
            return [fetching for shard in shards if (fetching := self._want(shard))]

    def _want(self, shard: RemoteShard) -> Fetching | None:
        """What to wait for until the shard is at hand; None: it is, or cannot be."""
        if shard.descriptor is not None or shard.failure:
            return None
        if shard.fetching is None:
            shard.fetching = Future()
            self._wanted.append(shard)
            self._pool.submit(self._fetch_next)
        return shard.fetching

    def _drop(self, shard: RemoteShard) -> None:
        """Not to be fetched any more."""
        self._wanted.remove(shard)
        assert shard.fetching is not None
        shard.fetching.set_result(None)
        shard.fetching = None

    def _let_go(self, shard: RemoteShard) -> None:
        if shard.is_needed:
            return
        shard.failure, shard.is_abandoned = "", False
        if shard in self._wanted:
            self._drop(shard)
        if shard.descriptor is not None:
            self._put_back(shard)

    def _put_back(self, shard: RemoteShard) -> None:
        """Leave a shard to those who look for room."""
        assert shard.descriptor is not None
        os.utime(shard.descriptor)
        os.close(shard.descriptor)
        shard.descriptor = None
        self._at_hand.remove(shard)

    def _fetch_next(self) -> None:
        with self._lock:
            if not self._wanted:
                return
            shard = min(self._wanted, key=lambda shard: (not shard.is_urgent, shard.turn))
            self._wanted.remove(shard)
        descriptor, failure = None, ""
        error: BaseException | None = None
        try:
            descriptor = self._obtain(shard)
        except FetchError as reason:
            failure = str(reason)
        except OSError as reason:
            msg = (
                f"{shard.path.parent.parent} cannot keep {shard.path.name} ({reason.strerror}); "
                "make room there, or choose another --remote-cache-dir"
            )
            error = LoaderError(msg)
        except BaseException as reason:  # whatever it is, whoever waits must know
            error = reason
        with self._lock:
            fetching, shard.fetching = shard.fetching, None
            shard.descriptor, shard.failure = descriptor, failure
            if descriptor is not None:
                self._at_hand.add(shard)
            self._let_go(shard)
        assert fetching is not None
        if error is not None:
            fetching.set_exception(error)
        else:
            fetching.set_result(None)

    def _obtain(self, shard: RemoteShard) -> int | None:
        """A descriptor of the shard; None if it can wait and there is no room for it now."""
        give_up_at = time.monotonic() + self._config.timeout_s
        while True:
            if (descriptor := self._open(shard)) is not None:
                return descriptor
            if self._is_unwanted(shard):
                msg = "nobody waits for it any more"
                raise FetchError(msg)
            try:
                if self._fetch(shard):
                    continue
            except NoRoomError as error:
                if not shard.is_urgent:
                    return None
                if self._free_the_last():
                    continue
                if time.monotonic() > give_up_at:
                    raise self._too_small(shard, error) from None
            time.sleep(_POLL_S)  # another process fetches it, or holds what could make room

    def _open(self, shard: RemoteShard) -> int | None:
        descriptor = self.files.open(shard.path, shard.record)
        if descriptor is None:
            return None
        known = (shard.path, os.fstat(descriptor).st_ino)
        if known not in self._checked:  # left by a run before this one
            if hash_fault(shard.path, shard.record):
                os.close(descriptor)
                self.files.remove(shard.path)
                return None
            self._checked.add(known)
        return descriptor

    def _fetch(self, shard: RemoteShard) -> bool:
        """Whether it was fetched; else another process does."""
        with self.files.arriving(shard.path, shard.record) as part:
            if part is None:
                return False
            shard.folder.fetch(
                shard.path.name, part, shard.record, cancelled=lambda: self._is_unwanted(shard)
            )
            self._checked.add((shard.path, part.stat().st_ino))
        return True

    def _is_unwanted(self, shard: RemoteShard) -> bool:
        return self._is_closed or shard.is_abandoned or not shard.is_needed

    def _free_the_last(self) -> bool:
        """Put back, of what is not read, what is needed last; whether there was any."""
        with self._lock:
            spare = [shard for shard in self._at_hand if not shard.readers]
            if spare:
                self._put_back(max(spare, key=lambda shard: (not shard.under_way, shard.turn)))
            return bool(spare)

    def _too_small(self, shard: RemoteShard, error: NoRoomError) -> LoaderError:
        return LoaderError(
            f"there is no room for {shard.path.name} ({shard.record.bytes:,} bytes): {error}; "
            "give a larger --remote-cache-gb, or a --remote-cache-dir that fewer processes share"
        )
