"""Which triplet goes where: the global order, the split and the shards, from names and a seed.

Everything is decided by sorting on a keyed hash, so it depends neither on the order of the
sources nor on the machine, and adding a triplet moves no other one to another split.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.collection import uncollected
from shards.error import ShardError
from shards.triplet import Triplet, natural

RULES = ("foreground", "background", "both", "random")
SPLITS = ("train", "val", "mixed")

Splits = npt.NDArray[np.int8]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedShard:
    """One shard to write."""

    name: str
    split: str
    triplets: Sequence[Triplet]
    counted: frozenset[int]
    """Positions of triplets that enter the statistics whatever the check."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything a conversion will write."""

    shards: Sequence[PlannedShard]
    foregrounds: tuple[str, ...]
    split: dict[str, Any]
    """The manifest's record: rule applied, what is held out, why it fell back."""


@uncollected()
def make_plan(
    triplets: Sequence[Triplet],
    *,
    rule: str,
    val: float,
    seed: int,
    samples_per_shard: int,
    statistics_samples: int,
) -> Plan:
    """Order, split and deal the triplets.

    Raises:
        ShardError: Two triplets have one key.
    """
    # columns, and numbers for what is permuted: objects in random order miss every cache
    columns = list(zip(*triplets, strict=True)) or [()] * len(Triplet._fields)
    keys, _, _, _, backgrounds, foregrounds, _ = columns
    order = _order(keys, seed)
    splits, record = _split(keys, foregrounds, backgrounds, rule, val, seed)
    splits = splits[order]
    wanted, ranks = min(statistics_samples, len(order)), np.arange(len(order))
    # evenly spread, so that no shard takes longer
    is_counted = ranks * wanted % max(1, len(order)) < wanted
    shards = []
    for number, split in enumerate(SPLITS):
        (of_split,) = np.nonzero(splits == number)
        for start in range(0, len(of_split), samples_per_shard):
            chosen = of_split[start : start + samples_per_shard]
            shard = PlannedShard(
                name=f"{split}-{start // samples_per_shard:06d}",
                split=split,
                triplets=[triplets[at] for at in order[chosen].tolist()],
                counted=frozenset(np.flatnonzero(is_counted[chosen]).tolist()),
            )
            shards.append(shard)
    known = {name for name in set(foregrounds) if name is not None}
    return Plan(shards=shards, foregrounds=tuple(sorted(known, key=natural)), split=record)


def _order(keys: Sequence[str], seed: int) -> Numbers:
    """Positions, sorted by the hash of the keys; equal hashes by the key itself.

    Raises:
        ShardError: Two triplets have one key.
    """
    if len(set(keys)) < len(keys):
        (key, _), *_ = Counter(keys).most_common(1)
        msg = (
            f"two triplets are called {key!r}; convert the archives that hold them "
            "into sets of their own, or rename one"
        )
        raise ShardError(msg)
    secret = _secret(seed)
    digests = b"".join([blake2b(name.encode(), digest_size=8, key=secret).digest()
                        for name in keys])  # fmt: skip
    hashes = np.frombuffer(digests, ">u8").astype(np.uint64)
    order = np.argsort(hashes, kind="stable")
    if (np.diff(hashes[order]) == 0).any():  # once in a thousand years
        order = np.array(sorted(range(len(keys)), key=lambda at: (hashes[at], keys[at])))
    return order


def _split(
    keys: Sequence[str],
    foregrounds: Sequence[str | None],
    backgrounds: Sequence[str | None],
    rule: str,
    val: float,
    seed: int,
) -> tuple[Splits, dict[str, Any]]:
    """The place in `SPLITS` of each triplet, and the manifest's record."""
    fg_apart = _held_out(set(foregrounds), "foreground", val, seed)
    bg_apart = _held_out(set(backgrounds), "background", val, seed)
    asked, notes = rule, []
    if rule in {"foreground", "both"} and fg_apart is None:
        notes.append("foregrounds are unknown or too few to hold one out")
        rule = "background"
    if rule in {"background", "both"} and bg_apart is None:
        notes.append("backgrounds are unknown or too few to hold one out")
        rule = "random" if rule == "background" else "foreground"
    note = f"asked for {asked}: {'; '.join(notes)}" if notes else ""
    held_fg = fg_apart if rule in {"foreground", "both"} and fg_apart else set()
    held_bg = bg_apart if rule in {"background", "both"} and bg_apart else set()
    if rule == "random":
        # a hash of its own: the global order is sorted by the other one
        border = int(val * 2**64)
        outside = np.array([_hash(seed, f"split/{key}") < border for key in keys], bool)
        inside = ~outside
    else:
        by_foreground = np.array([name in held_fg for name in foregrounds], bool)
        by_background = np.array([name in held_bg for name in backgrounds], bool)
        inside = ~(by_foreground | by_background)
        outside = by_foreground & by_background if rule == "both" else ~inside
    splits = np.select([inside, outside], [0, 1], 2).astype(np.int8)
    record = {
        "rule": rule,
        "val": val,
        "held_out_foregrounds": sorted(held_fg, key=natural),
        "held_out_backgrounds": sorted(held_bg, key=natural),
        "note": note,
    }
    return splits, record


def _held_out(ids: set[str | None], kind: str, val: float, seed: int) -> set[str] | None:
    """The ids of validation: the nearest whole number to the share, but one at least."""
    known = [name for name in ids if name is not None]
    if len(known) < 2 or len(known) < len(ids):
        return None
    known.sort(key=lambda name: (_hash(seed, f"{kind}/{name}"), name))
    count = min(len(known) - 1, max(1, round(val * len(known)))) if val else 0
    return set(known[:count])


def _hash(seed: int, text: str) -> int:
    digest = blake2b(text.encode(), digest_size=8, key=_secret(seed)).digest()
    return int.from_bytes(digest, "big")


def _secret(seed: int) -> bytes:
    return seed.to_bytes(8, "little")
