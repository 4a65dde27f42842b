"""The shards of a split as open files: those on this machine always, the others when needed."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from pipeline.error import LoaderError
from pipeline.look_ahead import LookAhead
from pipeline.remote.shard_fetcher import RemoteShard, ShardFetcher

ABSENT = -1
"""Instead of a descriptor; reading from it is an `OSError`."""

Descriptors = Mapping[int, int]


class ShardFiles:
    """Descriptors by position of the shard. Any number of threads may ask at once.

    Args:
        shards: Where each lies, or what fetches it.
        fetcher: Fetches them; None if there are none to fetch.

    Raises:
        LoaderError: A file cannot be opened.
    """

    def __init__(self, shards: Sequence[Path | RemoteShard], fetcher: ShardFetcher | None) -> None:
        self._fetcher = fetcher
        self._remote = {i: s for i, s in enumerate(shards) if isinstance(s, RemoteShard)}
        self._descriptors: dict[int, int] = {}
        try:
            for i, path in enumerate(shards):
                if isinstance(path, Path):
                    self._descriptors[i] = os.open(path, os.O_RDONLY)
        except OSError as error:
            self.close()
            msg = (
                f"{path} cannot be opened ({error.strerror}); where too many files are "
                "open raise `ulimit -n`, or convert with more samples per shard"
            )
            raise LoaderError(msg) from None
        self._always = nullcontext(self._descriptors)

    def held(self, shards: Iterable[int]) -> AbstractContextManager[Descriptors]:
        """Descriptors of some shards, good until this is left; `ABSENT` where one cannot be had.

        Raises:
            LoaderError: One cannot be kept here.
        """
        return self._held(shards) if self._remote else self._always

    def failure(self, shard: int) -> str:
        """Why a shard cannot be had; asked while it is held."""
        return self._remote[shard].failure if shard in self._remote else ""

    @property
    def are_here(self) -> bool:
        """No shard has to be fetched."""
        return self._fetcher is None or not self._remote

    def look_ahead(
        self, upcoming: Iterable[Iterable[int]], *, among: Iterable[int], num_under_way: int
    ) -> LookAhead | None:
        """Follows a stream of batches; None if there is nothing to fetch.

        Args:
            upcoming: The shards of each batch.
            among: All shards that may come.
            num_under_way: Batches that may be read at the same time.
        """
        num_shards = sum(shard in self._remote for shard in among)
        if self.are_here or not num_shards:
            return None
        assert self._fetcher is not None
        return LookAhead(
            self._fetcher,
            ([self._remote[i] for i in shards if i in self._remote] for shards in upcoming),
            num_shards=num_shards,
            num_under_way=num_under_way,
        )

    def close(self) -> None:
        """Close what was opened here; the fetcher closes the rest."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    @contextmanager
    def _held(self, shards: Iterable[int]) -> Iterator[Descriptors]:
        assert self._fetcher is not None
        remote = {i: self._remote[i] for i in set(shards) if i in self._remote}
        with self._fetcher.held(remote.values()):
            fetched = {
                i: ABSENT if shard.descriptor is None else shard.descriptor
                for i, shard in remote.items()
            }
            yield self._descriptors | fetched if self._descriptors else fetched
