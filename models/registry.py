"""The networks by name: a `NetworkConfig` in, a module out.

Every network's `forward(background, composite)` takes normalised (N, 3, H, W) images and returns a
`Prediction` at the same size. Another network is one more row of `NETWORKS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from models import unet


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkKind:
    """What the rest of the program must know about a network before it is built."""

    build: Callable[[str], nn.Module]
    """Makes the module of a width."""

    widths: tuple[str, ...]
    """The widths it comes in, narrow to wide."""

    size_multiple: int
    """The side of its images must be a multiple of this many pixels."""

    needs_background: bool
    """Whether it compares the composite with the background; False: it looks at the first alone."""


NETWORKS: dict[str, NetworkKind] = {
    "unet": NetworkKind(
        build=unet.UNet,
        widths=tuple(unet.WIDTHS),
        size_multiple=unet.SIZE_MULTIPLE,
        needs_background=True,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Which network."""

    name: str = "unet"
    """A key of `NETWORKS`."""

    width: str = "s"
    """How many channels: s trains on two CPU cores, m and l want a GPU."""

    def __post_init__(self) -> None:
        """Check both names."""
        if self.name not in NETWORKS:
            msg = f"no network is called {self.name!r}; there are: {', '.join(NETWORKS)}"
            raise ValueError(msg)
        widths = NETWORKS[self.name].widths
        if self.width not in widths:
            msg = f"network {self.name!r} has no width {self.width!r}; it has: {', '.join(widths)}"
            raise ValueError(msg)


def build_network(config: NetworkConfig) -> nn.Module:
    """A network with fresh weights, drawn from torch's default generator."""
    return NETWORKS[config.name].build(config.width)


def size_rule(config: NetworkConfig) -> int:
    """The number of pixels that an image's side must be a multiple of."""
    return NETWORKS[config.name].size_multiple


def needs_background(config: NetworkConfig) -> bool:
    """Whether the network refuses to run without backgrounds."""
    return NETWORKS[config.name].needs_background


def check_size(config: NetworkConfig, size: int) -> None:
    """Check the side of a stage's images.

    Raises:
        ValueError: `size` breaks the network's rule; names the nearest sizes that keep it.
    """
    multiple = size_rule(config)
    if size >= multiple and size % multiple == 0:
        return
    below = max(0, size // multiple * multiple)
    allowed = [str(side) for side in (below, below + multiple) if side > 0]
    msg = (
        f"network {config.name!r} takes images whose side is a multiple of {multiple} px, "
        f"not {size}; use {' or '.join(allowed)}"
    )
    raise ValueError(msg)
