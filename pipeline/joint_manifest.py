"""One manifest for several sets: what training must know of them, merged as training draws them."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from pipeline.opening import OpenedSet
from shards.manifest import ChannelStatistics, Manifest


def joint_manifest(sets: Sequence[OpenedSet]) -> Manifest:
    """One manifest for sets that are streamed as one; a single set's own.

    Statistics and the mean depth image are means over the samples as training draws them. The
    fingerprint is over all of it: another set, another order or another repeat is another one.
    """
    if len(sets) == 1 and sets[0].repeats == 1:
        return sets[0].manifest
    manifests = [opened.manifest for opened in sets]
    drawn = [opened.manifest.num_samples("train") * opened.repeats for opened in sets]
    weights = [count / sum(drawn) if any(drawn) else 1 / len(drawn) for count in drawn]
    most = max(range(len(sets)), key=weights.__getitem__)
    return replace(
        manifests[most],
        options={"sets": [[s.manifest.fingerprint, s.repeats] for s in sets]},
        split={"rule": "each set's own"},
        sources=tuple(source for manifest in manifests for source in manifest.sources),
        backgrounds=tuple(name for manifest in manifests for name in manifest.backgrounds),
        foregrounds=tuple(name for manifest in manifests for name in manifest.foregrounds),
        estimated_backgrounds=tuple(n for m in manifests for n in m.estimated_backgrounds),
        repaired=_sums([manifest.repaired for manifest in manifests]),
        accounting=_sums([manifest.accounting for manifest in manifests]),
        statistics={
            part: _merged([manifest.statistics[part] for manifest in manifests], weights)
            for part in manifests[most].statistics
        },
        statistics_samples=sum(manifest.statistics_samples for manifest in manifests),
        mean_depth_png=_mean_depth(manifests, weights),
        shards=tuple(
            replace(shard, name=f"{opened.label}-{shard.name}")
            for opened in sets
            for shard in opened.manifest.shards
        ),
        files={},
    )


def _sums(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def _merged(statistics: Sequence[ChannelStatistics], weights: Sequence[float]) -> ChannelStatistics:
    means, stds = (np.array([getattr(s, name) for s in statistics]) for name in ("mean", "std"))
    mean = np.average(means, axis=0, weights=weights)
    squares = np.average(stds**2 + means**2, axis=0, weights=weights)
    std = np.sqrt(np.maximum(squares - mean**2, 0))
    return ChannelStatistics(mean=tuple(mean.round(9).tolist()), std=tuple(std.round(9).tolist()))


def _mean_depth(manifests: Sequence[Manifest], weights: Sequence[float]) -> str:
    """Base64 of a grey PNG, as a manifest holds it."""
    size = max(_png_size(manifest) for manifest in manifests)
    mean = np.average([m.mean_depth(size) for m in manifests], axis=0, weights=weights)
    buffer = io.BytesIO()
    Image.fromarray((mean * 255).round().astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _png_size(manifest: Manifest) -> int:
    with Image.open(io.BytesIO(base64.b64decode(manifest.mean_depth_png))) as image:
        return max(image.size)
