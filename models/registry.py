"""The networks by name: a `NetworkConfig` in, a module out.

Every network's `forward(background, composite)` takes normalised (N, 3, H, W) images and returns a
`Prediction` at the same size. Another network is one more row of `NETWORKS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from models import unet
from models.reference import milesial, multiscale
from models.reference.customnet import CustomNet
from models.reference.inputs import BACKGROUND_FIRST, COMPOSITE_ALONE
from models.reference.modest import DepthMaskNet8, MaskNet3
from models.sizes import SizeRule

MASK, DEPTH = "mask", "depth"


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkKind:
    """What the rest of the program must know about a network before it is built."""

    build: Callable[[str], nn.Module]
    """Makes the module of a width."""

    source: str
    """Who published it: the reference system, or this program."""

    tasks: tuple[str, ...]
    """What it predicts: `MASK`, `DEPTH`."""

    inputs: str
    """What it looks at, in the order in which it concatenates: see `models.reference.inputs`."""

    sizes: SizeRule
    """Which images it can take."""

    widths: tuple[str, ...] = ("",)
    """The widths it comes in, the default first; of networks with one width, "" alone."""

    depth_channels: int = 1
    """Channels of its depth logits."""

    scales: tuple[int, ...] = ()
    """Besides at full resolution it predicts at 1 / these."""

    listed_twice: tuple[str, ...] = ()
    """Submodules that the published network runs twice, and so counts twice in its listing."""

    @property
    def needs_background(self) -> bool:
        """Whether it looks at the background; False: at the composite alone."""
        return self.inputs != COMPOSITE_ALONE


def _milesial(name: str, source: str, *tasks: str, num_poolings: int) -> NetworkKind:
    return NetworkKind(
        build=lambda _: milesial.MilesialUNet(name),
        source=source,
        tasks=tasks,
        inputs=milesial.SHAPES[name].inputs,
        sizes=SizeRule(least=2**num_poolings, least_alone=2 ** (num_poolings + 1)),
    )


def _multiscale(name: str) -> NetworkKind:
    return NetworkKind(
        build=lambda _: multiscale.MultiScaleResNet(name),
        source=_001,
        tasks=(DEPTH,),
        inputs=multiscale.INPUTS[name],
        sizes=SizeRule(least=64, multiple=32, least_alone=64),
        scales=(2, 4, 8),
    )


_000, _001, _002 = "000 Sushmitha-Katti", "001 gmrammohan15", "002 Gilf641"
_003, _004 = "003 praveenraghuvanshi1512", "004 rvk007"

NETWORKS: dict[str, NetworkKind] = {
    "unet": NetworkKind(
        build=unet.UNet,
        source="maskdepth",
        tasks=(MASK, DEPTH),
        inputs=BACKGROUND_FIRST,
        sizes=SizeRule(least=32, multiple=unet.SIZE_MULTIPLE, least_alone=64),
        widths=tuple(unet.WIDTHS),
    ),
    "000-mask": _milesial("000-mask", _000, MASK, num_poolings=4),
    "000-depth": _milesial("000-depth", _000, DEPTH, num_poolings=5),
    "000-both": _milesial("000-both", _000, MASK, DEPTH, num_poolings=5),
    "001-unet": _milesial("001-unet", _001, MASK, num_poolings=4),
    "001-resnet18": _multiscale("001-resnet18"),
    "001-resnet18-6ch": _multiscale("001-resnet18-6ch"),
    "002-dual-unet": _milesial("002-dual-unet", _002, MASK, DEPTH, num_poolings=4),
    "003-tied": NetworkKind(
        build=lambda _: CustomNet(tied=True),
        source=_003,
        tasks=(MASK, DEPTH),
        inputs=COMPOSITE_ALONE,
        sizes=SizeRule(least=16, least_alone=32),
        depth_channels=3,
        listed_twice=("decoder",),
    ),
    "003-untied": NetworkKind(
        build=lambda _: CustomNet(tied=False),
        source=_003,
        tasks=(MASK, DEPTH),
        inputs=COMPOSITE_ALONE,
        sizes=SizeRule(least=16, least_alone=32),
        depth_channels=3,
    ),
    "004-masknet3": NetworkKind(
        build=lambda _: MaskNet3(),
        source=_004,
        tasks=(MASK,),
        inputs=BACKGROUND_FIRST,
        sizes=SizeRule(least=1, least_alone=2),
    ),
    "004-depthmasknet8": NetworkKind(
        build=lambda _: DepthMaskNet8(),
        source=_004,
        tasks=(MASK, DEPTH),
        inputs=BACKGROUND_FIRST,
        sizes=SizeRule(least=32, multiple=32, least_alone=64),
    ),
}
"""Every network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Which network."""

    name: str = "unet"
    """A key of `NETWORKS`."""

    width: str = ""
    """How many channels; "" becomes the network's first width, or stays where it has but one. Of
    `unet` s, the default, trains on two CPU cores; m and l want a GPU."""

    def __post_init__(self) -> None:
        """Check both names."""
        if self.name not in NETWORKS:
            msg = f"no network is called {self.name!r}; there are: {', '.join(NETWORKS)}"
            raise ValueError(msg)
        widths = NETWORKS[self.name].widths
        if not self.width:
            object.__setattr__(self, "width", widths[0])
        if self.width not in widths:
            has = f"it has: {', '.join(widths)}" if any(widths) else "leave it out: there is one"
            msg = f"network {self.name!r} has no width {self.width!r}; {has}"
            raise ValueError(msg)


def build_network(config: NetworkConfig) -> nn.Module:
    """A network with fresh weights, drawn from torch's default generator.

    Images whose sides break its rule are refused with a ValueError: some networks would fail
    somewhere inside, others predict at another size than the images'.
    """
    network = NETWORKS[config.name].build(config.width)
    network.register_forward_pre_hook(partial(_check_images, config), with_kwargs=True)
    return network


def _check_images(
    config: NetworkConfig, _: nn.Module, args: tuple[Any, ...], named: dict[str, Any]
) -> None:
    composite = named["composite"] if "composite" in named else args[-1]
    for side in composite.shape[-2:]:
        check_size(config, side)


def size_rule(config: NetworkConfig) -> SizeRule:
    """Which image sizes the network can take."""
    return NETWORKS[config.name].sizes


def needs_background(config: NetworkConfig) -> bool:
    """Whether the network refuses to run without backgrounds."""
    return NETWORKS[config.name].needs_background


def smallest_scale(config: NetworkConfig) -> int:
    """Its smallest prediction has 1 / this of the images' side; 1 where it predicts at one."""
    return max(NETWORKS[config.name].scales, default=1)


def check_size(config: NetworkConfig, size: int, batch_size: int | None = None) -> None:
    """Check the side of a stage's images.

    Args:
        config: The network.
        size: The side in pixels.
        batch_size: Images per training step; None where nothing is trained.

    Raises:
        ValueError: `size` breaks the network's rule; names the nearest sizes that keep it.
    """
    rule = size_rule(config)
    if not rule.allows(size):
        msg = (
            f"network {config.name!r} takes images whose side is {rule.text()}, "
            f"not {size}; use {' or '.join(map(str, rule.nearest(size)))}"
        )
        raise ValueError(msg)
    if batch_size == 1 and size < rule.least_alone:
        msg = (
            f"network {config.name!r} cannot train at {size} px on batches of one image: BatchNorm "
            f"would see a single pixel; use {rule.least_alone} px, or 2 images or more"
        )
        raise ValueError(msg)
