"""Open a set: its manifest, and what lies on disk against it, before anything is streamed.

`sets.py` opens several as one, `remote_set.py` those that are not on this machine.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.error import LoaderError
from shards.manifest import BACKGROUNDS, FileRecord, Manifest, read_manifest

if TYPE_CHECKING:
    from pipeline.remote.folder import RemoteFolder

_MAX_FAULTS_TOLD = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedSet:
    """A set whose files were checked, and how it takes part in a stream."""

    location: str
    """The folder or URL that the user gave."""

    folder: Path
    """Where its manifest, indices and backgrounds lie; its shards, too, unless they are remote."""

    manifest: Manifest

    remote: "RemoteFolder | None" = None
    """Where its shards are fetched from."""

    repeats: int = 1
    """How often an epoch of training holds each of its samples."""

    label: str = ""
    """Its name among several, safe in a file name; empty if it is the only one."""


def open_set(set_path: Path, *, verify_hashes: bool = False) -> OpenedSet:
    """Read a set's manifest; check all sizes, and the SHA-256 of what nothing else checks.

    Images have a CRC each, which the source compares; indices and backgrounds have none, and are
    small: 30 MB for 400,000 samples.

    Args:
        set_path: Folder of the set.
        verify_hashes: Compare the SHA-256 of every file.

    Raises:
        ShardError: There is no sound manifest.
        LoaderError: Files are missing or differ; all of them are named at once.
    """
    manifest = read_manifest(set_path)

    def check(name: str) -> str:
        hashed = verify_hashes or name.endswith(".npy") or name == BACKGROUNDS
        return (hash_fault if hashed else _size_fault)(set_path / name, manifest.files[name])

    with ThreadPoolExecutor() as pool:
        found = pool.map(check, manifest.files)
        raise_faults(str(set_path), [fault for fault in found if fault])
    return OpenedSet(location=str(set_path), folder=set_path, manifest=manifest)


def size_fault(name: str, size: int, record: FileRecord) -> str:
    """What is wrong with a file of so many bytes; empty if it is as long as it should be."""
    if size == record.bytes:
        return ""
    change = "longer" if size > record.bytes else "shorter"
    return f"{name} is {abs(size - record.bytes)} bytes {change} than the manifest says"


def hash_fault(path: Path, record: FileRecord, name: str = "") -> str:
    """What is wrong with a file's content; empty if it is what it should be.

    Args:
        path: The file.
        record: What it should be.
        name: What to call it; its own name unless given.
    """
    name = name or path.name
    if fault := _size_fault(path, record, name):
        return fault
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return "" if found == record.sha256 else f"{name} has another SHA-256 than the manifest"


def _size_fault(path: Path, record: FileRecord, name: str = "") -> str:
    name = name or path.name
    try:
        return size_fault(name, path.stat().st_size, record)
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"


def raise_faults(location: Path | str, faults: Sequence[str]) -> None:
    """Tell all faults of a set at once, if there are any.

    Raises:
        LoaderError: There are.
    """
    if not faults:
        return
    told = "; ".join(faults[:_MAX_FAULTS_TOLD])
    if len(faults) > _MAX_FAULTS_TOLD:
        told += f"; and {len(faults) - _MAX_FAULTS_TOLD} more"
    msg = f"{told}; run `maskdepth verify {location}`, or `maskdepth convert` again to rewrite it"
    raise LoaderError(msg)
