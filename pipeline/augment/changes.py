"""Everything that is drawn for a batch, on the processor, and its application to the pixels.

N samples, S = the side.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.augment.colour import Singles
from pipeline.augment.config import AugmentConfig
from pipeline.augment.cutout import draw_holes
from pipeline.augment.draws import BACKGROUND, Bools, Drawer
from pipeline.augment.geometry import draw_flips, draw_warps
from pipeline.augment.look import Look, draw_look
from pipeline.normalise import Normalisation

Record = TypeVar("Record", bound=Any)


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What happens to N samples."""

    flips: Bools
    """(N, 2) left to right, top to bottom: of the samples that are not warped."""

    warped: Bools
    """(N,) whether a sample is interpolated."""

    maps: Singles
    """(N, 2, 3), flips included; see `draw_warps`."""

    holes: npt.NDArray[np.int64] | None
    """(N, K, 4); see `draw_holes`."""

    look: Look
    """Of the composite, and of the background if it has none of its own."""

    background_look: Look | None

    def rows(self, part: slice) -> "Changes":
        """The same of some samples."""
        return _rows(self, part)


def draw_changes(
    config: AugmentConfig, drawer: Drawer, normalisation: Normalisation, size: int
) -> Changes:
    """Draw for the samples of a batch, at a stage's size."""
    flips = draw_flips(config, drawer)
    warped, maps = draw_warps(config, drawer, flips)
    apart = config.independent
    return Changes(
        flips=flips & ~warped[:, None],
        warped=warped,
        maps=maps.astype(np.float32),
        holes=draw_holes(config, drawer, size) if config.cuts else None,
        look=draw_look(config, drawer, normalisation),
        background_look=(
            draw_look(config, drawer, normalisation, family=BACKGROUND) if apart else None
        ),
    )


def _rows(record: Record, part: slice) -> Record:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return replace(
        record,
        **{
            name: value[part] if isinstance(value, np.ndarray) else _rows(value, part)
            for name, value in values.items()
            if value is not None
        },
    )
