"""Curves as SVG: series of (x, y) in, one picture out, drawn by us so that a page needs no more.

Colours are the page's CSS variables, so one picture serves a light and a dark page.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 24, 30
MOST_POINTS = 300
"""A longer line shows the means of so many groups of neighbours."""

_LONE_PX = 16
_LEAST = 1e-30  # what is smaller counts as 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One curve."""

    name: str
    pieces: tuple[tuple[Sequence[float], Sequence[float]], ...]
    """x and y of each stretch; the line is broken between two."""

    colour: int
    """Which of the page's colours, from 1."""

    is_dashed: bool = False
    """For what only serves to compare."""

    has_dots: bool = False
    """For what was measured now and then."""

    @property
    def values(self) -> list[float]:
        """Every y."""
        return [value for _, ys in self.pieces for value in ys]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Curves over one pair of axes."""

    title: str
    series: tuple[Series, ...]
    show: Callable[[float], str]
    """A value as text."""

    is_logarithmic: bool = False
    from_zero: bool = False
    hint: str = ""
    """What the reader should know of it, in a line."""

    borders: tuple[tuple[float, float, str], ...] = field(default=())
    """From, to and name of each stage, in x."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(series.values for series in self.series)


def draw(chart: Chart) -> str:
    """The picture, as an SVG element; its title is for those who cannot see it."""
    values = [value for series in chart.series for value in series.values]
    assert values, "an empty chart is not drawn"
    logarithmic = chart.is_logarithmic and min(values) > _LEAST
    low, high, ticks = _axis(values, logarithmic=logarithmic, from_zero=chart.from_zero)
    right = max(
        [x for series in chart.series for xs, _ in series.pieces for x in xs]
        + [end for _, end, _ in chart.borders]
    )

    def x_px(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * x / (right or 1)

    def y_px(y: float) -> float:
        share = (
            (_log(y) - _log(low)) / (_log(high) - _log(low))
            if logarithmic
            else (y - low) / (high - low)
        )
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">',
        *_grid(chart, ticks, y_px),
        *_samples_axis(right, x_px),
        *_borders(chart.borders, x_px),
        *(_curve(series, chart.show, x_px, y_px) for series in chart.series),
        "</svg>",
    ]
    return "\n".join(parts)


def thinned(
    xs: Sequence[float], ys: Sequence[float], most: int = MOST_POINTS
) -> tuple[list[float], list[float]]:
    """The means of at most so many groups of neighbours; short curves as they are."""
    count = len(xs)
    if count <= most:
        return list(xs), list(ys)
    borders = [count * group // most for group in range(most + 1)]
    groups = list(pairwise(borders))
    means = [
        [sum(values[begin:end]) / (end - begin) for begin, end in groups] for values in (xs, ys)
    ]
    return means[0], means[1]


def short(number: float) -> str:
    """A count in few letters: 950, 1.5k, 12M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:.3g}"


def _grid(chart: Chart, ticks: Iterable[float], y_px: Callable[[float], float]) -> Iterable[str]:
    for tick in ticks:
        y = f"{y_px(tick):.1f}"
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield (
            f'<text class="tick" x="{LEFT - 6}" y="{y}" text-anchor="end" '
            f'dominant-baseline="central">{escape(chart.show(tick))}</text>'
        )


def _samples_axis(right: float, x_px: Callable[[float], float]) -> Iterable[str]:
    base = HEIGHT - BOTTOM
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>'
    for tick in _linear_ticks(0, right or 1, 6):
        anchor = "end" if x_px(tick) > WIDTH - RIGHT - 12 else "middle"
        yield (
            f'<text class="tick" x="{x_px(tick):.1f}" y="{base + 16}" '
            f'text-anchor="{anchor}">{short(tick)}</text>'
        )


def _borders(
    borders: Sequence[tuple[float, float, str]], x_px: Callable[[float], float]
) -> Iterable[str]:
    for number, (begin, end, name) in enumerate(borders):
        left, right = x_px(begin), x_px(end)
        if number:
            yield (
                f'<line class="border" x1="{left:.1f}" x2="{left:.1f}" y1="{TOP - 14}" '
                f'y2="{HEIGHT - BOTTOM}"/>'
            )
        if right - left > 7 * len(name):
            yield (
                f'<text class="stage" x="{(left + right) / 2:.1f}" y="{TOP - 10}" '
                f'text-anchor="middle">{escape(name)}</text>'
            )


def _curve(
    series: Series,
    show: Callable[[float], str],
    x_px: Callable[[float], float],
    y_px: Callable[[float], float],
) -> str:
    found = [f'<g class="c{series.colour}{" dashed" if series.is_dashed else ""}">']
    for xs, ys in series.pieces:
        xs, ys = thinned(xs, ys)
        places = [(x_px(x), y_px(y)) for x, y in zip(xs, ys, strict=True)]
        if len(xs) == 1 and series.is_dashed:  # what has no length is not seen without a dot
            (x, y), reach = places[0], _LONE_PX / 2
            places = [(max(LEFT, x - reach), y), (min(WIDTH - RIGHT, x + reach), y)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        found.append(f'<polyline points="{points}"/>')
        if series.has_dots or len(xs) == 1:
            found += [
                f'<circle cx="{x_px(x):.1f}" cy="{y_px(y):.1f}" r="2.4"><title>'
                f"{escape(series.name)} {escape(show(y))} after {x:,.0f} samples</title></circle>"
                for x, y in zip(xs, ys, strict=True)
            ]
    return "".join([*found, "</g>"])


def _axis(
    values: Sequence[float], *, logarithmic: bool, from_zero: bool
) -> tuple[float, float, list[float]]:
    """Both ends of the y axis, and its ticks."""
    low, high = min(values), max(values)
    if logarithmic:
        low, high = low / 1.15, high * 1.15
        return low, high, _log_ticks(low, high)
    if from_zero:
        low = min(low, 0.0)
    if max(abs(high), abs(low)) < _LEAST:  # a tenth of it may be nothing
        low = high = 0.0
    if high - low <= 1e-9 * max(abs(high), abs(low), _LEAST):
        high, low = (high + abs(high) * 0.1 or 1.0), low - abs(low) * 0.1 * (not from_zero)
    margin = 0.06 * (high - low)
    high += margin
    low -= 0.0 if from_zero and low >= 0 else margin
    return low, high, _linear_ticks(low, high, 5)


def _linear_ticks(low: float, high: float, about: int) -> list[float]:
    raw = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(_log(low)), math.ceil(_log(high)) + 1)
    factors = (1, 2, 5) if len(decades) <= 4 else (1,)
    shown = decades[:: max(1, len(decades) // 6)]
    every = [10.0**decade * factor for decade in shown for factor in factors]
    return [tick for tick in every if low <= tick <= high] or [low, high]


def _log(value: float) -> float:
    return math.log10(value)
