"""`SET/.convert`: what makes a killed conversion, rerun, end as if it had never been killed."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shards.error import ShardError
from shards.manifest import NAME, Manifest, read_manifest
from shards.shard import file_matches, sync_folder, write_file


def finished_set(out: Path, identity: Mapping[str, Any]) -> Manifest | None:
    """The manifest of a set that is already there, if it is this very one."""
    if not (out / NAME).exists():
        return None
    manifest = read_manifest(out)
    found = {"layout": manifest.layout, "options": dict(manifest.options),
             "sources": [asdict(source) for source in manifest.sources]}  # fmt: skip
    different = [name for name, value in identity.items() if found[name] != value]
    if different:
        msg = (
            f"{out} holds a finished set made with other {' and '.join(different)}; "
            "choose another folder, or remove this one"
        )
        raise ShardError(msg)
    damaged = [name for name, record in manifest.files.items()
               if not file_matches(out / name, record)]  # fmt: skip
    if damaged:
        (out / NAME).unlink()
        return None
    return manifest


@contextmanager
def work_folder(out: Path, identity: Mapping[str, Any]) -> Iterator[Path]:
    """`SET/.convert`, held by one process at a time and by one plan for ever."""
    work = out / ".convert"
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / "lock").open("w")
    except OSError as error:
        msg = f"cannot write into {out}: {error.strerror}; choose another folder"
        raise ShardError(msg) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            msg = f"another conversion is writing into {out}; wait for it, or choose another folder"
            raise ShardError(msg) from None
        plan = work / "plan.json"
        text = json.dumps(identity, sort_keys=True, indent=2)
        if plan.exists() and plan.read_text(encoding="utf-8") != text:
            msg = (
                f"{out} holds an unfinished conversion of other sources or options; "
                f"choose another folder, or remove {work} to start over"
            )
            raise ShardError(msg)
        if not plan.exists():
            write_file(plan, text.encode())
        sync_folder(out)
        yield work
