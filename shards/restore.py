"""Damaged or missing files of a set, written again from its sources: the same bytes or none."""

import shutil
from collections.abc import Collection
from pathlib import Path

from shards.conversion import Progress
from shards.convert import rewrite
from shards.error import ShardError
from shards.layouts import layout_of
from shards.manifest import NAME, Manifest, SourceRecord, read_manifest
from shards.options import ConvertConfig
from shards.reading import read_sources
from shards.shard import file_matches, sync_folder


def restore(
    set_path: Path, sources: Collection[Path], on_progress: Progress | None = None
) -> tuple[str, ...]:
    """Write again what does not match the manifest.

    Args:
        set_path: The set; its manifest must be whole.
        sources: What the set was made from, in any order.
        on_progress: Called with samples done, samples in all, bytes written.

    Returns:
        The names of the files that were restored; none if all were whole.

    Raises:
        ShardError: The sources are not those of the set, or give other bytes.
    """
    manifest = read_manifest(set_path)
    damaged = [name for name, record in manifest.files.items()
               if not file_matches(set_path / name, record)]  # fmt: skip
    if not damaged:
        return ()
    layout = layout_of(manifest)
    config = _config_of(manifest, tuple(sources), set_path)
    reading = read_sources(config, layout)
    _check_sources(manifest, reading.sources())
    work = set_path / ".restore"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        written = rewrite(config, reading, damaged, work, on_progress)
        other = [name for name in damaged if written.get(name) != manifest.files[name]]
        if other:
            msg = (
                f"the sources give other bytes for {', '.join(other[:5])} than {set_path / NAME} "
                "tells; was the set made by another version? convert again into a new folder"
            )
            raise ShardError(msg)
        for name in damaged:
            (work / name).replace(set_path / name)
        sync_folder(set_path)
    except OSError as error:
        msg = f"cannot write into {set_path}: {error}; make room, then run the same command again"
        raise ShardError(msg) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return tuple(damaged)


def _config_of(manifest: Manifest, sources: tuple[Path, ...], out: Path) -> ConvertConfig:
    """The configuration that the set was made with."""
    options = {name: value for name, value in manifest.options.items()
               if name != "layout_definition"}  # fmt: skip
    try:
        return ConvertConfig(
            **{**options, "sets": tuple(options["sets"])},
            sources=sources,
            out=out,
            layout=manifest.layout,
            pairing_check=False,
        )
    except (TypeError, KeyError, ValueError) as error:
        msg = f"{out / NAME} has options that this version does not know ({error}); convert again"
        raise ShardError(msg) from None


def _check_sources(manifest: Manifest, found: tuple[SourceRecord, ...]) -> None:
    if found == manifest.sources:
        return
    here = {source.name: source for source in found}
    there = {source.name: source for source in manifest.sources}
    faults = [f"{name} is not among them" for name in there if name not in here]
    faults += [f"{name} does not belong to the set" for name in here if name not in there]
    faults += [f"{name} has changed" for name in here.keys() & there.keys()
               if here[name] != there[name]]  # fmt: skip
    msg = (
        f"these are not the sources that the set was made from: {'; '.join(sorted(faults))}; "
        "name the same zips or the same folder again"
    )
    raise ShardError(msg)
