"""Which checkpoint a run goes on from, and what the two must have in common."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.checkpoint import LAST, checkpoints_of, read_checkpoint
from models.error import CheckpointError, DamagedError
from models.training.config import FREE_ON_RESUME, TrainConfig, differences

DAMAGED = "damaged.pt"
"""What a damaged `last.pt` is renamed to, so that no save takes it for the one before."""


def newest_whole(run_dir: Path, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]]:
    """Read the newest checkpoint of a run that is whole.

    Args:
        run_dir: The run folder, with a checkpoint in it.
        say: Told in one line of what was damaged, and of what is used in its place.

    Returns:
        Its path, and what `read_checkpoint` returned.

    Raises:
        DamagedError: None is whole.
        CheckpointError: The newest whole one is of another version.
    """
    paths = checkpoints_of(run_dir)
    faults: list[str] = []
    for path in paths:
        try:
            state = read_checkpoint(path)
        except DamagedError as error:
            faults.append(str(error).partition(";")[0])
            continue
        if faults:
            say(f"{'; '.join(faults)}; going on from {path} instead, "
                f"at step {state['progress']['step']:,}")  # fmt: skip
        if paths[0] != path and paths[0].name == LAST:
            paths[0].replace(run_dir / DAMAGED)
        return path, state
    msg = (
        f"no checkpoint in {run_dir} is whole ({'; '.join(faults)}); restore one from a copy, or "
        "train anew into another folder"
    )
    raise DamagedError(msg)


def check_same_network(path: Path, state: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse to begin with the weights of another network.

    Args:
        path: The checkpoint, for the message.
        state: What `read_checkpoint` returned.
        config: The whole configuration of the run that wants its weights.

    Raises:
        CheckpointError: The networks differ; the message spells it.
    """
    there, here = (found.get("network", {}) for found in (state["config"], config))
    if faults := differences(there, here, "network."):
        msg = (
            f"{path} holds another network ({'; '.join(faults)}); ask for that network, or leave "
            "out --init-from"
        )
        raise CheckpointError(msg)


def check_resumable(
    path: Path,
    state: Mapping[str, Any],
    *,
    config: Mapping[str, Any],
    fingerprint: str,
    sets: Sequence[str] = (),
) -> None:
    """Refuse a checkpoint of another set, another network or another configuration.

    Args:
        path: The checkpoint, for the message.
        state: What `read_checkpoint` returned.
        config: The whole configuration of the run that wants to go on.
        fingerprint: Of the set the run would go on with.
        sets: What that consists of, for the message.

    Raises:
        CheckpointError: Something differs; the message spells it.
    """
    if state["set"]["fingerprint"] != fingerprint:
        there = " and ".join(state["set"].get("sets") or [state["set"]["fingerprint"][:12]])
        msg = (
            f"{path} was trained on another set ({there} there, "
            f"{' and '.join(sets or [fingerprint[:12]])} here); give --data and --repeat "
            "as it was started with, or --out another folder"
        )
        raise CheckpointError(msg)
    # a version that knew fewer options ran with what are the others' defaults now
    train = _filled(state["config"].get("train", {}), TrainConfig().to_dict())
    faults = [
        fault
        for fault in differences({**state["config"], "train": train}, config)
        if not fault.startswith(tuple(f"train.{name}:" for name in FREE_ON_RESUME))
    ]
    if network := [fault for fault in faults if fault.startswith("network.")]:
        msg = (
            f"{path} holds another network ({'; '.join(network)}); "
            "ask for the network it was started with, or give --out another folder"
        )
        raise CheckpointError(msg)
    if faults:
        msg = (
            f"{path} was trained with another configuration ({'; '.join(faults)}); "
            "give the options it was started with, or --out another folder"
        )
        raise CheckpointError(msg)


def _filled(stored: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration with the defaults of what it does not mention."""
    filled = dict(stored)
    for key, default in defaults.items():
        if key not in stored:
            filled[key] = default
        elif isinstance(default, Mapping) and isinstance(stored[key], Mapping):
            filled[key] = _filled(stored[key], default)
    return filled
