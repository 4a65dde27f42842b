"""Checkpoints: a dictionary of tensors and plain values in one file that knows when it is damaged.

    model ema optimizer schedule scaler rng progress config set

The file is what `torch.save` writes, and plain `torch.load(path, weights_only=True)` reads it. It
is a zip archive, and the archive's comment holds the SHA-256 of the file as it was without the
comment: one file, written under a temporary name, fsynced and renamed, so that a reader meets the
old checkpoint or the new one and never a half of it.

last.pt  previous.pt    the newest, and the one before it; there is always a whole one
best.pt                 the best validation's
step-00001000.pt        every so many steps, kept for good
"""

import hashlib
import io
import os
import pickle
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.error import CheckpointError, DamagedError

VERSION = 1
LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
KEYS = ("model", "ema", "optimizer", "schedule", "scaler", "rng", "progress", "config", "set")

_MARK = b"maskdepth checkpoint sha256 "
_COMMENT_BYTES = len(_MARK) + 64
_COMMENT_LENGTH = struct.pack("<H", _COMMENT_BYTES)


def encode(state: Mapping[str, Any]) -> bytes:
    """The bytes of a checkpoint file.

    Args:
        state: The keys of `KEYS`; values may nest dictionaries, lists, tensors, numbers and text.
    """
    buffer = io.BytesIO()
    torch.save({"version": VERSION, **state}, buffer)
    payload = buffer.getvalue()
    comment = _MARK + hashlib.sha256(payload).hexdigest().encode()
    # a zip file ends with the length of its comment, which torch leaves 0
    return payload[:-2] + _COMMENT_LENGTH + comment


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by `content`: whole or not at all, also when the power fails.

    Raises:
        CheckpointError: There is no room, or no right to write; the old file is as it was.
    """
    with _temporary(path, content) as temporary, writing(path):
        temporary.replace(path)
    _sync_folder(path.parent)


def write_newest(folder: Path, content: bytes) -> None:
    """Replace a run's `last.pt`, whose content becomes `previous.pt`.

    At every moment one of the two is whole, and it is the newest that was ever whole.

    Raises:
        CheckpointError: There is no room, or no right to write; both files are as they were.
    """
    last, previous = folder / LAST, folder / PREVIOUS
    with _temporary(last, content) as temporary, writing(last):
        if last.exists():
            _copy_by_link(last, previous)
        temporary.replace(last)
    _sync_folder(folder)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Around whatever writes a file or into a folder; hands the path through.

    Raises:
        CheckpointError: The disk is full, or there is no right to write.
    """
    try:
        yield path
    except OSError as error:
        msg = (
            f"{path} cannot be written ({error.strerror}); make room or choose another folder, "
            "and go on with --resume"
        )
        raise CheckpointError(msg) from None


def checkpoints_of(folder: Path) -> list[Path]:
    """A run's checkpoints, the newest first, as far as names and times tell."""
    known = [path for path in (folder / LAST, folder / PREVIOUS) if path.exists()]
    others = [*folder.glob("step-*.pt"), *folder.glob(BEST)]
    return known + sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)


@contextmanager
def _temporary(path: Path, content: bytes) -> Iterator[Path]:
    """`content` on the disk beside `path`, gone when left unless it was renamed."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with writing(path), temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink()


def _copy_by_link(path: Path, copy: Path) -> None:
    """Have the content of `path` under another name, too, never losing what was there before."""
    link = copy.with_name(copy.name + ".tmp")
    link.unlink(missing_ok=True)
    try:
        link.hardlink_to(path)
    except OSError:  # some file systems have no links; then there is no `path` for a moment
        path.replace(copy)
    else:
        link.replace(copy)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read and check a checkpoint; its tensors lie on the CPU.

    Raises:
        DamagedError: It is damaged, or none of ours.
        CheckpointError: There is no such file, it cannot be read, or it is of another version.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        msg = f"there is no checkpoint {path}; name the last.pt or best.pt of a run folder"
        raise CheckpointError(msg) from None
    except OSError as error:
        raise _damaged(path, f"reading it fails: {error.strerror}") from None
    try:
        state = torch.load(io.BytesIO(_payload(path, content)), "cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise _foreign(path, f"it holds what no checkpoint of ours does: {reason}") from None
    if not isinstance(state, dict) or not {"version", *KEYS} <= state.keys():
        raise _foreign(path, "it lacks parts that every checkpoint of ours has")
    if state["version"] != VERSION:
        msg = (
            f"{path} is a checkpoint of version {state['version']!r}, this program reads "
            f"{VERSION}; use the version of maskdepth that wrote it"
        )
        raise CheckpointError(msg)
    return state


def weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights to predict with: the averaged ones where the run kept an average."""
    return state["model"] if state["ema"] is None else state["ema"]


def load_weights(network: nn.Module, found: Mapping[str, Tensor], path: Path) -> None:
    """Copy weights from a checkpoint into a network.

    Args:
        network: Receives the weights where it lies.
        found: Weights by name, `weights(state)` or one of `state["model"]`, `state["ema"]`.
        path: Where they came from, for the message.

    Raises:
        CheckpointError: They are another network's; the message says what differs.
    """
    wanted = network.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in found]
    faults += [f"{name} is not expected" for name in found if name not in wanted]
    faults += [
        f"{name} is {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if faults:
        rest = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        msg = (
            f"{path} holds the weights of another network ({faults[0]}{rest}); "
            "build the network its own configuration names, or choose another checkpoint"
        )
        raise CheckpointError(msg)
    network.load_state_dict(dict(found))


def _payload(path: Path, content: bytes) -> bytes:
    """The file as torch wrote it, if it is still what it was.

    Raises:
        DamagedError: The hash is missing or wrong.
    """
    body, comment = content[:-_COMMENT_BYTES], content[-_COMMENT_BYTES:]
    if not content.startswith(b"PK\x03\x04"):
        raise _foreign(path, f"it begins with {content[:4]!r}" if content else "it is empty")
    if not comment.startswith(_MARK):
        raise _damaged(path, f"its {len(content):,} bytes do not end with their SHA-256")
    payload = body[:-2] + b"\0\0"
    digest = hashlib.sha256(payload).hexdigest().encode()
    if comment != _MARK + digest or body[-2:] != _COMMENT_LENGTH:
        raise _damaged(path, "its bytes do not match their SHA-256")
    return payload


def _foreign(path: Path, found: str) -> DamagedError:
    return DamagedError(
        f"{path} is not a maskdepth checkpoint ({found}); "
        "name the last.pt or best.pt of a run folder"
    )


def _damaged(path: Path, found: str) -> DamagedError:
    return DamagedError(
        f"{path} is damaged or cut short ({found}); restore it from a copy, or use the other one "
        "of last.pt and best.pt in its run folder"
    )
