"""The sources as names: listed, matched, and the part of them that was asked for.

Needs the central directories alone, so a dry run of a million members takes seconds.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from shards.archive import open_sources
from shards.collection import uncollected
from shards.error import ShardError
from shards.layouts import Layout, find_layout
from shards.layouts.matching import LayoutOptions
from shards.ledger import Ledger
from shards.manifest import SourceRecord
from shards.options import ConvertConfig
from shards.select import select
from shards.triplet import Match, Members, Rejection, Triplet


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What the sources hold, by name."""

    members: Members
    layout: Layout
    triplets: Sequence[Triplet]
    """Those to write."""
    backgrounds: dict[str, int]
    """Id to member, of the backgrounds that the sources hold."""
    missing: tuple[str, ...]
    """Ids of backgrounds that triplets have and the sources do not hold."""
    ledger: Ledger

    def sources(self) -> tuple[SourceRecord, ...]:
        """For the manifest."""
        return tuple(
            SourceRecord(
                name=archive.name,
                bytes=archive.size_bytes,
                members=len(archive.members),
                digest=archive.digest,
            )
            for archive in self.members.archives
        )


@uncollected()
def read_sources(config: ConvertConfig, layout: Layout | None = None) -> Reading:
    """List the sources, find out how they are laid out, and choose the triplets.

    Args:
        config: What to read.
        layout: How names become triplets, if that is known; else as the configuration says.

    Raises:
        ShardError: The sources cannot be read, fit no layout, or hold no triplet.
    """
    members = Members(open_sources(config.sources))
    layout = layout or find_layout(config.layout, members)
    options = LayoutOptions(
        positions_per_foreground=config.positions_per_foreground,
        disparity=config.depth == "disparity",
    )
    found = layout.match(members, options)
    if not found.triplets:
        raise _no_triplet(members, found)
    ledger = Ledger(members)
    ledger.fates["auxiliary"] = len(found.auxiliary)
    ledger.fates["debris"] = len(found.debris)
    for rejection in found.rejected:
        ledger.reject(rejection)
    complete, missing = _with_background(found, ledger, estimate=config.backgrounds == "estimate")
    triplets = select(
        complete,
        members,
        sets=config.sets,
        per_background=config.per_background,
        limit=config.limit,
        seed=config.seed,
    )
    ledger.fates["not_selected"] = 3 * (len(complete) - len(triplets))
    return Reading(
        members=members,
        layout=layout,
        triplets=triplets,
        backgrounds=found.backgrounds,
        missing=missing,
        ledger=ledger,
    )


def _with_background(
    found: Match, ledger: Ledger, *, estimate: bool
) -> tuple[Sequence[Triplet], tuple[str, ...]]:
    """Reject what lacks its background, unless all do or it is to be estimated."""
    missing = {t.background: None for t in found.triplets
               if t.background is not None and t.background not in found.backgrounds}  # fmt: skip
    if estimate or not found.backgrounds:
        return found.triplets, tuple(name for name in missing if name is not None)
    complete = []
    for triplet in found.triplets:
        if triplet.background in missing:
            members = (triplet.composite, triplet.mask, triplet.depth)
            reason = f"has no background {triplet.background}"
            ledger.reject(Rejection(triplet.key, members, reason))
        else:
            complete.append(triplet)
    return complete, ()


def _no_triplet(members: Members, found: Match) -> ShardError:
    reasons = Counter(rejection.reason for rejection in found.rejected).most_common(3)
    seen = "; ".join(f"{count} x {reason}" for reason, count in reasons) or "nothing relates"
    return ShardError(
        f"no triplet in {', '.join(archive.name for archive in members.archives)}: {seen}; "
        "check that composites, masks and depth maps are all there"
    )
