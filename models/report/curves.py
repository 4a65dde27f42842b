"""Which curves a report shows: records in, charts out.

Validations of two stages are not comparable (at another size they measure another task), so every
line is broken between stages.
"""

from collections.abc import Callable, Iterator, Sequence

from models.report.chart import Chart, Series, short
from models.report.folder import Record, StagePart, numbers

_KNOWN = {
    "kind", "step", "samples", "epoch", "stage", "size", "sets", "elapsed_s", "bad_samples", "loss",
    "mask_loss", "depth_loss", "samples_per_s", "images_per_s", "data_wait_share", "lr",
}  # fmt: skip
"""Of training records; whatever else they hold has a chart of its own."""


def charts(stages: Sequence[StagePart]) -> Iterator[Chart]:
    """The charts, those that matter most first; some may be empty."""
    borders = tuple(
        (float(stage.first_sample), float(stage.last_sample), stage.told) for stage in stages
    )

    def validated(name: str, key: str, colour: int, **look: bool) -> Series:
        return _series(
            stages, lambda stage: stage.validations, name, key, colour, has_dots=True, **look
        )

    def trained(name: str, key: str, colour: int) -> Series:
        return _series(stages, lambda stage: stage.training, name, key, colour)

    yield Chart(
        title="Mask",
        series=(
            validated("IoU", "mask_iou", 1),
            validated("boundary F", "mask_boundary_f", 3),
            validated("Dice", "mask_dice", 4),
            validated("free baseline", "baseline_mask_iou", 1, is_dashed=True),
        ),
        show=_three,
        hint="Validation; higher is better.",
        borders=borders,
    )
    yield Chart(
        title="Depth error",
        series=(
            validated("RMSE", "depth_rmse", 2),
            validated("MAE", "depth_mae", 4),
            validated("free baseline", "baseline_depth_rmse", 2, is_dashed=True),
        ),
        show=_four,
        is_logarithmic=True,
        hint="Validation; depth from 0 to 1; lower is better.",
        borders=borders,
    )
    yield Chart(
        title="Depth agreement",
        series=(
            validated("delta 1", "depth_delta1", 2),
            validated("SSIM", "depth_ssim", 3),
        ),
        show=_three,
        hint="Validation; delta 1 is the share of pixels within 25 %; higher is better.",
        borders=borders,
    )
    yield Chart(
        title="Loss",
        series=(
            trained("training", "loss", 4),
            trained("mask", "mask_loss", 1),
            trained("depth", "depth_loss", 2),
            validated("validation", "loss", 3),
        ),
        show=_three_digits,
        is_logarithmic=True,
        borders=borders,
    )
    yield Chart(
        title="Samples per second",
        series=(trained("samples/s", "samples_per_s", 3),),
        show=short,
        from_zero=True,
        hint="A sample is three images.",
        borders=borders,
    )
    yield Chart(
        title="Waiting for data",
        series=(trained("share of the time", "data_wait_share", 2),),
        show=lambda share: f"{100 * share:.2g}%",
        from_zero=True,
        borders=borders,
    )
    yield Chart(
        title="Learning rate",
        series=(trained("rate", "lr", 1),),
        show=_three_digits,
        from_zero=True,
        borders=borders,
    )
    for key in _others(stages):
        words = key.replace("_", " ")
        yield Chart(
            title=words.capitalize(),
            series=(trained(words, key, 4),),
            show=_three_digits,
            borders=borders,
        )


def _series(
    stages: Sequence[StagePart],
    records: Callable[[StagePart], Sequence[Record]],
    name: str,
    key: str,
    colour: int,
    **look: bool,
) -> Series:
    pieces = (numbers(records(stage), key) for stage in stages)
    return Series(
        name=name, pieces=tuple(piece for piece in pieces if piece[0]), colour=colour, **look
    )


def _others(stages: Sequence[StagePart]) -> list[str]:
    keys = (key for stage in stages for record in stage.training for key in record)
    return [key for key in dict.fromkeys(keys) if key not in _KNOWN]


def _three(value: float) -> str:
    return f"{value:.3f}"


def _four(value: float) -> str:
    return f"{value:.4f}".rstrip("0")


def _three_digits(value: float) -> str:
    return f"{value:.3g}"
