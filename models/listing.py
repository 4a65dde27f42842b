"""What `maskdepth models` prints: every network with what one chooses it by.

Parameters are counted, and multiply-adds measured by torch's own counter, on networks without
storage (torch's meta device), so nothing is computed and nothing is allocated.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.registry import NETWORKS, NetworkConfig, NetworkKind, build_network
from models.sizes import SizeRule

SIZES_PX = (64, 96, 224)
FLOPS_PER_MULTIPLY_ADD = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One network in one width."""

    name: str
    """As `--network` takes it."""

    width: str
    """As `--width` takes it; "" for networks with one width."""

    source: str
    """Who published it."""

    parameters: int
    """Trainable numbers, each tensor once."""

    listed_parameters: int
    """As the source's own listing counts them: once per execution."""

    inputs: str
    """The images it looks at, in their order."""

    outputs: str
    """The tasks, with channels and scales where they are more than one."""

    sizes: str
    """What the side of its images must be."""

    gmac: Mapping[int, float | None]
    """Size in pixels -> 10^9 multiply-adds of one sample's forward pass; None: not allowed."""


def list_networks() -> list[Row]:
    """A row for every network and width."""
    return [_row(name, width, kind) for name, kind in NETWORKS.items() for width in kind.widths]


def describe(rows: Iterable[Row]) -> list[str]:
    """The rows as the lines of a table."""
    titles = ["name", "source", "parameters", "input", "outputs", "side"]
    titles += [f"GMAC@{size}" for size in SIZES_PX]
    table = [titles]
    footnotes: list[str] = []
    for row in rows:
        mark = ""
        if row.listed_parameters != row.parameters:
            mark = "*"
            footnotes.append(
                f"* {row.name}: its source lists {row.listed_parameters:,}, for it runs some twice"
            )
        table.append([
            f"{row.name} {row.width}".rstrip(),
            row.source,
            f"{row.parameters:,}{mark}",
            row.inputs,
            row.outputs,
            row.sizes,
            *("-" if cost is None else f"{cost:.2f}" for cost in row.gmac.values()),
        ])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    is_number = [title.startswith(("GMAC", "parameters")) for title in titles]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, is_number, strict=True)
        ).rstrip()
        for cells in table
    ]
    return [*lines, *footnotes]


def facts(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The rows as JSON takes them."""
    return [asdict(row) for row in rows]


def gmac(network: nn.Module, size: int) -> float:
    """10^9 multiply-adds of one forward pass of one sample.

    Args:
        network: On the meta device.
        size: Side of the images in pixels.
    """
    images = torch.empty(1, 3, size, size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(images, images)
    return counter.get_total_flops() / FLOPS_PER_MULTIPLY_ADD / 1e9


def num_parameters(network: nn.Module) -> int:
    """Trainable numbers; a tensor that is shared counts once."""
    return sum(part.numel() for part in network.parameters())


def _row(name: str, width: str, kind: NetworkKind) -> Row:
    with torch.device("meta"):
        network = build_network(NetworkConfig(name=name, width=width))
    parameters = num_parameters(network)
    again = sum(num_parameters(network.get_submodule(part)) for part in kind.listed_twice)
    return Row(
        name=name,
        width=width,
        source=kind.source,
        parameters=parameters,
        listed_parameters=parameters + again,
        inputs=kind.inputs,
        outputs=_outputs(kind),
        sizes=kind.sizes.text(),
        gmac=_costs(network, kind.sizes),
    )


def _costs(network: nn.Module, rule: SizeRule) -> dict[int, float | None]:
    """Measured once: all are convolutions, and no level halves any of these sizes with a rest."""
    allowed = [size for size in SIZES_PX if rule.allows(size)]
    per_pixel = gmac(network, allowed[0]) / allowed[0] ** 2 if allowed else 0.0
    return {size: round(per_pixel * size**2, 4) if size in allowed else None for size in SIZES_PX}


def _outputs(kind: NetworkKind) -> str:
    told = ", ".join(kind.tasks)
    if kind.depth_channels > 1:
        told += f" ({kind.depth_channels} channels)"
    if kind.scales:
        told += " at " + ", ".join(["1", *(f"1/{scale}" for scale in kind.scales)])
    return told
