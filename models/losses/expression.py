"""Losses as text: "0.85 ssim(window=3, kernel=box) + 0.15 l1" in, terms to call out.

A sum of terms, each with a weight before it (1 unless told, `*` between them is allowed) and with
options in parentheses as NAME=VALUE, parted by commas. A term without parentheses has the defaults
of its function.
"""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from torch import Tensor

from models.losses.depth import gradient, silog
from models.losses.overlap import batch_dice, dice, iou
from models.losses.pixels import batch_rmse, bce, charbonnier, l1, mse, rmse
from models.losses.similarity import SCALE_EXPONENTS, dssim, ms_ssim, ssim
from models.ssim import Kernel

Value = int | float | str


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What the rest of the program must know about a term."""

    function: Callable[..., Tensor]
    """(logits (N, C, H, W), target of that shape in [0, 1], *, options) -> (N,) losses, each of
    its image alone."""

    is_over_batch: bool = False
    """The function takes the samples' weights (N,) third, and returns one value of the whole batch
    N times. A sample of weight 0 must not change it."""

    smallest_px: int = 1
    """The least side of an image, apart from what a window needs."""

    num_halvings: int = 0
    """How often the images are halved before the last window is laid over them."""

    @property
    def options(self) -> dict[str, Value]:
        """The options and their defaults: the function's keyword-only parameters."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


TERMS: dict[str, Kind] = {
    "bce": Kind(function=bce),
    "dice": Kind(function=dice),
    "batch_dice": Kind(function=batch_dice, is_over_batch=True),
    "iou": Kind(function=iou),
    "l1": Kind(function=l1),
    "mse": Kind(function=mse),
    "rmse": Kind(function=rmse),
    "batch_rmse": Kind(function=batch_rmse, is_over_batch=True),
    "charbonnier": Kind(function=charbonnier),
    "ssim": Kind(function=ssim),
    "dssim": Kind(function=dssim),
    "ms_ssim": Kind(function=ms_ssim, num_halvings=len(SCALE_EXPONENTS) - 1),
    "gradient": Kind(function=gradient, smallest_px=2),
    "silog": Kind(function=silog),
}


@dataclass(frozen=True, slots=True)
class _Rule:
    """How an option's value is read; options of the same name mean the same in every term."""

    text: str
    read: Callable[[str], Value]
    holds: Callable[[Value], bool]


_KERNELS = get_args(Kernel)

_RULES: dict[str, _Rule] = {
    "window": _Rule("an odd number of pixels from 3 up", int, lambda v: v in range(3, 1 << 16, 2)),
    "kernel": _Rule(f"one of {', '.join(_KERNELS)}", str, lambda v: v in _KERNELS),
    "eps": _Rule("a number from 1e-8 to 1", float, lambda v: 1e-8 <= float(v) <= 1),
    "invariance": _Rule("a number from 0 to 1", float, lambda v: 0 <= float(v) <= 1),
}


