"""Open a set: its manifest, and what lies on disk against it, before anything is streamed."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.error import LoaderError
from shards.manifest import BACKGROUNDS, FileRecord, Manifest, read_manifest

_MAX_FAULTS_TOLD = 20


def open_set(set_path: Path, *, verify_hashes: bool = False) -> Manifest:
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
        return (_hash_fault if hashed else _size_fault)(set_path / name, manifest.files[name])

    with ThreadPoolExecutor() as pool:
        found = pool.map(check, manifest.files)
        raise_faults(set_path, [fault for fault in found if fault])
    return manifest


def _size_fault(path: Path, record: FileRecord) -> str:
    try:
        difference = path.stat().st_size - record.bytes
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    if difference:
        found = f"{abs(difference)} bytes {'longer' if difference > 0 else 'shorter'}"
        return f"{path.name} is {found} than the manifest says"
    return ""


def _hash_fault(path: Path, record: FileRecord) -> str:
    if fault := _size_fault(path, record):
        return fault
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    return "" if found == record.sha256 else f"{path.name} has another SHA-256 than the manifest"


def raise_faults(set_path: Path, faults: Sequence[str]) -> None:
    """Tell all faults of a set at once, if there are any.

    Raises:
        LoaderError: There are.
    """
    if not faults:
        return
    told = "; ".join(faults[:_MAX_FAULTS_TOLD])
    if len(faults) > _MAX_FAULTS_TOLD:
        told += f"; and {len(faults) - _MAX_FAULTS_TOLD} more"
    msg = f"{told}; run `maskdepth verify {set_path}`, or `maskdepth convert` again to rewrite it"
    raise LoaderError(msg)
