"""`backgrounds.tar`: one image per scene, as the sources hold it or as composites show it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.archive import Archive, MemberError
from shards.estimate import estimate_background
from shards.imagery import Header, ImageError, Pixels, decode
from shards.index import CHANNELS
from shards.manifest import BACKGROUNDS, FileRecord
from shards.reading import Reading
from shards.sample import read_image
from shards.statistics import Moments
from shards.tar import TarWriter
from shards.triplet import Rejection, Triplet, natural, safe_key


@dataclass(frozen=True, kw_only=True, slots=True)
class Backgrounds:
    """What was written."""

    numbers: dict[str, int]
    """Id to position in the tar; empty: the set has none."""
    estimated: tuple[str, ...]
    """Ids that came from composites."""
    moments: Moments
    file: FileRecord | None
    triplets: Sequence[Triplet]
    """Those whose background is fit; the others are in the ledger."""


def write_backgrounds(
    reading: Reading, out: Path, work: Path, size: tuple[int, int], *, estimate: bool
) -> Backgrounds:
    """Write the tar; damaged backgrounds take their triplets with them.

    Args:
        reading: The sources.
        out: The set's folder.
        work: Where the unfinished file lies.
        size: Height and width that every background must have.
        estimate: Make the missing ones from composites.

    Raises:
        OSError: The folder cannot be written.
    """
    lost: dict[str, str] = {}
    moments = Moments(CHANNELS["background"])
    images = _given(reading, size, lost, moments)
    reading.ledger.fates["backgrounds"] = len(images)
    estimated = _estimated(reading, size) if estimate else {}
    for name, content in estimated.items():
        moments.add(_decoded(content, size))
        images[name] = (f"{safe_key(name)}.png", content)
    triplets = _without(reading, lost)
    if not images:
        return Backgrounds(numbers={}, estimated=(), moments=moments, file=None, triplets=triplets)
    names = sorted(images, key=natural)
    with TarWriter(work / BACKGROUNDS) as tar:
        for name in names:
            tar.add(*images[name])
    (work / BACKGROUNDS).rename(out / BACKGROUNDS)
    return Backgrounds(
        numbers={name: number for number, name in enumerate(names)},
        estimated=tuple(sorted(estimated, key=natural)),
        moments=moments,
        file=FileRecord(bytes=tar.size_bytes, sha256=tar.sha256),
        triplets=triplets,
    )


def _given(
    reading: Reading, size: tuple[int, int], lost: dict[str, str], moments: Moments
) -> dict[str, tuple[str, bytes]]:
    """Id to member name and content; backgrounds are few, so each one is decoded."""
    images = {}
    members = reading.members
    opened: Archive | None = None
    for name, number in reading.backgrounds.items():
        archive = members.archives[members.archive_number(number)]
        if opened is not None and opened is not archive:
            opened.close()  # they may be more than a process may have open
        opened = archive
        try:
            image = read_image(archive, members[number], size)
        except (MemberError, ImageError) as error:
            reading.ledger.reject(Rejection(safe_key(name), (number,), f"background {error}"))
            lost[name] = str(error)
            continue
        assert image.pixels is not None
        moments.add(image.pixels)
        images[name] = (f"{safe_key(name)}.{image.header.kind}", image.data)
    return images


def _estimated(reading: Reading, size: tuple[int, int]) -> dict[str, bytes]:
    by_background: dict[str, list[Triplet]] = defaultdict(list)
    for triplet in reading.triplets:
        if triplet.background in reading.missing:
            by_background[triplet.background].append(triplet)
    found = {}
    for name, triplets in by_background.items():
        triplets.sort(key=lambda triplet: triplet.key)
        content = estimate_background(reading.members, triplets, size)
        if content is not None:
            found[name] = content
    return found


def _decoded(content: bytes, size: tuple[int, int]) -> Pixels:
    return decode(content, Header("png", *size, 3), 3)


def _without(reading: Reading, lost: dict[str, str]) -> Sequence[Triplet]:
    if not lost:
        return reading.triplets
    kept = []
    for triplet in reading.triplets:
        if triplet.background is not None and triplet.background in lost:
            members = (triplet.composite, triplet.mask, triplet.depth)
            reason = f"background {triplet.background} {lost[triplet.background]}"
            reading.ledger.reject(Rejection(triplet.key, members, reason))
        else:
            kept.append(triplet)
    return kept
