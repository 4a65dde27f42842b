"""Measures what `tuning.py` leaves open, once per machine and kind of stage, and remembers it."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.cache.caches import installed_decoders
from pipeline.decoder import Decoder
from pipeline.error import LoaderError
from pipeline.hardware import processor
from pipeline.source import SampleSource
from pipeline.tuning.rates import decode_rate, warm_samples
from pipeline.tuning.settings import (
    AUTO,
    LOADS,
    Settings,
    Wish,
    by_rule,
    own_cores,
    search,
    thread_choices,
)
from pipeline.tuning.tuning_file import recall, remember, tuning_path

WORTH_SAMPLES = 50_000
"""A stage of fewer samples is decoded about as soon as it is measured how."""

_ON_CPU = (0.15, 0.9)
_ON_GPU = (0.3, 6.0)
"""Seconds per setting, and after how many no further one is begun."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What is to be decoded, and how."""

    source: SampleSource
    size: int
    """Side in pixels."""
    batch_size: int
    """Samples in one of this process's batches."""
    exact: bool
    """See `Decoder.stream`."""
    near: int = 0
    """A sample that is read early."""


class Tuner:
    """Chooses the settings of one loader's decoder, stage by stage.

    Args:
        wish: What the user asks for.
        decoder: Opened by rule; its twins with other settings are what is measured.
        device: Where batches go.
        cores: Cores of this process.
        path: Where to remember; None: nowhere.
    """

    def __init__(
        self, wish: Wish, decoder: Decoder, device: torch.device, *, cores: int, path: Path | None
    ) -> None:
        self._wish, self._decoder, self._device = wish, decoder, device
        self._cores, self._path = cores, path
        self._chosen: dict[str, Settings] = {}

    def settings_for(self, stage: Stage, *, samples: float) -> Settings:
        """What a stage should be decoded with.

        Args:
            stage: What it decodes.
            samples: How many it reads: few are not worth a measurement.
        """
        start = by_rule(self._wish, cores=self._cores, batch_size=stage.batch_size)
        loads, threads = self._choices(start)
        if self._wish.tune == "off" or len(loads) == len(threads) == 1:
            return start
        key = self._key(stage)
        known = self._chosen.get(key) or self._recalled(key, start, loads, threads)
        if known is None and (samples >= WORTH_SAMPLES or self._wish.tune == "again"):
            known = self._measured(stage, start, loads, threads)
            if known is not None:
                found = {"threads": known.threads, "hw_decoder_load": known.hw_decoder_load}
                remember(self._path, key, found)
        if known is None:
            return start
        self._chosen[key] = known
        return known

    def _choices(self, start: Settings) -> tuple[list[float], list[int]]:
        on_gpu = self._device.type == "cuda"
        engines = on_gpu and self._decoder.name == "dali" and not self._wish.deterministic
        loads, threads = [start.hw_decoder_load], [start.threads]
        if engines and self._wish.hw_decoder_load == AUTO:
            loads = [*LOADS]
        if self._wish.threads == AUTO:
            threads = thread_choices(self._cores, on_gpu=on_gpu)
        return loads, threads

    def _recalled(
        self, key: str, start: Settings, loads: Sequence[float], threads: Sequence[int]
    ) -> Settings | None:
        if self._wish.tune == "again":
            return None
        found = recall(self._path, key)
        load, number = found.get("hw_decoder_load"), found.get("threads")
        for one in (replace(start, hw_decoder_load=a, threads=b) for a in loads for b in threads):
            if (one.hw_decoder_load, one.threads) == (load, number):
                return one
        return None  # nothing, damaged, or of other choices than today's

    def _measured(
        self, stage: Stage, start: Settings, loads: Sequence[float], threads: Sequence[int]
    ) -> Settings | None:
        numbers = warm_samples(stage.source, near=stage.near)
        if not len(numbers):
            return None
        seconds, limit_s = _ON_GPU if self._device.type == "cuda" else _ON_CPU

        def measure(settings: Settings) -> float:
            return decode_rate(
                settings.applied(self._decoder),
                stage.source,
                numbers,
                size=stage.size,
                batch_size=stage.batch_size,
                exact=stage.exact,
                seconds=seconds,
            )

        try:
            return search(start, loads, threads, measure, limit_s=limit_s)
        except LoaderError as error:  # the stream itself will say so, of the sample it is about
            _logger.debug("nothing could be measured (%s)", error)
            return None

    def _key(self, stage: Stage) -> str:
        on_gpu = self._device.type == "cuda"
        facts: Mapping[str, Any] = {
            "processor": processor(),
            "cores": self._cores,
            "gpu": torch.cuda.get_device_name(self._device) if on_gpu else None,
            "packages": installed_decoders(),
            "decoder": self._decoder.name,
            "images": _class_of(*stage.source.image_size),
            "size": _class_of(stage.size),
            "batch": _class_of(stage.batch_size),
            "exact": stage.exact,
            "asked": [self._wish.threads, 0 if self._wish.deterministic else
                      self._wish.hw_decoder_load],
        }  # fmt: skip
        return json.dumps(facts, sort_keys=True)


def _class_of(*sides: int) -> list[int]:
    """Numbers that are about as large: rounded up to a quarter of a power of two."""
    steps = [max(1, 1 << max(side.bit_length() - 3, 0)) for side in sides]
    return [-(-side // step) * step for side, step in zip(sides, steps, strict=True)]


def open_tuner(wish: Wish, decoder: Decoder, device: torch.device) -> Tuner:
    """A tuner for this process that remembers in the user's cache folder."""
    return Tuner(wish, decoder, device, cores=own_cores(), path=tuning_path())
