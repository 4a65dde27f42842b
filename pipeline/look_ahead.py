"""What a stream of batches will need next, told to who fetches it.

The order of training is a pure function, so the shards of the batches to come are known as soon as
anybody asks. The look-ahead walks some way before the stream: as far as the shards between the
oldest batch under way and the one foreseen last fit in three quarters of the room. The rest is
left to what nobody foresees here: validation in the middle of training, another process.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from pipeline.error import LoaderError
from pipeline.remote.shard_fetcher import RemoteShard, ShardFetcher

_SHARE_FORESEEN = 0.75
_STEPS_AT_ONCE = 16
"""Batches foreseen more, at most, with each that begins: to look far at once would take long."""

_FURTHEST = 1 << 14
"""Batches foreseen at most."""

Batch = TypeVar("Batch")
Shards = Collection[RemoteShard]


class LookAhead:
    """Follows one stream. Leave it before the stream's threads are waited for.

    Args:
        fetcher: Told what comes.
        upcoming: The shards of each batch, in the stream's order.
        num_shards: How many shards there are in all.
        num_under_way: Batches that may be read at the same time.
    """

    def __init__(
        self,
        fetcher: ShardFetcher,
        upcoming: Iterable[Shards],
        *,
        num_shards: int,
        num_under_way: int,
    ) -> None:
        self._fetcher = fetcher
        self._upcoming = iter(upcoming)
        self._num_shards, self._num_under_way = num_shards, num_under_way
        self._begun: deque[Shards] = deque()
        self._foreseen: deque[Shards] = deque()
        self._needed: Counter[RemoteShard] = Counter()
        self._needed_bytes = 0

    def over(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; each counts as begun when it is taken.

        Raises:
            LoaderError: Those under way need more shards at once than there is room for.
        """
        self._foresee(self._num_under_way)
        for batch in batches:
            self._begin_next()
            yield batch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        while self._begun:
            self._fetcher.abandon(self._begun.popleft(), begun=True)
        while self._foreseen:
            self._fetcher.abandon(self._foreseen.popleft(), begun=False)

    def _begin_next(self) -> None:
        while len(self._begun) >= self._num_under_way:
            self._forget(self._begun.popleft())
        self._foresee(_STEPS_AT_ONCE)
        if self._foreseen:
            shards = self._foreseen.popleft()
            self._begun.append(shards)
            self._fetcher.begin(shards)
            self._check_room()
        if len(self._foreseen) > _STEPS_AT_ONCE:
            self._fetcher.remind(self._foreseen[_STEPS_AT_ONCE])

    def _foresee(self, num: int) -> None:
        for _ in range(num):
            if self._foreseen and not self._has_room():
                return
            if (shards := next(self._upcoming, None)) is None:
                return
            self._foreseen.append(shards)
            self._needed_bytes += sum(s.record.bytes for s in shards if s not in self._needed)
            self._needed.update(shards)
            self._fetcher.foresee(shards)

    def _forget(self, shards: Shards) -> None:
        self._needed.subtract(shards)
        for shard in shards:
            if not self._needed[shard]:
                del self._needed[shard]
                self._needed_bytes -= shard.record.bytes
        self._fetcher.finish(shards)

    def _has_room(self) -> bool:
        return (
            self._needed_bytes < _SHARE_FORESEEN * self._fetcher.files.max_bytes
            and len(self._needed) < self._num_shards
            and len(self._foreseen) < _FURTHEST
        )

    def _check_room(self) -> None:
        under_way = {shard for shards in self._begun for shard in shards}
        needed = sum(shard.record.bytes for shard in under_way)
        if needed > self._fetcher.files.max_bytes:
            msg = (
                f"the {len(self._begun)} batches under way need {len(under_way)} shards at once, "
                f"{needed / 1e9:.3g} GB, and --remote-cache-gb is "
                f"{self._fetcher.files.max_bytes / 1e9:.3g}; give a larger one, "
                "smaller batches, or --order windowed"
            )
            raise LoaderError(msg)
