"""A conversion of 1.2 million tiny members: seconds by stage, and memory.

The images are all the same and of no size to speak of; what is measured is what grows with names.
"""

import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from benchmarks.memory import measure_memory
from shards.archive import open_sources
from shards.convert import convert
from shards.layouts import find_layout
from shards.layouts.matching import LayoutOptions
from shards.options import ConvertConfig
from shards.plan import make_plan
from shards.triplet import Members

ROOT = "modest_museum_dataset"
SAMPLES = 400_000
FIXED_BYTES, BYTES_PER_MEMBER = 1_000_000_000, 200
"""What a conversion may take: a gigabyte, and so much for each member."""


def measure(folder: Path, processes: int, samples: int = SAMPLES) -> dict[str, Any]:
    """Write the zip, convert it, print and return the figures."""
    zip_path = folder / "many.zip"
    members = write_zip(zip_path, samples)
    seconds = measure_memory(_time_stages, zip_path).value
    whole = measure_memory(_time_conversion, zip_path, folder / "many", processes)
    seconds["in all"] = whole.value
    allowed = FIXED_BYTES + BYTES_PER_MEMBER * members
    shown = ", ".join(f"{name} {taken:.1f} s" for name, taken in seconds.items())
    print(f"\n{members:,} members: {shown}; peak memory {whole.peak_bytes / 1e6:,.0f} MB over all "
          f"processes, {allowed / 1e6:,.0f} allowed")  # fmt: skip
    return {"members": members, "seconds": seconds, "peak_bytes": whole.peak_bytes,
            "allowed_bytes": allowed}  # fmt: skip


def write_zip(path: Path, samples: int) -> int:
    """Write so many triplets of 100 backgrounds and 100 objects; returns the zip's members."""
    background = np.full((16, 16, 3), 90, np.uint8)
    composite, mask = background.copy(), np.zeros((16, 16, 1), np.uint8)
    depth = np.full((16, 16, 1), 180, np.uint8)
    composite[4:12, 4:12], mask[4:12, 4:12], depth[4:12, 4:12] = 230, 255, 60
    scene, image = (simplejpeg.encode_jpeg(colour, 90, "RGB") for colour in (background, composite))
    greys = [simplejpeg.encode_jpeg(grey, 90, "GRAY") for grey in (mask, depth)]
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(100):
            archive.writestr(f"{ROOT}/bg/bg{number:03d}.jpeg", scene)
        for number in range(samples):
            variant, rest = divmod(number, 10_000)
            stem = f"bg{rest % 100:03d}_fg{rest // 100:03d}_{variant + 1:02d}"
            for name, content in zip(member_names(stem), (image, *greys), strict=True):
                archive.writestr(name, content)
        return len(archive.filelist)


def member_names(stem: str) -> tuple[str, str, str]:
    """Composite, mask and depth map of a triplet in the relation-file layout."""
    return (
        f"{ROOT}/bg_fg/{stem}.jpeg",
        f"{ROOT}/bg_fg_mask/{stem}_mask.jpeg",
        f"{ROOT}/bg_fg_depth_map/{stem}_depth_map.jpeg",
    )


def _time_stages(zip_path: Path) -> dict[str, float]:
    """What one process does before the writing."""
    times = [time.perf_counter()]
    members = Members(open_sources((zip_path,)))
    times.append(time.perf_counter())
    match = find_layout("auto", members).match(members, LayoutOptions())
    times.append(time.perf_counter())
    config = ConvertConfig(sources=(zip_path,), out=zip_path)
    make_plan(match.triplets, rule=config.split, val=config.val, seed=config.seed,
              samples_per_shard=config.samples_per_shard, statistics_samples=2_000)  # fmt: skip
    times.append(time.perf_counter())
    return dict(zip(("listing", "matching", "planning"), np.diff(times).tolist(), strict=True))


def _time_conversion(zip_path: Path, out: Path, processes: int) -> float:
    began = time.perf_counter()
    convert(ConvertConfig(sources=(zip_path,), out=out, processes=processes))
    return time.perf_counter() - began
