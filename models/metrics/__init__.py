"""Metrics of both tasks, each beside a baseline that costs nothing.

Batches are added up on the device in one float64 vector and read once, in `compute`, so nothing
waits for the device between two batches. Shapes: N images, C channels, H x W pixels.
"""

from models.metrics.accumulator import Metrics
from models.metrics.published import PublishedFigures

__all__ = ["Metrics", "PublishedFigures"]
