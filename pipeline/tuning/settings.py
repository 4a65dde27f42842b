"""What `auto` means for threads, queue depth and the JPEG engines' share.

Some of it is arithmetic. One thread per core is right where the cores are few, and a queue has to
hold two tasks for each thread. The rest depends on the machine: sixteen hyper-threads decode little
more than eight cores do, and the best share of the engines depends on the cores beside them. That
is measured once, on samples of the set, and remembered per machine (`tuner.py`).

Order and pixels never depend on any of it where the processor decodes. On a GPU the engines and
CUDA differ in the last bit, and the share decides who takes which image: `deterministic` sets it 0.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from pipeline.cache.free_memory import ranks_here
from pipeline.decoder import Decoder
from pipeline.hardware import usable_cores
from pipeline.turbojpeg import CHUNK

AUTO = "auto"
TUNE = ("auto", "again", "off")

DEFAULT_DEPTH = 3
"""One batch at the consumer, one ready, and one for a step that was quicker than the others."""

DEFAULT_LOAD = 0.65
"""DALI's own choice since 2.2."""

MOST_DEPTH = 16
FEW_CORES = 2
"""Where so many are all there are, each decodes, and there is nothing to measure."""

LOADS = (DEFAULT_LOAD, 0.0, 0.25, 0.45, 0.85)
"""Shares worth trying, the preferred one first."""

_AS_GOOD = 0.95
"""Rates closer than this are noise: the fewest threads, and DALI's own share, are preferred."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What a user asks for; each a number or `auto`."""

    threads: int | str = AUTO
    prefetch_batches: int | str = AUTO
    hw_decoder_load: float | str = AUTO

    tune: str = AUTO
    """One of `TUNE`."""

    deterministic: bool = False
    """One decoding back end: no image for the engines."""

    def __post_init__(self) -> None:
        for name in ("threads", "prefetch_batches"):
            value = getattr(self, name)
            if value != AUTO and (not isinstance(value, int) or value < 1):
                msg = f"{name} is {value!r}; it must be at least 1, or {AUTO}"
                raise ValueError(msg)
        load = self.hw_decoder_load
        if load != AUTO and not (isinstance(load, int | float) and 0 <= load <= 1):
            msg = f"hw_decoder_load is {load!r}; it must be 0 to 1, or {AUTO}"
            raise ValueError(msg)
        if self.deterministic and load not in {AUTO, 0}:
            msg = f"hw_decoder_load is {load!r}; it must be 0 where deterministic is asked for"
            raise ValueError(msg)
        if self.tune not in TUNE:
            msg = f"tune is {self.tune!r}; it must be one of {', '.join(TUNE)}"
            raise ValueError(msg)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a decoder is opened with."""

    threads: int
    prefetch_batches: int
    hw_decoder_load: float

    def applied(self, decoder: Decoder) -> Decoder:
        """The decoder with these."""
        values = asdict(self)
        if decoder.name != "dali":
            del values["hw_decoder_load"]
        return cast("Decoder", replace(cast("Any", decoder), **values))


Measure = Callable[[Settings], float]
"""Samples per second under some settings."""


def by_rule(wish: Wish, *, cores: int, batch_size: int | None = None) -> Settings:
    """What `auto` is without a measurement.

    Args:
        wish: Numbers in it stay.
        cores: Cores of this process.
        batch_size: Samples in a batch, if it is known already.
    """
    threads = wish.threads if isinstance(wish.threads, int) else max(cores, 1)
    load = DEFAULT_LOAD if isinstance(wish.hw_decoder_load, str) else wish.hw_decoder_load
    return Settings(
        threads=threads,
        prefetch_batches=(
            wish.prefetch_batches
            if isinstance(wish.prefetch_batches, int)
            else depth_for(threads, batch_size)
        ),
        hw_decoder_load=0.0 if wish.deterministic else float(load),
    )


def depth_for(threads: int, batch_size: int | None) -> int:
    """Batches under way that give each thread two tasks, beside the one that is handed out."""
    if batch_size is None:
        return DEFAULT_DEPTH
    tasks_per_batch = -(-batch_size // CHUNK)
    return min(max(DEFAULT_DEPTH, -(-2 * threads // tasks_per_batch)), MOST_DEPTH)


def thread_choices(cores: int, *, on_gpu: bool) -> list[int]:
    """Numbers of threads worth trying, most first: a GPU's trainer wants a core for itself."""
    if cores <= FEW_CORES:
        return [max(cores, 1)]
    choices = {cores, -(-3 * cores // 4), -(-cores // 2)}
    return sorted(choices | {cores - 1} if on_gpu else choices, reverse=True)


def search(
    start: Settings,
    loads: Sequence[float],
    threads: Sequence[int],
    measure: Measure,
    *,
    limit_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Settings:
    """The engines' best share, then the fewest threads that are as good as the best.

    Args:
        start: What else is set.
        loads: Shares to try, the preferred one first; a single one is not measured.
        threads: Numbers to try, most first; a single one is not measured.
        measure: Gives the rate.
        limit_s: After so many seconds no further setting is begun.
        clock: Seconds, ever increasing.
    """

    def good(choices: Sequence[Settings]) -> list[Settings]:
        if len(choices) == 1:
            return [*choices]
        rates: dict[Settings, float] = {}
        for choice in choices:
            if rates and clock() >= until:
                break
            rates[choice] = measure(choice)
            _logger.debug("%s: %.0f samples/s", choice, rates[choice])
        enough = _AS_GOOD * max(rates.values())
        return [choice for choice, rate in rates.items() if rate >= enough]

    until = clock() + limit_s
    loaded = good([replace(start, hw_decoder_load=load) for load in loads])[0]
    return good([replace(loaded, threads=number) for number in threads])[-1]


def own_cores() -> int:
    """Cores of this process, where the ranks on this machine share them."""
    return max(1, usable_cores() // ranks_here(1))
