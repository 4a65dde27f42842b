"""`maskdepth synth`: a data set of the task's kind, from nothing or from the user's own pictures.

Backgrounds and foregrounds are made first, then triplets are dealt in chunks to processes and
written in order by this one. Every random draw comes from the seed and the number of what is
drawn, so the files have the same bytes for any number of processes, and the same scenes are in
every layout.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import simplejpeg

from shards.error import ShardError
from shards.processes import Processes
from shards.synthetic.compositing import Backdrop, Chunk, Rendered, render_chunk
from shards.synthetic.encoding import Bytes8, grey_jpeg, png
from shards.synthetic.layouts import LAYOUTS
from shards.synthetic.layouts.layout import Layout, Location
from shards.synthetic.output import Output, new_output
from shards.synthetic.pairing import Plan
from shards.synthetic.pictures import PictureTask, list_pictures, make_background, make_foreground

CHUNK = 200
"""Triplets dealt to a process at a time: about 3 MB of JPEGs come back."""

TRUTH = "truth.tsv"
"""What belongs together, beside the zips: composite, background, mask, depth, scene.

Members are named without their zip; the scene is the same in every layout.
"""

MOST_ZIPS = 100
"""All are open at once."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """What to make."""

    count: int
    """Triplets; exactly so many are made."""

    layout: str = "relation-file"
    """Whose names and kinds of file: one of `shards.synthetic.layouts.LAYOUTS`."""

    zips: int | None = None
    """So many zips, where the layout leaves the choice. None: as its reference has them."""

    size: int = 224
    """Side of every composite, mask, depth map and background, in pixels."""

    seed: int = 0
    """Decides everything random."""

    quality: int = 75
    """JPEG quality of composites and their masks and depth maps, 1 to 100."""

    num_backgrounds: int | None = None
    """None: all of the user's, or by `count`: 100 for 20,000 triplets and more."""

    num_foregrounds: int | None = None
    """None: all of the user's, or by `count`: 100 for 10,000 triplets and more."""

    backgrounds: Path | None = None
    """Folder of the user's pictures, in any format Pillow reads. None: drawn scenes."""

    foregrounds: Path | None = None
    """Folder of the user's cut-outs with alpha (PNG, WebP, ...). None: drawn figures."""

    processes: int = 1
    """Processes that draw and paste; 1 does it all in this one."""

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            msg = f"layout is {self.layout!r}; allowed are {', '.join(LAYOUTS)}"
            raise ValueError(msg)
        fixed_zips = LAYOUTS[self.layout].fixed_zips
        for name, lowest, highest in (
            ("count", 1, 100_000_000),
            ("size", 32, 4096),
            ("seed", 0, 2**63 - 1),
            ("quality", 1, 100),
            ("num_backgrounds", 1, self.count),
            ("num_foregrounds", 1, self.count),
            ("processes", 1, 1024),
            ("zips", fixed_zips or 1, fixed_zips or min(self.count, MOST_ZIPS)),
        ):
            value = getattr(self, name)
            if value is not None and not lowest <= value <= highest:
                allowed = f"allowed are {lowest} to {highest}"
                if name == "zips" and fixed_zips:
                    allowed = f"layout {self.layout} always has {fixed_zips}"
                msg = f"{name} is {value}; {allowed}"
                raise ValueError(msg)


@dataclass(frozen=True, kw_only=True)
class SynthReport:
    """What was made."""

    paths: tuple[Path, ...]
    """The zips."""

    triplets: int
    backgrounds: int
    foregrounds: int
    positions: int
    """Per pair of background and foreground; each plain and mirrored."""

    members: int
    """Files in the zips."""

    bytes: int
    """Of the zips."""


