"""One part of the doctor's report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """What was found of one thing."""

    name: str

    lines: tuple[str, ...] = ()
    """For a user."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    """The same as plain values."""

    remarks: tuple[str, ...] = ()
    """What makes the loader slower than it could be, with the next action."""

    faults: tuple[str, ...] = ()
    """What makes it fail, with the next action."""
