"""What a checkpoint must have in common with the run that wants to go on from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.error import CheckpointError
from models.training.config import FREE_ON_RESUME, differences


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
    faults = [
        fault
        for fault in differences(state["config"], config)
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
