"""What a few triplets of every archive show, before anything is written.

The commonest image size; the white frame of depth figures; what depth values mean; and whether
names pair what belongs together: outside the mask, composite and background must agree, and where
they differ must be what the mask says.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from shards.archive import MemberError
from shards.colormap import find_frame
from shards.error import ShardError
from shards.imagery import ImageError, Pixels, check_size, decode, decode_sized, read_header
from shards.layouts.depth import DepthFormat
from shards.repair import MAX_FIGURE_PX, DepthStorage, fit_as_is, repaired
from shards.triplet import Members, Triplet

PER_ARCHIVE = 24
"""So many triplets of each archive are looked at."""

MOVED_LEVELS = 40
"""A pixel whose channels differ by more shows something else than the background."""

MAX_STRAYED = 0.2
"""Share of the pixels outside a mask that may differ so: noise and soft edges stay under .02 in all
reference sets, another background is over .9."""

MIN_OVERLAP = 0.15
"""Least IoU of mask and difference: over .4 in all reference sets, .05 with another's mask."""

MAX_DOUBTFUL = 0.15
"""Share of an archive's triplets that may fail: an object may have its background's colours."""

_STRETCHED_ENDS = (8, 247)
_SHARE_STRETCHED = 0.9
_LEAST_OBJECTS = 8
_SHARE_AGREEING = 0.75
_FIGURES = 12
"""So many figures are enough to find their frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What was seen."""

    image_size: tuple[int, int]
    """Height and width of most composites."""
    depth: DepthFormat
    """As the layout says, with what could be detected in its place."""
    storage: DepthStorage


class _Seen(NamedTuple):
    triplet: Triplet
    composite: Pixels
    mask: Pixels


@dataclass(slots=True)
class _Evidence:
    """Of one archive."""

    strayed: list[float] = field(default_factory=list)
    overlap: list[float] = field(default_factory=list)
    triplets: list[Triplet] = field(default_factory=list)


def probe(
    members: Members,
    triplets: Sequence[Triplet],
    backgrounds: Mapping[str, int],
    depth: DepthFormat,
    *,
    check_pairs: bool = True,
) -> Findings:
    """Look at some triplets of each archive.

    Args:
        members: Of all sources.
        triplets: What the layout made of them.
        backgrounds: Id to member.
        depth: What the layout says of depth maps.
        check_pairs: Stop where images do not belong together.

    Raises:
        ShardError: No composite is an image, no frame is found around depth figures, or an
            archive's images do not belong together; three examples are named.
    """
    chosen = _choose(members, triplets)
    size = _common_size(members, chosen)
    storage = _storage(members, chosen, depth)
    pairs = _Pairs(members, backgrounds, size)
    signs = _DepthSigns(members, storage, size)
    for triplet in chosen:  # one at a time: images may be large and archives many
        found = _open(members, triplet, size)
        if found is not None:
            pairs.weigh(found)
            signs.read(found)
    if check_pairs:
        pairs.judge()
    return Findings(image_size=size, depth=signs.applied_to(depth), storage=storage)


