"""`manifest.json`: what a set holds. Written last, so a set without one is unfinished.

The file is canonical JSON (sorted keys, two spaces, one newline at the end) with a SHA-256 over
its own text less that field, which is also the set's fingerprint.
"""

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from shards.error import ShardError

FORMAT = "maskdepth-set"
VERSION = 1
NAME = "manifest.json"
BACKGROUNDS = "backgrounds.tar"
REJECTED = "rejected.jsonl"

FATES = ("used", "backgrounds", "auxiliary", "debris", "not_selected", "rejected")
"""What can become of a source member; the accounting lists each, and their sum as `members`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """What a file of the set must be."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord:
    """One `NAME.tar` with its `NAME.idx` and `NAME.npy`."""

    name: str
    split: str
    samples: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRecord:
    """One zip or folder the set was made from; `digest` is over its directory of members."""

    name: str
    bytes: int
    members: int
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelStatistics:
    """Mean and standard deviation per channel of values in [0, 1]; RGB order, or one grey."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The whole manifest; see `docs/format.md`."""

    layout: str
    """Name of the layout the sources were read by."""

    options: Mapping[str, Any]
    """The conversion's options that decide the bytes (seed, split, val, check, ...)."""

    split: Mapping[str, Any]
    """`rule` (as applied), `held_out` backgrounds and foregrounds, `note` where it fell back."""

    sources: tuple[SourceRecord, ...]

    image_size: tuple[int, int]
    """Height and width in pixels of every image of the set."""

    backgrounds: tuple[str, ...]
    """Background ids; the position is the background number. Empty: the set has none."""

    foregrounds: tuple[str, ...]
    """Foreground ids; the position is the foreground number. Empty: unknown."""

    depth: Mapping[str, Any]
    """`polarity` (near-dark, near-bright), `scaling` (absolute, stretched), and as the sources
    stored it: `encoding` (grey, plasma, magma) and the `frame` of figures."""

    repaired: Mapping[str, int]
    """Per part: images that were stored once more as grey PNG, because they had to be repaired."""

    estimated_backgrounds: tuple[str, ...]
    """Background ids that the sources did not hold and that were estimated from composites."""

    statistics: Mapping[str, ChannelStatistics]
    """Per part: background, composite, mask, depth."""

    statistics_samples: int
    """How many samples the statistics were taken over, evenly spread over the global order: all, if
    they are few; 2,000, or under strict checking one in eight, if they are many."""

    mean_depth_png: str
    """Base64 of a small grey PNG: the mean depth image of the training split."""

    accounting: Mapping[str, int]
    """Source members by fate; the fates add up to `members`."""

    shards: tuple[ShardRecord, ...]

    files: Mapping[str, FileRecord]
    """Every file of the set but the manifest itself."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the canonical text: names this set in checkpoints and caches."""
        return hashlib.sha256(self._body().encode()).hexdigest()

    def split_shards(self, split: str) -> tuple[ShardRecord, ...]:
        """The shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def num_samples(self, split: str) -> int:
        """Samples in one split."""
        return sum(shard.samples for shard in self.split_shards(split))

    def mean_depth(self, size: int) -> npt.NDArray[np.float32]:
        """The mean depth image as a (size, size) array in [0, 1]."""
        with Image.open(io.BytesIO(base64.b64decode(self.mean_depth_png))) as image:
            resized = image.resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(resized, dtype=np.float32) / np.float32(255)

    def text(self) -> str:
        """The file's content."""
        return _canonical({**json.loads(self._body()), "sha256": self.fingerprint})

    def _body(self) -> str:
        return _canonical({"format": FORMAT, "version": VERSION, **asdict(self)})


def read_manifest(set_path: Path) -> Manifest:
    """Read and check the manifest of a set.

    Raises:
        ShardError: There is none, it is of another format, or its text was changed.
    """
    path = set_path / NAME
    if not set_path.is_dir():
        msg = f"{set_path} is no folder; make a set there with `maskdepth convert SOURCE --out SET`"
        raise ShardError(msg)
    try:
        text = path.read_bytes().decode("utf-8")
        loaded = json.loads(text)
    except FileNotFoundError:
        msg = (
            f"{set_path} has no {NAME}, so it is no finished set; "
            "run `maskdepth convert` into it (again) to finish it"
        )
        raise ShardError(msg) from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(loaded, dict) or loaded.get("format") != FORMAT:
        raise _damaged(path, "it is no manifest of a maskdepth set")
    if loaded.get("version") != VERSION:
        msg = (
            f"{path} has format version {loaded.get('version')!r}, this program reads {VERSION}; "
            "use the version that wrote it, or convert again"
        )
        raise ShardError(msg)
    try:
        manifest = _parse(loaded)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from None
    if loaded.get("sha256") != manifest.fingerprint:
        raise _damaged(path, "its own SHA-256 does not match its text")
    if text != manifest.text():
        raise _damaged(path, "it is not written as this program writes it")
    return manifest


def _parse(loaded: dict[str, Any]) -> Manifest:
    values = {field.name: loaded[field.name] for field in fields(Manifest)}
    height, width = (int(side) for side in values["image_size"])
    return Manifest(
        **{
            **values,
            "sources": tuple(SourceRecord(**record) for record in values["sources"]),
            "image_size": (height, width),
            "backgrounds": tuple(str(name) for name in values["backgrounds"]),
            "foregrounds": tuple(str(name) for name in values["foregrounds"]),
            "estimated_backgrounds": tuple(str(n) for n in values["estimated_backgrounds"]),
            "statistics": {
                part: ChannelStatistics(mean=tuple(record["mean"]), std=tuple(record["std"]))
                for part, record in values["statistics"].items()
            },
            "shards": tuple(_shard(record) for record in values["shards"]),
            "files": {name: FileRecord(**record) for name, record in values["files"].items()},
        }
    )


def _shard(record: dict[str, Any]) -> ShardRecord:
    shard = ShardRecord(**record)
    if "/" in shard.name or shard.name.startswith(".") or shard.samples < 0:
        msg = f"shard record {record!r}"
        raise ValueError(msg)
    return shard


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=True) + "\n"


def _damaged(path: Path, found: str) -> ShardError:
    return ShardError(
        f"{path} is damaged ({found}); run `maskdepth convert` again into a new folder, "
        "or restore the file"
    )
