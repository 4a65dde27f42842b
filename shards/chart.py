"""Bar charts as pictures, with Pillow: enough for two histograms, and no plotting library."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 34, 40
_INK, _BAR, _LINE = "#222222", "#3b6ea5", "#cccccc"


class Histogram(NamedTuple):
    """Counts over equal bins of a range."""

    title: str
    counts: npt.NDArray[np.int64]
    low: float
    high: float
    axis: str
    """What the range is of."""


def draw_histograms(histograms: Sequence[Histogram]) -> Image.Image:
    """One chart below the other, as shares of all counts."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT * len(histograms)), "white")
    for number, histogram in enumerate(histograms):
        canvas.paste(_draw(histogram), (0, number * HEIGHT))
    return canvas


def _draw(histogram: Histogram) -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    shares = histogram.counts / max(1, histogram.counts.sum())
    top = float(shares.max()) or 1.0
    plot_width, plot_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    base = _TOP + plot_height
    draw.text((_LEFT, 10), histogram.title, fill=_INK, font=font)
    for step in range(5):
        y = base - plot_height * step / 4
        draw.line((_LEFT, y, WIDTH - _RIGHT, y), fill=_LINE)
        draw.text((8, y - 7), f"{top * step / 4:.2%}", fill=_INK, font=font)
    bin_width = plot_width / len(shares)
    for number, share in enumerate(shares):
        if share:
            left = _LEFT + number * bin_width
            bar_top = base - plot_height * float(share) / top
            draw.rectangle((left, bar_top, left + max(bin_width - 1, 0), base), fill=_BAR)
    for step in range(5):
        x = _LEFT + plot_width * step / 4
        value = histogram.low + (histogram.high - histogram.low) * step / 4
        draw.text((x, base + 5), f"{value:g}", fill=_INK, font=font, anchor="ma")
    draw.text(
        (_LEFT + plot_width / 2, base + 21), histogram.axis, fill=_INK, font=font, anchor="ma"
    )
    return image
