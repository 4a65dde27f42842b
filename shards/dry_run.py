"""What a conversion would write, from names and central directories alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shards.conversion import plan_of
from shards.options import ConvertConfig
from shards.plan import SPLITS
from shards.reading import read_sources
from shards.triplet import Members, Triplet


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRun:
    """What a conversion would write, as far as names tell."""

    layout: str
    samples: Mapping[str, int]
    """By split."""
    shards: int
    bytes: int
    """Of the tars, before anything is repaired or rejected for its content."""
    backgrounds: int
    missing_backgrounds: int
    split: Mapping[str, Any]
    accounting: Mapping[str, int]
    rejected: tuple[Mapping[str, str], ...]


def dry_run(config: ConvertConfig) -> DryRun:
    """What `convert` would write; reads the central directories and label files alone.

    Raises:
        ShardError: The sources cannot be read or matched.
    """
    reading = read_sources(config)
    plan = plan_of(config, reading.triplets)
    samples = dict.fromkeys(SPLITS, 0)
    for shard in plan.shards:
        samples[shard.split] += len(shard.triplets)
    ledger = reading.ledger
    ledger.fates["used"] = 3 * len(reading.triplets)
    ledger.fates["backgrounds"] = len(reading.backgrounds)
    return DryRun(
        layout=reading.layout.name,
        samples=samples,
        shards=len(plan.shards),
        bytes=sum(_tar_bytes(reading.members, triplet) for triplet in reading.triplets),
        backgrounds=len(reading.backgrounds),
        missing_backgrounds=len(reading.missing),
        split=plan.split,
        accounting=ledger.accounting(),
        rejected=tuple(ledger.rejected),
    )


def _tar_bytes(members: Members, triplet: Triplet) -> int:
    """Images and `KEY.json` in blocks of 512 bytes, a header before each."""
    parts = (triplet.composite, triplet.mask, triplet.depth)
    return 1024 + sum(512 + -(-members[part].size // 512) * 512 for part in parts)
