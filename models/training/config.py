"""How a run is trained: `TrainConfig`, and its way to plain dictionaries and back.

The dictionary form is what a checkpoint, `config.toml` and a recipe hold: nested tables of
numbers and text, spelled as on the command line.
"""

import difflib
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, TypeVar

from models.training.optimizer import OptimizerConfig
from models.training.precision import PrecisionConfig
from models.training.schedule import ScheduleConfig
from models.training.stages import Stage, parse_stages
from models.training.tasks import TASKS
from models.training.time_limit import parse_duration

FREE_ON_RESUME = (
    "accumulate",
    "checkpoint_every",
    "graph",
    "histograms",
    "init_from",
    "keep_every",
    "max_bad_steps",
    "num_panels",
    "precision.compile",
    "profile",
    "time_limit",
)
"""Fields a resumed run may change: they decide neither the samples nor the records. `accumulate`
is among them since the next stage may not fit without; from there on it rounds differently."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """A whole run."""

    stages: str = "64:4,96:2,224:1"
    """Sizes in pixels and the length at each: SIZE:EPOCHS,... ; epochs may be fractions, and
    SIZE:50000s are so many samples. SIZE:EPOCHS@1 or @2+3 trains on some of several sets alone,
    counted from 1 in the order they are given in."""

    batch_size: str = "256"
    """Samples per step: one number, or one per stage."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Which optimiser, and its numbers."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate over the run, and the tasks' weights."""

    tasks: str = "auto"
    """`mask` or `depth` trains one task of a network that has both, and validates it alone; `both`
    wants both; `auto` is what the network has."""

    accumulate: int = 1
    """Parts that each batch is computed in, one after the other, where it does not fit as a whole;
    the step is that of the whole. BatchNorm's statistics, and terms over the whole batch, are each
    part's own."""

    sync_batchnorm: bool = False
    """Several GPUs: BatchNorm sees the whole batch, not each rank's share of it; slower."""

    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    """Number format and compilation."""

    ema_decay: float = 0.0
    """Decay of the running average of the weights that is validated; 0 keeps none."""

    seed: int = 0
    """Of initial weights and dropout; the order of samples has the loader's."""

    patience: int = 0
    """Validations in a row without a better score after which a stage ends early; 0: never."""

    time_limit: str = ""
    """The process saves and ends before this much time is over: 9m, 90s, 1.5h. Empty: no limit."""

    log_every: int = 50
    """Steps between two records of loss and speed."""

    checkpoint_every: int = 1000
    """Steps between two checkpoints; besides, one is written at every validation."""

    keep_every: int = 0
    """Steps between two checkpoints that are kept for good, as step-00001000.pt; 0 keeps none."""

    init_from: str = ""
    """A checkpoint whose weights the run begins with; empty: random ones. A run that has begun goes
    on from its own checkpoint."""

    max_bad_steps: int = 10
    """Steps of the whole run that may be skipped since their loss or gradient was not a finite
    number; one more ends it."""

    num_panels: int = 32
    """Validation samples drawn after every validation; 0 draws none."""

    histograms: bool = False
    """TensorBoard gets the distributions of weights and gradients at every validation."""

    graph: bool = False
    """TensorBoard gets the network's graph; takes a second or two."""

    profile: bool = False
    """A few steps of the first stage are traced by torch's profiler, for TensorBoard."""

    def __post_init__(self) -> None:
        stages = parse_stages(self.stages, self.batch_size)
        parse_duration(self.time_limit)
        if self.tasks not in TASKS:
            msg = f"tasks {self.tasks!r} is not known; choose one of {', '.join(TASKS)}"
            raise ValueError(msg)
        if not 0 <= self.ema_decay < 1:
            msg = f"ema_decay {self.ema_decay} must be 0 (off) to less than 1"
            raise ValueError(msg)
        for name, least in (
            ("log_every", 1),
            ("checkpoint_every", 1),
            ("keep_every", 0),
            ("max_bad_steps", 0),
            ("num_panels", 0),
            ("accumulate", 1),
            ("patience", 0),
        ):
            if getattr(self, name) < least:
                msg = f"{name} {getattr(self, name)} must be at least {least}"
                raise ValueError(msg)
        for stage in stages:
            if stage.batch_size % self.accumulate:
                msg = (
                    f"accumulate {self.accumulate} does not divide the batch size "
                    f"{stage.batch_size}; its parts must be of one size"
                )
                raise ValueError(msg)

    @property
    def time_limit_s(self) -> float:
        """`time_limit` in seconds; 0 is none."""
        return parse_duration(self.time_limit)

    @property
    def parsed_stages(self) -> tuple[Stage, ...]:
        """The stages with their batch sizes."""
        return parse_stages(self.stages, self.batch_size)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionaries; `from_dict(TrainConfig, ...)` is the way back."""
        return asdict(self)


Config = TypeVar("Config")


def from_dict(kind: type[Config], values: Mapping[str, Any], where: str = "train") -> Config:
    """Build a configuration from its dictionary form; fields not given keep their defaults.

    Args:
        kind: A configuration class: a dataclass of numbers, text and such dataclasses.
        values: Values by field name, nested as the classes are.
        where: What the values are called in error messages: the name of their TOML table.

    Raises:
        ValueError: A key is unknown, or a value is of the wrong type or out of range.
    """
    types = typing.get_type_hints(kind)
    for key in values:
        if key not in types:
            nearest = difflib.get_close_matches(key, types, n=1, cutoff=0) or list(types)[:1]
            msg = f"{where} has no key {key!r}; the nearest known one is {nearest[0]!r}"
            raise ValueError(msg)
    found = {key: _convert(types[key], value, f"{where}.{key}") for key, value in values.items()}
    try:
        return kind(**found)
    except ValueError as error:
        msg = f"[{where}] {error}"
        raise ValueError(msg) from None


def _convert(kind: Any, value: Any, where: str) -> Any:
    if is_dataclass(kind) and isinstance(kind, type) and isinstance(value, Mapping):
        return from_dict(kind, value, where)
    if kind is float and type(value) is int:
        return float(value)
    if kind is str and type(value) is int:
        return str(value)  # batch_size = 256, written without quotes
    if isinstance(kind, type) and type(value) is not kind:
        msg = f"{where} is {value!r}, which is no {kind.__name__}"
        raise ValueError(msg)
    return value


def differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two dictionary forms, such as "lr: 0.1 there, 0.2 here"."""
    found = []
    for key in sorted({*there, *here}):
        old, new = there.get(key), here.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key}: {old!r} there, {new!r} here")
    return found