def _choose(members: Members, triplets: Sequence[Triplet]) -> list[Triplet]:
    composites = np.fromiter((triplet.composite for triplet in triplets), np.int64, len(triplets))
    archives = members.archive_numbers(composites)
    by_archive = np.argsort(archives, kind="stable")
    borders = np.flatnonzero(np.diff(archives[by_archive])) + 1
    chosen = []
    for found in sorted(np.split(by_archive, borders), key=lambda found: int(found[0])):
        # spread over the archive and off any period that its numbering may have
        step = max(1, len(found) // PER_ARCHIVE)
        part = found[::step][:PER_ARCHIVE].tolist()
        chosen += [int(found[(at * step + _jitter(triplets[number], step)) % len(found)])
                   for at, number in enumerate(part)]  # fmt: skip
    return [triplets[number] for number in dict.fromkeys(chosen)]


def _jitter(triplet: Triplet, step: int) -> int:
    return hashlib.blake2b(triplet.key.encode(), digest_size=2).digest()[0] % step


def _common_size(members: Members, triplets: Sequence[Triplet]) -> tuple[int, int]:
    """The larger one on a tie."""
    sizes: Counter[tuple[int, int]] = Counter()
    for triplet in triplets:
        try:
            header = read_header(members.read(triplet.composite))
        except (MemberError, ImageError):
            continue
        sizes[header.height, header.width] += 1
    if not sizes:
        first = members.describe(triplets[0].composite)
        msg = f"none of the composites tried is an image ({first} and others); check the source"
        raise ShardError(msg)
    return max(sizes, key=lambda size: (sizes[size], size))


def _open(members: Members, triplet: Triplet, size: tuple[int, int]) -> _Seen | None:
    try:
        composite = decode_sized(members.read(triplet.composite), size, 3)
        mask = decode_sized(members.read(triplet.mask), size, 1)
    except (MemberError, ImageError):
        return None  # the conversion meets it again and rejects it by name
    return _Seen(triplet, composite, mask)


def _storage(members: Members, triplets: Sequence[Triplet], depth: DepthFormat) -> DepthStorage:
    storage = DepthStorage(encoding=depth.encoding, frame=None)
    if not storage.is_picture:
        return storage
    by_size: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    for triplet in triplets:
        try:
            data = members.read(triplet.depth)
            header = read_header(data)
        except (MemberError, ImageError):
            continue
        if max(header.height, header.width) <= MAX_FIGURE_PX:
            by_size[header.height, header.width].append(data)
    figures = []
    common = max(by_size.values(), key=len, default=[])
    for data in common[:: max(1, len(common) // _FIGURES)][:_FIGURES]:
        try:
            figures.append(decode(data, read_header(data), 3))
        except ImageError:
            continue
    if not figures:
        first = members.describe(triplets[0].depth)
        msg = f"none of the depth figures tried is an image ({first}); check the source"
        raise ShardError(msg)
    return replace(storage, frame=find_frame(figures))


class _Pairs:
    """Whether composites, masks and backgrounds belong together, archive by archive."""

    def __init__(
        self, members: Members, backgrounds: Mapping[str, int], size: tuple[int, int]
    ) -> None:
        self._members, self._backgrounds, self._size = members, backgrounds, size
        self._by_archive: dict[str, _Evidence] = defaultdict(_Evidence)

    def weigh(self, found: _Seen) -> None:
        """Count a triplet in, if its background can be read."""
        name = found.triplet.background
        if name is None or name not in self._backgrounds:
            return
        try:
            scene = decode_sized(self._members.read(self._backgrounds[name]), self._size, 3)
        except (MemberError, ImageError):
            return  # rejected by name when the backgrounds are written
        archive = self._members.archives[self._members.archive_number(found.triplet.composite)]
        _weigh(self._by_archive[archive.name], found, scene)

    def judge(self) -> None:
        """Stop at the first archive with too many doubtful triplets.

        Raises:
            ShardError: There is one.
        """
        for archive, evidence in self._by_archive.items():
            doubtful = [
                strayed > MAX_STRAYED or overlap < MIN_OVERLAP
                for strayed, overlap in zip(evidence.strayed, evidence.overlap, strict=True)
            ]
            if np.mean(doubtful) > MAX_DOUBTFUL:
                raise _mispaired(self._members, archive, evidence, self._backgrounds)


def _weigh(evidence: _Evidence, found: _Seen, scene: Pixels) -> None:
    difference = np.maximum(found.composite, scene) - np.minimum(found.composite, scene)
    red, green, blue = np.moveaxis(difference > MOVED_LEVELS, 2, 0)
    moved, covered = red | green | blue, found.mask[..., 0] >= 128
    outside = max(1, int((~covered).sum()))
    evidence.strayed.append(float((moved & ~covered).sum()) / outside)
    union = max(1, int((moved | covered).sum()))
    evidence.overlap.append(float((moved & covered).sum()) / union)
    evidence.triplets.append(found.triplet)


def _mispaired(
    members: Members, archive: str, evidence: _Evidence, backgrounds: Mapping[str, int]
) -> ShardError:
    worst = np.argsort(evidence.overlap)[:3]
    examples = "; ".join(
        f"{members[triplet.composite].name} with {members[triplet.mask].name} and "
        f"{members[backgrounds[triplet.background or '']].name}"
        for triplet in (evidence.triplets[int(at)] for at in worst)
    )
    return ShardError(
        f"{archive}: images do not belong together as the names pair them: composite and background"
        f" differ on {np.median(evidence.strayed):.0%} of what the mask leaves open, and the mask"
        f" covers {np.median(evidence.overlap):.0%} of what differs (medians of"
        f" {len(evidence.triplets)}), such as {examples}; check the layout or the label file, or"
        " accept it with --no-pairing-check"
    )


class _DepthSigns:
    """What depth values mean: an object is nearer than what it covers; stretched maps use all."""

    def __init__(self, members: Members, storage: DepthStorage, size: tuple[int, int]) -> None:
        self._members, self._storage, self._size = members, storage, size
        self._nearer_is_darker: list[bool] = []
        self._stretched: list[bool] = []

    def read(self, found: _Seen) -> None:
        """Count a triplet's depth map in, if it can be read."""
        try:
            data = self._members.read(found.triplet.depth)
            header = read_header(data)
            if fit_as_is("depth", header, self._storage):
                check_size(header, self._size)
                pixels = decode(data, header, 1)
            else:
                pixels = repaired("depth", data, header, self._storage, self._size)
        except (MemberError, ImageError):
            return
        low, high = _STRETCHED_ENDS
        self._stretched.append(bool(pixels.min() <= low and pixels.max() >= high))
        inside, around = _object_and_around(found.mask[..., 0] >= 128)
        if inside.any() and around.any():
            levels = pixels[..., 0]
            self._nearer_is_darker.append(bool(levels[inside].mean() < levels[around].mean()))

    def applied_to(self, depth: DepthFormat) -> DepthFormat:
        """The layout's word on depth, with what was seen in its place."""
        if self._stretched:
            stretched = np.mean(self._stretched) >= _SHARE_STRETCHED
            depth = replace(depth, scaling="stretched" if stretched else "absolute")
        if len(self._nearer_is_darker) >= _LEAST_OBJECTS:
            share = float(np.mean(self._nearer_is_darker))
            if (
                max(share, 1 - share) >= _SHARE_AGREEING
            ):  # else objects do not tell, the layout does
                depth = replace(depth, polarity="near-dark" if share > 0.5 else "near-bright")
        return depth


def _object_and_around(covered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The object's upper half, and what surrounds that: at its foot it is as near as the ground."""
    rows = np.flatnonzero(covered.any(axis=1))
    upper = np.zeros_like(covered)
    if len(rows):
        upper[: (rows[0] + rows[-1]) // 2] = True
    grown = covered.copy()
    for shift in (-6, 6):
        grown |= np.roll(covered, shift, axis=0) | np.roll(covered, shift, axis=1)
    return covered & upper, grown & ~covered & upper