def synthesise(
    out: Path, config: SynthConfig, on_progress: Callable[[int], None] | None = None
) -> SynthReport:
    """Make a data set.

    Args:
        out: Folder for the set; made if need be.
        config: What to make.
        on_progress: Called with the number of triplets done so far.

    Raises:
        ShardError: A folder or picture of the user's cannot be used, a file of the set exists
            already or cannot be written, the layout has no names for so much, or a process died.
    """
    background_paths = _sources(config.backgrounds, config.num_backgrounds, config.count, 200, 4)
    foreground_paths = _sources(config.foregrounds, config.num_foregrounds, config.count, 100, 8)
    plan = Plan(
        count=config.count,
        num_backgrounds=len(background_paths),
        num_foregrounds=len(foreground_paths),
    )
    layout = LAYOUTS[config.layout](plan, config.zips)
    with (
        Processes(config.processes) as processes,
        new_output(out, layout.zips, (*layout.beside, TRUTH), last=TRUTH) as output,
    ):
        backdrops = _whole(processes.map(make_background, _picture_tasks(config, background_paths)))
        cutouts = _whole(processes.map(make_foreground, _picture_tasks(config, foreground_paths)))
        _write_pictures(output, layout, backdrops, cutouts, config.quality)
        done = 0
        chunks = _chunks(config, plan, layout, backdrops, cutouts)
        for rendered in processes.map(render_chunk, chunks):
            for result in rendered:
                _write_triplet(output, layout, result)
            done += len(rendered)
            if on_progress is not None:
                on_progress(done)
    paths = tuple(out / each.name for each in layout.zips)
    return SynthReport(
        paths=paths,
        triplets=done,
        backgrounds=len(backdrops),
        foregrounds=len(cutouts),
        positions=plan.num_positions,
        members=output.num_members,
        bytes=sum(path.stat().st_size for path in paths),
    )


def _sources(
    folder: Path | None, wanted: int | None, count: int, per_picture: int, fewest: int
) -> Sequence[Path | None]:
    """The user's pictures, or a None for each one to be drawn; never more than triplets."""
    if folder is not None:
        return list_pictures(folder, wanted)[:count]
    automatic = min(max(count // per_picture, fewest), 100, count)
    return [None] * (wanted or automatic)


def _picture_tasks(config: SynthConfig, paths: Sequence[Path | None]) -> Iterator[PictureTask]:
    for number, path in enumerate(paths):
        yield PictureTask(
            seed=config.seed, number=number, size=config.size, quality=config.quality, path=path
        )


def _whole(results: Iterable[Result | ShardError]) -> list[Result]:
    """The results, if none of them is an error; else all errors at once."""
    good, faults = [], []
    for result in results:
        if isinstance(result, ShardError):
            faults.append(str(result))
        else:
            good.append(result)
    if faults:
        msg = f"pictures that cannot be used: {'; '.join(faults)}; mend or remove them"
        raise ShardError(msg)
    return good


def _chunks(
    config: SynthConfig,
    plan: Plan,
    layout: Layout,
    backdrops: Sequence[Backdrop],
    cutouts: Sequence[Bytes8],
) -> Iterator[Chunk]:
    triplets = plan.triplets(twins_adjacent=layout.twins_adjacent)
    while batch := tuple(itertools.islice(triplets, CHUNK)):
        yield Chunk(
            seed=config.seed,
            size=config.size,
            quality=config.quality,
            encodings=layout.encodings,
            backdrops={each.background: backdrops[each.background] for each in batch},
            cutouts={each.foreground: cutouts[each.foreground] for each in batch},
            triplets=batch,
        )


def _write_pictures(
    output: Output,
    layout: Layout,
    backdrops: Sequence[Backdrop],
    cutouts: Sequence[Bytes8],
    quality: int,
) -> None:
    for number, backdrop in enumerate(backdrops):
        for location in layout.background(number):
            if location.name.endswith(".png"):
                output.add(location, png(simplejpeg.decode_jpeg(backdrop.jpeg)))
            else:
                output.add(location, backdrop.jpeg)
    for number, cutout in enumerate(cutouts):
        if (locations := layout.foreground(number)) is not None:
            picture, mask = locations
            alpha = np.ascontiguousarray(cutout[..., 3])
            as_png = mask.name.endswith(".png")
            output.add(picture, png(cutout))
            output.add(mask, png(alpha) if as_png else grey_jpeg(alpha[..., None], quality))


def _write_triplet(output: Output, layout: Layout, rendered: Rendered) -> None:
    triplet = rendered.triplet
    images = layout.images(triplet)
    output.add(images.composite, rendered.composite)
    output.add(images.mask, rendered.mask)
    output.add(images.depth, rendered.depth)
    for table, line in layout.rows(triplet, rendered.place):
        output.append(table, line)
    composite, mask, depth = (location.name for location in images)
    background = layout.background_id(triplet.background)
    truth = (composite, background, mask, depth, triplet.scene)
    output.append(Location(None, TRUTH), "\t".join(truth))
