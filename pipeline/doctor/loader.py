"""What the doctor says of the loader: what it would choose here, and what bounds that."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.cache.free_memory import measure_room
from pipeline.cache.memory_plan import MemoryPlan, Need, plan_cache
from pipeline.decoder import Decoder
from pipeline.doctor.section import Section
from pipeline.loader import Loader, LoaderConfig
from pipeline.source import SampleSource
from pipeline.tuning.rates import (
    Numbers,
    copy_rate,
    decode_rate,
    device_gather_rate,
    gather_rate,
    read_rate,
    warm_samples,
)
from pipeline.tuning.settings import Settings
from pipeline.tuning.tuner import WORTH_SAMPLES, Stage, open_tuner

SIZES = (64, 96, 224)
"""The stages of a training by default."""

_BATCH_SIZE = 256
_PASSES = 4.0
_SECONDS = 0.3
_FEW_SECONDS = 0.15


@dataclass(frozen=True, kw_only=True, slots=True)
class StageFacts:
    """One stage: what the loader would choose, and the rates of that in samples per second."""

    size: int
    settings: Settings
    plan: MemoryPlan
    streaming: Mapping[str, float]
    """What every streamed sample passes, and its rate."""
    cached: float | None
    """Gathering from the cache; None without one."""

    @property
    def bound(self) -> str:
        """The slowest hop of a streamed sample."""
        return min(self.streaming, key=lambda hop: self.streaming[hop])

    @property
    def rate(self) -> float:
        """Samples per second while streaming, at most."""
        return self.streaming[self.bound]

    def lines(self, decoder: str) -> Iterator[str]:
        """For a user."""
        share = self.settings.hw_decoder_load
        engines = f", {share:.0%} of the JPEGs to the engines" if decoder == "dali on cuda" else ""
        yield (
            f"{self.size} px: {self.settings.threads} threads, "
            f"{self.settings.prefetch_batches} batches ahead{engines}: "
            f"{self.rate:,.0f} samples/s, bound by {self.bound}"
        )
        others = {hop: rate for hop, rate in self.streaming.items() if hop != self.bound}
        if others:
            told = ", ".join(f"{hop} {rate:,.0f}" for hop, rate in others.items())
            yield f"  beside it {told}"
        yield f"  {self.plan.text().splitlines()[0]}"
        if self.cached is not None:
            yield f"  cached passes {self.cached:,.0f} samples/s, bound by gathering"

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            **asdict(self.settings),
            "cache": self.plan.tier,
            "cache_bytes": self.plan.bytes,
            "cache_samples": self.plan.num_cached,
            "streaming_samples_per_s": dict(self.streaming),
            "bound": self.bound,
            "cached_samples_per_s": self.cached,
        }


def examine_loader(
    data: Path,
    device: torch.device,
    *,
    num_samples: int | None = None,
    disk: float | None = None,
) -> Section:
    """Choose as the loader would, and measure it for a moment.

    Args:
        data: The set whose samples are measured.
        device: Where batches go.
        num_samples: What a cache is planned for; None: the set's own.
        disk: Samples per second that the disk gives, where the set is not in memory.

    Raises:
        ShardError: There is no sound manifest.
        LoaderError: Files of the set are missing or differ, or no sample is good.
    """
    config = LoaderConfig()
    with Loader(data, config, device) as loader:
        source = loader.training if loader.num_samples else loader.validation
        numbers = warm_samples(source)
        if not len(numbers):
            return Section(name="loader", faults=(_no_samples(data),))
        examination = _Examination(loader, source, numbers, device)
        stages = [
            examination.stage(size, num_samples or source.num_samples, disk) for size in SIZES
        ]
        by_threads = examination.by_threads(stages[0])
        decoder = f"{loader.decoder.name} on {loader.decoding['device']}"
    told = ", ".join(f"{threads}: {rate:,.0f}" for threads, rate in by_threads.items())
    return Section(
        name="loader",
        lines=(
            f"decoder {decoder}, batches of {_BATCH_SIZE}",
            *(line for stage in stages for line in stage.lines(decoder)),
            f"decoding at {SIZES[0]} px by threads: {told} samples/s",
        ),
        facts={
            "decoder": decoder,
            "batch_size": _BATCH_SIZE,
            "stages": {str(stage.size): stage.facts() for stage in stages},
            "decoding_by_threads": {str(n): rate for n, rate in by_threads.items()},
        },
    )


def _no_samples(data: Path) -> str:
    return f"{data}: none of its first samples is good; run `maskdepth verify {data} --deep`"


class _Examination:
    """The measurements on one set."""

    def __init__(
        self, loader: Loader, source: SampleSource, numbers: Numbers, device: torch.device
    ) -> None:
        self._loader, self._source, self._device = loader, source, device
        self._numbers = numbers
        self._tuner = open_tuner(loader.config.wish, loader.decoder, device)

    def stage(self, size: int, num_samples: int, disk: float | None) -> StageFacts:
        """Everything of one stage."""
        stage = Stage(source=self._source, size=size, batch_size=_BATCH_SIZE, exact=False)
        settings = self._tuner.settings_for(stage, samples=WORTH_SAMPLES)
        need = Need(samples=num_samples, size=size, passes=_PASSES)
        plan = plan_cache("auto", need, measure_room(self._device, None))
        return StageFacts(
            size=size,
            settings=settings,
            plan=plan,
            streaming=self._streaming(size, settings, disk),
            cached=self._cached(size, settings.threads, plan.tier),
        )

    def by_threads(self, stage: StageFacts) -> dict[int, float]:
        """Decoding by 1, 2, 4, ... threads, up to those chosen."""
        most = stage.settings.threads
        numbers = sorted({*(1 << i for i in range(most.bit_length())), most})
        return {
            threads: self._decoding(
                replace(stage.settings, threads=threads), stage.size, _FEW_SECONDS
            )
            for threads in numbers
        }

    def _streaming(self, size: int, settings: Settings, disk: float | None) -> dict[str, float]:
        found = {
            "decoding": self._decoding(settings, size, _SECONDS),
            "reading": read_rate(
                self._source, self._numbers, threads=settings.threads, seconds=_FEW_SECONDS
            ),
        }
        if disk is not None:
            found["the disk"] = disk
        if self._device.type == "cuda" and self._loader.decoder.name != "dali":
            found["copying to the GPU"] = copy_rate(
                self._device, size=size, batch_size=_BATCH_SIZE, seconds=_FEW_SECONDS
            )
        return found

    def _decoding(self, settings: Settings, size: int, seconds: float) -> float:
        decoder: Decoder = settings.applied(self._loader.decoder)
        return decode_rate(
            decoder,
            self._source,
            self._numbers,
            size=size,
            batch_size=_BATCH_SIZE,
            exact=False,
            seconds=seconds,
        )

    def _cached(self, size: int, threads: int, tier: str) -> float | None:
        if tier == "off":
            return None
        if tier == "device":
            return device_gather_rate(
                self._device, size=size, batch_size=_BATCH_SIZE, seconds=_FEW_SECONDS
            )
        return gather_rate(size=size, batch_size=_BATCH_SIZE, threads=threads, seconds=_FEW_SECONDS)
