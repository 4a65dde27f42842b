"""A part of the triplets, chosen by options: by set, so many per background, so many in all."""

import hashlib
from collections import Counter
from collections.abc import Sequence

from shards.error import ShardError
from shards.triplet import Members, Triplet, natural


def select(
    triplets: Sequence[Triplet],
    members: Members,
    *,
    sets: Sequence[int],
    per_background: int | None,
    limit: int | None,
    seed: int,
) -> list[Triplet]:
    """Choose triplets; a fair choice that the order of the sources does not decide.

    Args:
        triplets: All there are.
        members: Of all sources.
        sets: Numbers of sets from 1; empty: all. A set is an archive or, of loose files, a
            topmost folder, that holds composites; they are counted in natural order.
        per_background: At most so many of each background.
        limit: At most so many in all.
        seed: Decides which.

    Raises:
        ShardError: There is no set of some number.
    """
    chosen = list(triplets)
    if sets:
        labels = [_set_label(members, triplet.composite) for triplet in chosen]
        known = sorted(set(labels), key=natural)
        wrong = [number for number in sets if not 1 <= number <= len(known)]
        if wrong:
            told = ", ".join(f"{number}: {label}" for number, label in enumerate(known, start=1))
            msg = f"there is no set {wrong[0]}; the sources hold {told}"
            raise ShardError(msg)
        wanted = {known[number - 1] for number in sets}
        chosen = [t for t, label in zip(chosen, labels, strict=True) if label in wanted]
    if per_background is None and limit is None:
        return chosen
    key = seed.to_bytes(8, "little")
    chosen.sort(key=lambda t: (_hash(key, t.key), t.key))
    if per_background is not None:
        counts: Counter[str | None] = Counter()
        kept = []
        for triplet in chosen:
            counts[triplet.background] += 1
            if counts[triplet.background] <= per_background:
                kept.append(triplet)
        chosen = kept
    return chosen[:limit]


def _set_label(members: Members, number: int) -> str:
    archive = members.archives[members.archive_number(number)]
    if archive.name.lower().endswith(".zip"):
        return archive.name
    return f"{archive.name}/{members[number].name.partition('/')[0]}"


def _hash(key: bytes, name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8, key=key, person=b"select").digest()
