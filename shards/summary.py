"""What a set holds, or would hold, as lines for people; the command line prints them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shards.dry_run import DryRun
from shards.manifest import FATES, ChannelStatistics, Manifest
from shards.plan import SPLITS

_SHOWN = 8


def describe_set(path: Path, manifest: Manifest) -> Iterator[str]:
    """Counts, splits, sizes, and what became of every source member."""
    samples = {split: manifest.num_samples(split) for split in SPLITS}
    size_bytes = sum(record.bytes for record in manifest.files.values())
    height, width = manifest.image_size
    depth = manifest.depth
    stored = "" if depth["encoding"] == "grey" else f", from {depth['encoding']} pictures"
    yield f"set          {path}: {_counted(samples)}"
    yield f"files        {len(manifest.shards)} shards, {size_bytes:,} bytes"
    yield (
        f"images       {width} x {height} px, {len(manifest.backgrounds)} backgrounds, "
        f"{len(manifest.foregrounds)} foregrounds"
    )
    yield f"layout       {manifest.layout}; depth {depth['polarity']}, {depth['scaling']}{stored}"
    if manifest.estimated_backgrounds:
        yield f"             {len(manifest.estimated_backgrounds)} backgrounds are estimated"
    for part, count in manifest.repaired.items():
        if count:
            yield f"repaired     {count:,} {part} images, stored as grey PNG"
    yield from _split(manifest.split)
    yield _accounting(manifest.accounting)


def describe_dry_run(found: DryRun) -> Iterator[str]:
    """The same for a set that is not written yet."""
    yield f"would write  {_counted(found.samples)}"
    yield f"files        {found.shards} shards, about {found.bytes:,} bytes"
    yield (
        f"layout       {found.layout}; {found.backgrounds} backgrounds, "
        f"{found.missing_backgrounds} missing"
    )
    yield from _split(found.split)
    yield _accounting(found.accounting)
    for line in found.rejected[:_SHOWN]:
        yield f"rejected     {line['member']}: {line['reason']}"
    if len(found.rejected) > _SHOWN:
        yield f"             and {len(found.rejected) - _SHOWN} more"


def describe_statistics(statistics: Mapping[str, ChannelStatistics], samples: int) -> Iterator[str]:
    """A table of means and deviations."""
    yield f"{'part':<13}{'mean (RGB or grey, of 1)':<30}std   over {samples:,} samples"
    for part, found in sorted(statistics.items()):
        means, stds = (
            "  ".join(f"{value:.4f}" for value in values) for values in (found.mean, found.std)
        )
        yield f"{part:<13}{means:<30}{stds}"


def _counted(samples: Mapping[str, int]) -> str:
    told = ", ".join(f"{count:,} {split}" for split, count in samples.items() if count)
    return f"{sum(samples.values()):,} samples ({told})"


def _split(split: Mapping[str, Any]) -> Iterator[str]:
    held_out = [*split["held_out_foregrounds"], *split["held_out_backgrounds"]]
    shown = ", ".join(held_out[:_SHOWN]) + (", ..." if len(held_out) > _SHOWN else "")
    yield f"split        by {split['rule']}{f', held out: {shown}' if shown else ''}"
    if split["note"]:
        yield f"             {split['note']}"


def _accounting(accounting: Mapping[str, int]) -> str:
    told = " + ".join(f"{accounting[fate]:,} {fate.replace('_', ' ')}" for fate in FATES)
    return f"members      {accounting['members']:,} = {told}"
