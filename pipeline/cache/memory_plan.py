"""Where a stage's decoded samples are kept: a pure function of what they need and what is free.

Tiers, best first: the device's memory, the host's, a file, and `off`, which streams. A tier that
holds only part of the samples keeps those of the lowest numbers; the others are streamed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

BYTES_PER_PIXEL = 5
"""A composite's red, green and blue, a mask's and a depth map's byte."""

TIERS = ("device", "host", "file")
CHOICES = ("auto", *TIERS, "off")

MIN_SAVED = 0.1
"""Share of the decoding under which `auto` does not fill any memory."""

_PLACES = {"device": "device memory", "host": "host memory", "file": "a file"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """The samples that a stage reads."""

    samples: int
    """How many there are."""

    size: int
    """Side in pixels."""

    passes: float
    """How often the stage reads each of them."""

    what: str = "training"
    """Which samples."""

    @property
    def bytes_per_sample(self) -> int:
        """Composite, mask and depth, decoded."""
        return BYTES_PER_PIXEL * self.size**2

    @property
    def bytes(self) -> int:
        """All of them, decoded."""
        return self.samples * self.bytes_per_sample

    def saved(self, num_cached: int) -> float:
        """Share of the stage's decoding that a cache of so many samples saves."""
        if not self.samples or self.passes <= 1:
            return 0.0
        return num_cached / self.samples * (self.passes - 1) / self.passes


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """Bytes that each tier may take; None where there is no such tier."""

    device: int | None
    host: int
    file: int | None

    def of(self, tier: str) -> int | None:
        """Bytes that a tier may take."""
        return {"device": self.device, "host": self.host, "file": self.file}[tier]


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """What is kept where, and why."""

    tier: str
    """`device`, `host`, `file` or `off`."""

    num_cached: int
    """Samples kept: those numbered below."""

    need: Need
    """What there is to keep."""

    free: int
    """Bytes that the tier may take."""

    declined: Mapping[str, str]
    """The tiers that were considered and not chosen, and why."""

    @property
    def bytes(self) -> int:
        """What the cache takes."""
        return self.num_cached * self.need.bytes_per_sample

    @property
    def saved(self) -> float:
        """Share of the stage's decoding that need not be done."""
        return self.need.saved(self.num_cached)

    def text(self) -> str:
        """The plan for a user: what, where, what for, and why nowhere else; a line each."""
        head = f"cache {self.need.size} px, {self.need.samples:,} {self.need.what} samples"
        return "\n".join([f"{head}: {self._choice()}", *self._reasons()])

    def _choice(self) -> str:
        if self.tier == "off":
            return "off, every pass decodes"
        share = "all" if self.num_cached == self.need.samples else f"{self.num_cached:,}"
        return (
            f"{share} in {_PLACES[self.tier]}, {gigabytes(self.bytes)} of "
            f"{gigabytes(self.free)} free"
        )

    def _reasons(self) -> Iterable[str]:
        if self.tier != "off":
            yield (
                f"  effect: {self.need.passes:.4g} passes decode {1 - self.saved:.0%} of what "
                "streaming would, and gather the rest"
            )
        for tier, reason in self.declined.items():
            yield f"  not {_PLACES.get(tier, tier)}: {reason}"


def plan_cache(wish: str, need: Need, room: Room) -> MemoryPlan:
    """Choose a tier.

    Args:
        wish: One of `CHOICES`. A tier is taken as far as it goes; `auto` takes the first tier that
            holds everything, else the one that holds most, if that saves at least `MIN_SAVED` of
            the decoding.
        need: What there is to keep.
        room: What is free.
    """
    if wish == "off":
        return _off(need, {})
    if wish == "auto" and need.saved(need.samples) < MIN_SAVED:
        passes = "no sample is" if need.passes <= 1 else f"only {need.passes - 1:.0%} are"
        return _off(need, {"cached": f"{passes} read again ({need.passes:.4g} passes)"})
    tiers = TIERS if wish == "auto" else (wish,)
    fitting = {tier: _num_fitting(need, room.of(tier)) for tier in tiers}
    chosen = max(tiers, key=lambda tier: fitting[tier])  # the first of equals
    is_whole = fitting[chosen] == need.samples
    considered = tiers[: tiers.index(chosen)] if is_whole else tiers
    declined = {tier: _why_not(tier, need, room.of(tier)) for tier in considered if tier != chosen}
    if not fitting[chosen] or (wish == "auto" and need.saved(fitting[chosen]) < MIN_SAVED):
        return _off(need, {**declined, chosen: _why_not(chosen, need, room.of(chosen))})
    return MemoryPlan(
        tier=chosen,
        num_cached=fitting[chosen],
        need=need,
        free=room.of(chosen) or 0,
        declined=declined,
    )


def _off(need: Need, declined: Mapping[str, str]) -> MemoryPlan:
    return MemoryPlan(tier="off", num_cached=0, need=need, free=0, declined=declined)


def _num_fitting(need: Need, free: int | None) -> int:
    return min(need.samples, max(free or 0, 0) // need.bytes_per_sample)


def _why_not(tier: str, need: Need, free: int | None) -> str:
    if free is not None:
        return f"{gigabytes(need.bytes)} needed, {gigabytes(free)} free"
    return {"device": "there is no GPU", "file": "no --cache-dir was given"}[tier]


def gigabytes(num_bytes: int) -> str:
    """A size for a user."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