@dataclass(frozen=True, slots=True)
class Term:
    """A term with its options, ready to be called."""

    name: str
    """A key of `TERMS`."""

    options: tuple[tuple[str, Value], ...]
    """Every option of the kind with its value."""

    def __call__(self, logits_NCHW: Tensor, target_NCHW: Tensor, weight_N: Tensor) -> Tensor:
        """(N,) losses, whose mean by the samples' weights is what the term adds.

        Raises:
            ValueError: The images are too small.
        """
        self.check_size(min(logits_NCHW.shape[-2:]))
        kind = TERMS[self.name]
        weights = (weight_N,) if kind.is_over_batch else ()
        return kind.function(logits_NCHW, target_NCHW, *weights, **dict(self.options))

    def __str__(self) -> str:
        """As it would be written: options that differ from the default, in parentheses."""
        defaults = TERMS[self.name].options
        told = [f"{key}={value}" for key, value in self.options if value != defaults[key]]
        return f"{self.name}({', '.join(told)})" if told else self.name

    def check_size(self, full_size: int, smallest_scale: int = 1) -> None:
        """Check that the term can be computed.

        Args:
            full_size: Side of the images in pixels.
            smallest_scale: The smallest of what is compared has 1/smallest_scale of that side.

        Raises:
            ValueError: It cannot; names the largest window that fits.
        """
        kind, size = TERMS[self.name], full_size // smallest_scale
        told = f"{size} px"
        if smallest_scale > 1:
            told += f" at the network's smallest scale, 1/{smallest_scale} of {full_size}"
        if size < kind.smallest_px:
            msg = f"the term {self} needs images of {kind.smallest_px} px, but they have {told}"
            raise ValueError(msg)
        window = dict(self.options).get("window", 1)
        assert isinstance(window, int)
        room = -(-size // 2**kind.num_halvings)
        if window <= room:
            return
        largest = room - 1 + room % 2  # windows are odd
        halved = f" on images halved {kind.num_halvings} times" if kind.num_halvings else ""
        advice = (
            f"the largest window that fits is {largest} px: write {self.name}(window={largest}), "
            if largest >= 3
            else "no window fits: "
        )
        msg = (
            f"the term {self} has a window of {window} px{halved}, but the images have {told}; "
            f"{advice}use larger images or another term"
        )
        raise ValueError(msg)


_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NAME = r"[A-Za-z][\w-]*"  # more than names have, so that MS-SSIM is called unknown
_PART = re.compile(
    rf"(?:(?P<factor>{_NUMBER})\s*\*?\s*)?(?P<name>{_NAME})\s*(?:\((?P<options>[^()]*)\))?"
)
_PLUS = re.compile(r"(?<!\d[eE])(?<!\.[eE])\+(?![^()]*\))")
"""A plus sign that no parentheses enclose, and no exponent has."""


def parse_loss(expression: str) -> tuple[tuple[float, Term], ...]:
    """Read a sum of weighted terms.

    Args:
        expression: Such as "bce + dice" or "0.85 ssim(window=3, kernel=box) + 0.15 l1".

    Returns:
        Weight and term of each part, in the order written.

    Raises:
        ValueError: The expression is no sum of weighted terms, names an unknown or repeated one,
            has no weight above 0, or an option is unknown or out of range; quotes the part.
    """
    terms: list[tuple[float, Term]] = []
    for part in map(str.strip, _PLUS.split(expression)):
        match = _PART.fullmatch(part)
        if match is None:
            msg = (
                f"loss {expression!r} is no sum of weighted terms such as "
                f'"0.85 ssim(window=3) + 0.15 l1": cannot read {part!r}'
            )
            raise ValueError(msg)
        name = match["name"]
        if name not in TERMS:
            msg = f"loss {expression!r} has an unknown term {name!r}; known: {', '.join(TERMS)}"
            raise ValueError(msg)
        try:
            term = Term(name, _read_options(name, match["options"] or ""))
        except ValueError as error:
            msg = f"loss {expression!r}: cannot read {part!r}: {error}"
            raise ValueError(msg) from None
        if any(term == earlier for _, earlier in terms):
            msg = f"loss {expression!r} names a term twice, {str(term)!r}; give it one weight"
            raise ValueError(msg)
        terms.append((_read_weight(expression, match["factor"] or "1"), term))
    if not any(weight for weight, _ in terms):
        msg = f"loss {expression!r} has no weight above 0, so nothing would be learned"
        raise ValueError(msg)
    return tuple(terms)


def _read_weight(expression: str, text: str) -> float:
    weight = float(text)
    if not math.isfinite(weight):
        msg = f"loss {expression!r} has the weight {text}, which is no finite number"
        raise ValueError(msg)
    return weight


def _read_options(name: str, text: str) -> tuple[tuple[str, Value], ...]:
    known = TERMS[name].options
    told: dict[str, Value] = {}
    for assignment in text.split(",") if text.strip() else ():
        key, equals, value = map(str.strip, assignment.partition("="))
        if not equals:
            msg = f"{key!r} is no option; options are written NAME=VALUE"
            raise ValueError(msg)
        if key not in known:
            msg = f"{name} has no option {key!r}; its options: {', '.join(known) or 'none'}"
            raise ValueError(msg)
        if key in told:
            msg = f"{key} is given twice"
            raise ValueError(msg)
        told[key] = _read_value(key, value)
    return tuple((known | told).items())


def _read_value(key: str, text: str) -> Value:
    rule = _RULES[key]
    try:
        value = rule.read(text)
    except ValueError:
        value = None
    if value is None or not rule.holds(value):
        msg = f"{key} is {text!r}, not {rule.text}"
        raise ValueError(msg)
    return value
