"""Out of memory: which batch would have fitted is found out by trying smaller parts of it."""

import gc
from collections.abc import Callable, Iterable

import torch

from models.error import TrainingError

_SIGNS = ("can't allocate memory", "out of memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is how torch or Python tell that memory is used up."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)
    )


def fits(function: Callable[[], object]) -> bool:
    """Call a function; returns whether there was memory for it, once what it held is let go."""
    try:
        function()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def out_of_memory(
    device: torch.device,
    *,
    size: int,
    batch_size: int,
    accumulate: int,
    common: int,
    fits: Callable[[int], bool],
    doing: str = "",
) -> TrainingError:
    """What to say when a batch did not fit. Call it outside any `except`, which holds memory.

    Args:
        device: Where it did not fit.
        size: Side of the images in pixels.
        batch_size: Samples of this process's batch.
        accumulate: Parts it was computed in.
        common: What the parts must divide: the greatest divisor of all stages' batch sizes.
        fits: Whether a batch in so many parts can be computed; tried from few to many.
        doing: What was done, if it was not training.
    """
    for parts in _more_parts(accumulate, common):
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if fits(parts):
            fitting = batch_size // parts
            advice = (
                f"{fitting:,} did in a trial; go on with --resume --accumulate {parts}, which "
                f"keeps the batch, or start another run with --batch-size {fitting} at this size"
            )
            break
    else:
        advice = "no part of it that was tried fits either; use smaller images or a smaller network"
    return TrainingError(
        f"out of memory on {device.type}{doing}: {batch_size // accumulate:,} samples at {size} px "
        f"at a time do not fit; {advice}"
    )


def _more_parts(parts: int, common: int) -> Iterable[int]:
    """Divisors of `common` that are at least twice the last one tried."""
    for number in range(2 * parts, common + 1):
        if common % number == 0 and number >= 2 * parts:
            yield number
            parts = number
