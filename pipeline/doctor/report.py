"""`maskdepth doctor`: what is here, what the loader would choose here, and what bounds it.

A remark is what makes the loader slower than it could be; a fault is what makes it fail. A part of
the examination that fails itself is a remark: odd machines are what a doctor is for.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.doctor.loader import examine_loader
from pipeline.doctor.machine import examine_gpus, examine_machine, examine_packages
from pipeline.doctor.section import Section
from pipeline.doctor.shard_set import IN_MEMORY, examine_set, make_set
from pipeline.error import LoaderError
from shards.error import ShardError

_WIDTH = 12

_USUAL_SAMPLES = 400_000
"""What a set is taken to hold when none is given."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What an examination found."""

    sections: tuple[Section, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """What makes the loader fail."""
        return tuple(fault for section in self.sections for fault in section.faults)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What makes it slower than it could be."""
        return tuple(remark for section in self.sections for remark in section.remarks)

    def facts(self) -> dict[str, Any]:
        """Everything, as plain values."""
        found: dict[str, Any] = {section.name: dict(section.facts) for section in self.sections}
        return {**found, "remarks": list(self.remarks), "faults": list(self.faults)}

    def lines(self) -> Iterator[str]:
        """Everything, for a user."""
        for section in self.sections:
            for i, line in enumerate(section.lines):
                yield f"{'' if i else section.name:<{_WIDTH}} {line}"
        for name, told in (("remark", self.remarks), ("fault", self.faults)):
            for line in told:
                yield f"{name:<{_WIDTH}} {line}"
        if not self.faults:
            yield f"{'':<{_WIDTH}} no faults"


def examine(device: torch.device, data: Path | None = None) -> Report:
    """Look at everything; takes some seconds.

    Args:
        device: Where batches would go.
        data: A set, whose files and samples are measured; None: a few made-up samples.
    """
    sections = [
        _attempt("machine", examine_machine),
        _attempt("gpu", examine_gpus),
        _attempt("packages", examine_packages),
    ]
    if data is None:
        sections.append(_attempt("loader", lambda: _examine_without_set(device)))
        return Report(sections=tuple(sections))
    sections.append(_attempt("set", lambda: examine_set(data)))
    if not sections[-1].faults:
        disk = _disk_samples_per_s(sections[-1].facts)
        sections.append(_attempt("loader", lambda: examine_loader(data, device, disk=disk)))
    return Report(sections=tuple(sections))


def _disk_samples_per_s(found: Mapping[str, Any]) -> float | None:
    """What the disk gives, where the set is not in memory."""
    rate = found.get("disk_bytes_per_s")
    if rate is None or found["in_page_cache"] >= IN_MEMORY:
        return None
    return rate / found["bytes_per_sample"]


def _attempt(name: str, examination: Callable[[], Section]) -> Section:
    try:
        return examination()
    except (ShardError, LoaderError) as error:
        return Section(name=name, faults=(str(error),))
    except Exception as error:
        _logger.debug("%s", name, exc_info=True)
        told = " ".join(f"{type(error).__name__}: {error}".split())
        return Section(name=name, remarks=(f"{name} could not be examined ({told})",))


def _examine_without_set(device: torch.device) -> Section:
    with tempfile.TemporaryDirectory(prefix="maskdepth-doctor-") as folder:
        return examine_loader(make_set(Path(folder)), device, num_samples=_USUAL_SAMPLES)
