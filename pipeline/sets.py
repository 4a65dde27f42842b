"""Several sets streamed as one: opened, held against each other, and described by one manifest.

What is asked of a set (statistics, backgrounds, the mean depth image, a fingerprint) the manifest
of all of them answers as that of one does, so nobody behind it needs to know how many there are.
"""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.batch import Sets
from pipeline.error import LoaderError
from pipeline.joint_manifest import joint_manifest
from pipeline.opening import OpenedSet, open_set
from pipeline.order import SampleOrder
from pipeline.remote.folder import RemoteConfig, is_remote
from pipeline.remote.remote_set import RemoteSets
from pipeline.remote.shard_fetcher import ShardFetcher
from pipeline.source import SampleSource
from pipeline.subset import SubsetOrder
from pipeline.windowed import WindowedOrder
from shards.manifest import Manifest

Location = Path | str
"""A folder, or a URL."""

_UNSAFE = re.compile(r"[^\w-]+", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedSets:
    """One set or several, checked; fetches what is not on this machine until it is left."""

    sets: tuple[OpenedSet, ...]

    manifest: Manifest
    """The set's own, or one for all of them together."""

    fetcher: ShardFetcher | None
    """Fetches the shards of remote sets."""

    @property
    def told(self) -> str:
        """What to call them in a message."""
        return " and ".join(opened.location for opened in self.sets)

    @property
    def to_verify(self) -> str:
        """What `maskdepth verify` is to be run on: any of several is named with the fault."""
        return self.sets[0].location if len(self.sets) == 1 else "SET"

    def check_room(self, order: SampleOrder, sets: Sets = ()) -> None:
        """Refuse to fetch shards again and again: what the order draws from at a time must stay.

        Args:
            order: Of training.
            sets: Those whose samples it orders.

        Raises:
            LoaderError: There is not enough room for it.
        """
        if self.fetcher is None:
            return
        if isinstance(order, SubsetOrder):
            order = order.places
        remote = [
            opened
            for place, opened in enumerate(self.sets, 1)
            if opened.remote is not None and (not sets or place in sets)
        ]
        sizes = sorted(
            opened.manifest.files[f"{shard.name}.tar"].bytes
            for opened in remote
            for shard in opened.manifest.split_shards("train")
        )
        drawn, advice = "the global order draws from all", "--order windowed"
        if isinstance(order, WindowedOrder):
            sizes = sizes[-order.window_shards :]
            drawn = f"the windowed order draws from {order.window_shards}"
            advice = "fewer --window-shards"
        room = self.fetcher.files.max_bytes
        if sum(sizes) > room:
            msg = (
                f"{drawn} shards of {self.told} at a time, {sum(sizes) / 1e9:.3g} GB, and "
                f"--remote-cache-gb is {room / 1e9:.3g}; give a larger one, or {advice}"
            )
            raise LoaderError(msg)

    def source(self, split: str) -> SampleSource:
        """The samples of a split."""
        return SampleSource(self.sets, split, self.fetcher)

    @property
    def record(self) -> tuple[str, ...]:
        """Name, fingerprint and repeats of each, for a checkpoint to tell what it learned from."""
        return tuple(
            f"{_name(opened)} {opened.manifest.fingerprint[:12]} x {opened.repeats}"
            for opened in self.sets
        )

    def interrupt(self) -> None:
        """Let nobody wait for what is being fetched: what is read from now on may be bad."""
        if self.fetcher is not None:
            self.fetcher.interrupt()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.fetcher is not None:
            self.fetcher.close()


def open_sets(
    locations: Sequence[Location],
    *,
    repeats: Sequence[int] = (),
    verify_hashes: bool = False,
    remote: RemoteConfig | None = None,
) -> OpenedSets:
    """Open sets that are to be streamed as one.

    Args:
        locations: Where they lie, in the order in which they are numbered.
        repeats: How often an epoch of training holds each; once unless given.
        verify_hashes: Compare the SHA-256 of every file at once; a remote set's files are hashed
            when they arrive, and not before.
        remote: How those at URLs are fetched.

    Raises:
        ShardError: There is no sound manifest.
        LoaderError: Files are missing or differ, or the sets cannot be streamed as one.
    """
    times = tuple(repeats) or (1,) * len(locations)
    check_repeats(times, len(locations))
    with ExitStack() as stack:
        fetching: RemoteSets | None = None
        found: list[OpenedSet] = []
        for location in locations:
            if is_remote(str(location)):
                if fetching is None:
                    fetching = RemoteSets(remote or RemoteConfig())
                    stack.callback(fetching.close)
                found.append(fetching.open(str(location)))
            else:
                found.append(open_set(Path(location), verify_hashes=verify_hashes))
        sets = tuple(
            replace(opened, repeats=number, label=label)
            for opened, number, label in zip(found, times, _labels(found), strict=True)
        )
        _check_together(sets)
        stack.pop_all()
    fetcher = fetching.fetcher if fetching is not None else None
    return OpenedSets(sets=sets, manifest=joint_manifest(sets), fetcher=fetcher)


def check_repeats(repeats: Sequence[int], num_sets: int) -> None:
    """Refuse repeats that do not fit the sets.

    Raises:
        LoaderError: There are not as many, or one is not positive.
    """
    if not num_sets:
        msg = "no set is given; name at least one with --data"
        raise LoaderError(msg)
    if len(repeats) != num_sets or min(repeats) < 1:
        told = ",".join(map(str, repeats))
        msg = f"--repeat {told} does not fit {num_sets} sets; give a number of at least 1 for each"
        raise LoaderError(msg)


def _name(opened: OpenedSet) -> str:
    return opened.location.rstrip("/").rpartition("/")[2] or opened.location


def _labels(sets: Sequence[OpenedSet]) -> list[str]:
    """A name of its own for each of several sets; none for a single one."""
    if len(sets) == 1:
        return [""]
    names = [_UNSAFE.sub("-", _name(opened)).strip("-") or "set" for opened in sets]
    common = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name}-{i}" if name in common else name for i, name in enumerate(names, 1)]


def _check_together(sets: Sequence[OpenedSet]) -> None:
    """Refuse sets that would be streamed wrongly as one.

    Raises:
        LoaderError: One is given twice, some have backgrounds and some not, or they mean different
            things by depth.
    """
    first, *others = sets
    for i, other in enumerate(others, 1):
        for known in sets[:i]:
            if other.manifest.fingerprint == known.manifest.fingerprint:
                msg = f"{known.location} and {other.location} are the same set; use --repeat"
                raise LoaderError(msg)
        if bool(other.manifest.backgrounds) != bool(first.manifest.backgrounds):
            without, with_ = sorted((first, other), key=lambda s: bool(s.manifest.backgrounds))
            msg = (
                f"{without.location} has no backgrounds, and {with_.location} has; convert it "
                "again with --backgrounds estimate, or leave one of them out"
            )
            raise LoaderError(msg)
        for what in ("polarity", "scaling"):
            here, there = other.manifest.depth[what], first.manifest.depth[what]
            if here != there:
                msg = (
                    f"depth is {here} in {other.location} and {there} in {first.location}; "
                    f"leave one of them out, or convert it again with --depth-{what} if it is wrong"
                )
                raise LoaderError(msg)
