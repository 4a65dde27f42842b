"""`maskdepth synth`: a data set of the task's kind, from nothing or from the user's own pictures.

Backgrounds and foregrounds are made first, then triplets are dealt in chunks to processes and
written in order by this one. Every random draw comes from the seed and the number of what is
drawn, so the zip has the same bytes for any number of processes.
"""

import io
import itertools
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from shards.error import ShardError
from shards.processes import Processes
from shards.synthetic.compositing import Backdrop, Bytes8, Chunk, render_chunk
from shards.synthetic.naming import ModestMuseum
from shards.synthetic.pairing import Plan
from shards.synthetic.pictures import PictureTask, list_pictures, make_background, make_foreground

CHUNK = 200
"""Triplets dealt to a process at a time: about 3 MB of JPEGs come back."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """What to make."""

    count: int
    """Triplets; exactly so many are made."""

    size: int = 224
    """Side of every composite, mask, depth map and background, in pixels."""

    seed: int = 0
    """Decides everything random."""

    quality: int = 75
    """JPEG quality of composites, masks and depth maps, 1 to 100."""

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
        for name, lowest, highest in (
            ("count", 1, 100_000_000),
            ("size", 32, 4096),
            ("seed", 0, 2**63 - 1),
            ("quality", 1, 100),
            ("num_backgrounds", 1, self.count),
            ("num_foregrounds", 1, self.count),
            ("processes", 1, 1024),
        ):
            value = getattr(self, name)
            if value is not None and not lowest <= value <= highest:
                msg = f"{name} is {value}; allowed are {lowest} to {highest}"
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
        out: Folder for the zips; made if need be.
        config: What to make.
        on_progress: Called with the number of triplets done so far.

    Raises:
        ShardError: A folder or picture of the user's cannot be used, the zip exists already, it
            cannot be written, or a process died.
    """
    background_paths = _sources(config.backgrounds, config.num_backgrounds, config.count, 200, 4)
    foreground_paths = _sources(config.foregrounds, config.num_foregrounds, config.count, 100, 8)
    plan = Plan(
        count=config.count,
        num_backgrounds=len(background_paths),
        num_foregrounds=len(foreground_paths),
    )
    layout = ModestMuseum(plan)
    with Processes(config.processes) as processes, _new_zip(out / layout.archive) as archive:
        backdrops = _whole(processes.map(make_background, _picture_tasks(config, background_paths)))
        cutouts = _whole(processes.map(make_foreground, _picture_tasks(config, foreground_paths)))
        _write_pictures(archive, layout, backdrops, cutouts)
        done = 0
        for rendered in processes.map(render_chunk, _chunks(config, plan, backdrops, cutouts)):
            for result in rendered:
                images = (result.composite, result.mask, result.depth)
                for name, content in zip(layout.triplet(result.triplet), images, strict=True):
                    _add(archive, name, content)
                layout.note(result.triplet, result.place)
            done += len(rendered)
            if on_progress is not None:
                on_progress(done)
        for name, text in layout.tables().items():
            _add(archive, name, text)
        members = len(archive.filelist)
    path = out / layout.archive
    return SynthReport(
        paths=(path,),
        triplets=done,
        backgrounds=len(backdrops),
        foregrounds=len(cutouts),
        positions=plan.num_positions,
        members=members,
        bytes=path.stat().st_size,
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
    config: SynthConfig, plan: Plan, backdrops: Sequence[Backdrop], cutouts: Sequence[Bytes8]
) -> Iterator[Chunk]:
    triplets = plan.triplets()
    while batch := tuple(itertools.islice(triplets, CHUNK)):
        yield Chunk(
            seed=config.seed,
            size=config.size,
            quality=config.quality,
            backdrops={each.background: backdrops[each.background] for each in batch},
            cutouts={each.foreground: cutouts[each.foreground] for each in batch},
            triplets=batch,
        )


def _write_pictures(
    archive: zipfile.ZipFile,
    layout: ModestMuseum,
    backdrops: Sequence[Backdrop],
    cutouts: Sequence[Bytes8],
) -> None:
    for number, backdrop in enumerate(backdrops):
        _add(archive, layout.background(number), backdrop.jpeg)
    for number, cutout in enumerate(cutouts):
        picture_name, mask_name = layout.foreground(number)
        _add(archive, picture_name, _png(cutout))
        _add(archive, mask_name, _png(cutout[..., 3]))


def _png(pixels: Bytes8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Store a member; its time is the zip format's first, so that equal seeds give equal bytes."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.external_attr = 0o644 << 16
    archive.writestr(info, content)


@contextmanager
def _new_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A stored zip under a temporary name; it gets its own when it is whole and on disk.

    Raises:
        ShardError: The zip exists already, or cannot be written.
    """
    if path.exists():
        msg = f"{path} exists already; delete it or choose another folder"
        raise ShardError(msg)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                yield archive
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        msg = f"{path} cannot be written ({error}); make room or choose another folder"
        raise ShardError(msg) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
