"""The options of a run, as `train` declares them, by the panels of its help.

Each states the default of the configuration that it belongs to, which is where it comes from.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

Stages = Annotated[
    str | None,
    typer.Option(
        help="SIZE:EPOCHS,... or SIZE:50000s for samples; 64:4@1,64:2@2+3 for stages on some of "
        "several --data, counted from 1. (default: 64:4,96:2,224:1)"
    ),
]
BatchSize = Annotated[str | None, typer.Option(help="One number, or one per stage. (default: 256)")]
Seed = Annotated[int | None, typer.Option(help="Of weights and order. (default: 0)")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the very next sample.")]

# what is trained

_network = partial(typer.Option, rich_help_panel="Network and losses")

Network = Annotated[
    str | None,
    _network("--network", help="A name that `maskdepth models` lists. (default: unet)"),
]
Width = Annotated[str | None, _network(help="Of unet: s, m or l. (default: s)")]
InitFrom = Annotated[
    Path | None, _network(help="Begin with a checkpoint's weights, and nothing else of it.")
]
Tasks = Annotated[
    str | None,
    _network(help="mask, depth, both, or auto: what the network has. (default: auto)"),
]
MaskLoss = Annotated[str | None, _network(help="Terms, weighted or not. (default: bce + dice)")]
DepthLoss = Annotated[str | None, _network(help="Terms, weighted or not. (default: l1 + ssim)")]
TaskWeight = Annotated[
    str | None, _network(help="A number, or '1 -> 0.5' over the run. (default: 1.0)")
]

# how it learns

_optimiser = partial(typer.Option, rich_help_panel="Optimiser")

Optimizer = Annotated[str | None, _optimiser(help="adamw, adam, sgd or rmsprop. (default: adamw)")]
Lr = Annotated[float | None, _optimiser(help="Peak learning rate. (default: 0.012)")]
Momentum = Annotated[float | None, _optimiser(help="Of sgd and rmsprop. (default: 0.9)")]
Nesterov = Annotated[
    bool | None, _optimiser("--nesterov/--no-nesterov", help="Of sgd. (default: False)")
]
WeightDecay = Annotated[float | None, _optimiser(help="(default: 0.05)")]
ClipNorm = Annotated[float | None, _optimiser(help="Gradient norm; 0: none. (default: 1.0)")]
ClipValue = Annotated[
    float | None, _optimiser(help="Each gradient's value; 0: none. (default: 0.0)")
]
Accumulate = Annotated[int | None, _optimiser(help="Parts each batch is computed in. (default: 1)")]
EmaDecay = Annotated[float | None, _optimiser(help="Average the weights; 0: no. (default: 0.0)")]
SyncBatchnorm = Annotated[
    bool, _optimiser("--sync-batchnorm", help="Several GPUs: BatchNorm of the whole batch.")
]

_schedule = partial(typer.Option, rich_help_panel="Schedule and end")

Schedule = Annotated[
    str | None,
    _schedule(
        help="one-cycle, cosine, constant, step or plateau; more of it in a recipe. "
        "(default: one-cycle)"
    ),
]
Warmup = Annotated[float | None, _schedule(help="Share of the run until the peak. (default: 0.2)")]
StepAt = Annotated[
    str | None, _schedule(help="Shares of the run, or epochs as 4e,8e. (default: 0.5,0.75)")
]
LrFactor = Annotated[float | None, _schedule(help="Of step and plateau. (default: 0.1)")]
PlateauPatience = Annotated[
    int | None, _schedule(help="Validations without an improvement. (default: 2)")
]
AtStage = Annotated[
    str | None, _schedule(help="continue the schedule, or restart it. (default: continue)")
]
Patience = Annotated[
    int | None,
    _schedule(help="Validations without a better score that end a stage; 0: none do. (default: 0)"),
]
TimeLimit = Annotated[
    str | None, _schedule(help="Save and end within 9m, 90s or 1.5h; go on with --resume.")
]

# in which numbers

_numbers = partial(typer.Option, rich_help_panel="Precision")

PRECISION = "auto, bf16, fp16, tf32 or fp32. (default: auto)"
Precision = Annotated[str | None, _numbers(help=PRECISION)]
Compile = Annotated[str | None, _numbers("--compile", help="auto, off or max. (default: auto)")]
Deterministic = Annotated[
    bool, _numbers("--deterministic", help="The same bits every time, on a GPU too; slower.")
]

# what it leaves

_records = partial(typer.Option, rich_help_panel="Records and checkpoints")

LogEvery = Annotated[int | None, _records(help="Steps between records. (default: 50)")]
CheckpointEvery = Annotated[int | None, _records(help="Steps between checkpoints. (default: 1000)")]
KeepEvery = Annotated[
    int | None, _records(help="Steps between checkpoints kept for good; 0: none. (default: 0)")
]
MaxBadSteps = Annotated[
    int | None, _records(help="Steps that may be skipped, not being finite. (default: 10)")
]
Panels = Annotated[int | None, _records(help="Validation samples drawn. (default: 32)")]
Histograms = Annotated[
    bool, _records("--histograms", help="Of weights and gradients, for TensorBoard.")
]
Graph = Annotated[bool, _records("--graph", help="The network's graph, for TensorBoard.")]
Profile = Annotated[
    bool, _records("--profile", help="Trace a few steps, for TensorBoard or Perfetto.")
]
