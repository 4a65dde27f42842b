"""The command line: parse, build configurations, call one function per command.

Nothing heavy is imported before a command needs it, so `--help` is instant. Options left out take
their default from the configuration they belong to. Results go to stdout, progress to stderr, and
what a user can repair is one line on stderr and exit status 2.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from models.error import CheckpointError, Interrupted, TimeIsUp, TrainingError
from pipeline.error import LoaderError
from shards.error import ShardError

if TYPE_CHECKING:
    import torch

    from models.exported import ExportedNetwork
    from models.predict import Decode, Predictor
    from models.recipe import Recipe
    from models.registry import NetworkConfig
    from models.report.extremes import Extremes
    from models.training.distributed import Ranks
    from models.training.lr_find import LrFindConfig, RangeTest
    from pipeline.augment import AugmentConfig
    from pipeline.loader import Loader, LoaderConfig
    from pipeline.memory_plan import MemoryPlan
    from shards.manifest import Manifest

REPAIRABLE = (ShardError, LoaderError, CheckpointError, TrainingError)
BAD_NEWS, USER_ERROR, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="maskdepth",
    help="Zipped background / composite / mask / depth images to shards, to the GPU, to a network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Set = Annotated[Path, typer.Argument(help="Folder of the set.", show_default=False)]
Data = Annotated[
    list[str], typer.Option(help="Folder or URL of the set; give it again to join another.")
]
RemoteCacheDir = Annotated[
    Path | None, typer.Option(help="Keeps what URLs gave. (default: in the user's cache folder)")
]
RemoteCacheGb = Annotated[
    float | None, typer.Option(help="What that may hold, in GB. (default: 20.0)")
]
Checkpoint = Annotated[
    Path, typer.Option(help="last.pt or best.pt of a run; or what `export` wrote.")
]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, or cuda.")]
DecoderName = Annotated[
    str | None,
    typer.Option(help="auto (DALI on a GPU), turbojpeg, or dali. (default: auto)"),
]
MaxBadSamples = Annotated[
    float | None, typer.Option(help="Share of samples that may be bad. (default: 0.001)")
]


def main(arguments: list[str] | None = None) -> None:
    """Run a command; ends the process with 0, 1 (a check found faults), 2 or 130."""
    try:
        status = app(arguments, standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "maskdepth"
        message = error.format_message().rstrip(".")
        status = _fail(f"{message}; see `{command} --help`") if message else USER_ERROR
    except REPAIRABLE as error:
        status = _fail(str(error))
    except TimeIsUp as error:
        _fail(f"{error}: {_resuming(sys.argv[1:] if arguments is None else arguments)}")
        status = 0
    except Interrupted as error:
        _fail(str(error))
        status = INTERRUPTED
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; the same command starts again; `convert` keeps finished shards, and "
              "`train` goes on from its last checkpoint with --resume")  # fmt: skip
        status = INTERRUPTED
    sys.exit(status)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder for the zips.", show_default=False)],
    count: Annotated[int, typer.Option(help="Triplets to make.")],
    layout: Annotated[
        str | None,
        typer.Option(
            help="relation-file, global-number, class-folders, tenk-sets or numbered-flip. "
            "(default: relation-file)"
        ),
    ] = None,
    zips: Annotated[
        int | None, typer.Option(help="Zips to make. (default: as the layout's reference)")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side in pixels. (default: 224)")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides everything. (default: 0)")] = None,
    quality: Annotated[int | None, typer.Option(help="JPEG quality. (default: 75)")] = None,
    num_backgrounds: Annotated[
        int | None, typer.Option(help="Scenes to draw. (default: by count)")
    ] = None,
    num_foregrounds: Annotated[
        int | None, typer.Option(help="Objects to draw. (default: by count)")
    ] = None,
    backgrounds: Annotated[
        Path | None, typer.Option(help="Folder of your own scenes instead.")
    ] = None,
    foregrounds: Annotated[
        Path | None, typer.Option(help="Folder of your own cut-outs (RGBA) instead.")
    ] = None,
    processes: Annotated[int | None, typer.Option(help="(default: one per core)")] = None,
) -> None:
    """Make a data set of the task's kind: zips as the reference systems have them."""
    import os

    from shards.synth import SynthConfig, synthesise

    config = _build(
        SynthConfig,
        count=count,
        layout=layout,
        zips=zips,
        size=size,
        seed=seed,
        quality=quality,
        num_backgrounds=num_backgrounds,
        num_foregrounds=num_foregrounds,
        backgrounds=backgrounds,
        foregrounds=foregrounds,
        processes=processes or os.cpu_count() or 1,
    )
    with _progress("synth", "triplets") as show:
        report = synthesise(out, config, lambda done: show(done, count))
    print(f"{count:,} triplets, {report.bytes:,} bytes: {', '.join(map(str, report.paths))}")


@app.command()
def convert(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...", help="Zips, or folders of zips or images.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the set to write.")],
    layout: Annotated[
        str | None,
        typer.Option(help="How names become triplets: a name, or FILE.toml. (default: auto)"),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="What validation holds out: foreground, background, both, or random samples. "
            "(default: foreground)"
        ),
    ] = None,
    val: Annotated[float | None, typer.Option(help="Share held out. (default: 0.1)")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides order and split. (default: 0)")] = None,
    samples_per_shard: Annotated[int | None, typer.Option(help="(default: 4000)")] = None,
    sets: Annotated[
        str | None, typer.Option(help="Archives to use, as 1,3. (default: all)")
    ] = None,
    per_background: Annotated[
        int | None, typer.Option(help="At most so many of each background.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many triplets.")] = None,
    check: Annotated[
        str | None,
        typer.Option(
            help="strict decodes every image, headers reads its header, none its first bytes. "
            "(default: strict)"
        ),
    ] = None,
    max_rejected: Annotated[
        int | None, typer.Option(help="Triplets that may be left out. (default: 0)")
    ] = None,
    backgrounds: Annotated[
        str | None,
        typer.Option(help="estimate: missing scenes from composites. (default: given)"),
    ] = None,
    depth: Annotated[
        str | None, typer.Option(help="map, or class-folders' disparity. (default: map)")
    ] = None,
    depth_polarity: Annotated[
        str | None, typer.Option(help="near-dark or near-bright. (default: auto)")
    ] = None,
    depth_scaling: Annotated[
        str | None, typer.Option(help="absolute or stretched. (default: auto)")
    ] = None,
    positions_per_foreground: Annotated[
        int | None,
        typer.Option(help="numbered-flip: numbers in a row of one object; 20 in the original."),
    ] = None,
    no_pairing_check: Annotated[
        bool, typer.Option("--no-pairing-check", help="Trust the names alone.")
    ] = False,
    processes: Annotated[int | None, typer.Option(help="(default: one per core)")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written, from names alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Turn zips into a shard set; killed and run again, it goes on where it stopped."""
    from dataclasses import asdict

    from shards.convert import convert as run
    from shards.convert import dry_run as look
    from shards.options import ConvertConfig
    from shards.summary import describe_dry_run

    config = _build(
        ConvertConfig,
        sources=tuple(sources),
        out=out,
        layout=layout,
        split=split,
        val=val,
        seed=seed,
        samples_per_shard=samples_per_shard,
        sets=_numbers(sets),
        per_background=per_background,
        limit=limit,
        check=check,
        max_rejected=max_rejected,
        backgrounds=backgrounds,
        depth=depth,
        depth_polarity=depth_polarity,
        depth_scaling=depth_scaling,
        positions_per_foreground=positions_per_foreground,
        pairing_check=not no_pairing_check,
        processes=processes,
    )
    if dry_run:
        found = look(config)
        if as_json:
            _print_json(asdict(found))
        else:
            _print_lines(describe_dry_run(found))
        return
    with _progress("convert", "samples") as show:
        report = run(config, show)
    if report.already_finished and not as_json:
        print("this very set was already there; nothing was written")
    _print_set(out, report.manifest, as_json=as_json)


@app.command()
def verify(
    path: Annotated[
        str, typer.Argument(help="Folder of the set; or URL: sizes alone.", show_default=False)
    ],
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every image.")] = False,
    repair: Annotated[
        list[Path] | None,
        typer.Option(metavar="SOURCE...", help="First restore damaged files from these."),
    ] = None,
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="", help="", show_default=False, hidden=True)
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare every file of a set with its manifest; exit status 1 if anything differs."""
    from shards.restore import restore
    from shards.verify import verify as run

    if more and not repair:
        msg = f"{more[0]} is one too many; verify takes one set, and sources after --repair"
        raise typer.BadParameter(msg)
    if "://" in path:
        _verify_remote(path, is_plain=not (deep or repair), as_json=as_json)
        return
    if repair:
        with _progress("repair", "samples") as show:
            for name in restore(Path(path), [*repair, *(more or [])], show):
                print(f"restored {name}", file=sys.stderr)
    with _progress("verify", "bytes") as show:
        faults = run(Path(path), deep=deep, on_progress=show)
    if as_json:
        _print_json({"faults": [{"file": fault.file, "found": fault.found} for fault in faults]})
    else:
        for fault in faults:
            print(fault)
        print(f"{path}: {len(faults) or 'no'} fault{'' if len(faults) == 1 else 's'}")
    if faults:
        raise typer.Exit(BAD_NEWS)


@app.command()
def inspect(
    path: Set,
    panel: Annotated[
        Path | None, typer.Option(help="Also draw some samples into this PNG.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a set holds: counts, splits, sizes, statistics."""
    from shards.manifest import read_manifest
    from shards.summary import describe_statistics

    manifest = read_manifest(path)
    _print_set(path, manifest, as_json=as_json)
    if not as_json:
        print()
        _print_lines(describe_statistics(manifest.statistics, manifest.statistics_samples))
    if panel is not None:
        _draw_samples(path, panel)
        if not as_json:
            print(f"panel        {panel}")


@app.command()
def stats(
    path: Set,
    chart: Annotated[
        Path | None, typer.Option(help="Draw mask coverage and depth levels into this PNG.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute a set's statistics from its images; exit status 1 if the manifest disagrees."""
    from dataclasses import asdict

    from shards.chart import Histogram, draw_histograms
    from shards.manifest import read_manifest
    from shards.summary import describe_statistics
    from shards.survey import differences, survey

    manifest = read_manifest(path)
    with _progress("stats", "samples") as show:
        found = survey(path, show)
    faults = list(differences(manifest, found.statistics))
    if chart is not None:
        histograms = (
            Histogram("Mask coverage", found.coverage, 0, 1, "share of the image"),
            Histogram("Depth", found.depth_levels, 0, 255, f"level ({manifest.depth['polarity']})"),
        )
        chart.parent.mkdir(parents=True, exist_ok=True)
        draw_histograms(histograms).save(chart)
    if as_json:
        _print_json({
            "samples": found.samples,
            "statistics": {part: asdict(value) for part, value in found.statistics.items()},
            "mask_coverage": found.coverage.tolist(),
            "depth_levels": found.depth_levels.tolist(),
            "differences": faults,
        })  # fmt: skip
    else:
        _print_lines(describe_statistics(found.statistics, found.samples))
        for fault in faults:
            print(f"differs from the manifest: {fault}")
        print(f"the manifest {'disagrees' if faults else 'agrees'}")
    if faults:
        raise typer.Exit(BAD_NEWS)


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="The run folder.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A name that `maskdepth recipes` lists, or FILE.toml; options given here come "
            "first. (default: house)"
        ),
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(help="SIZE:EPOCHS,... or SIZE:50000s for samples. (default: 64:4,96:2,224:1)"),
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option(help="One number, or one per stage. (default: 256)")
    ] = None,
    device: Device = "auto",
    network_name: Annotated[
        str | None,
        typer.Option("--network", help="A name that `maskdepth models` lists. (default: unet)"),
    ] = None,
    width: Annotated[str | None, typer.Option(help="Of unet: s, m or l. (default: s)")] = None,
    tasks: Annotated[
        str | None,
        typer.Option(help="mask, depth, both, or auto: what the network has. (default: auto)"),
    ] = None,
    mask_loss: Annotated[
        str | None, typer.Option(help="Terms, weighted or not. (default: bce + dice)")
    ] = None,
    depth_loss: Annotated[
        str | None, typer.Option(help="Terms, weighted or not. (default: l1 + ssim)")
    ] = None,
    mask_weight: Annotated[
        str | None, typer.Option(help="A number, or '1 -> 0.5' over the run. (default: 1.0)")
    ] = None,
    depth_weight: Annotated[
        str | None, typer.Option(help="A number, or '1 -> 0.5' over the run. (default: 1.0)")
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="adamw, adam, sgd or rmsprop. (default: adamw)")
    ] = None,
    momentum: Annotated[
        float | None, typer.Option(help="Of sgd and rmsprop. (default: 0.9)")
    ] = None,
    nesterov: Annotated[
        bool | None, typer.Option("--nesterov/--no-nesterov", help="Of sgd. (default: False)")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate. (default: 0.004)")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="(default: 0.05)")] = None,
    clip_norm: Annotated[
        float | None, typer.Option(help="Gradient norm; 0: none. (default: 1.0)")
    ] = None,
    clip_value: Annotated[
        float | None, typer.Option(help="Each gradient's value; 0: none. (default: 0.0)")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Parts each batch is computed in. (default: 1)")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="one-cycle, cosine, constant, step or plateau; more of it in a recipe. "
            "(default: one-cycle)"
        ),
    ] = None,
    warmup: Annotated[
        float | None, typer.Option(help="Share of the run until the peak. (default: 0.2)")
    ] = None,
    step_at: Annotated[
        str | None,
        typer.Option(help="Shares of the run, or epochs as 4e,8e. (default: 0.5,0.75)"),
    ] = None,
    lr_factor: Annotated[
        float | None, typer.Option(help="Of step and plateau. (default: 0.1)")
    ] = None,
    plateau_patience: Annotated[
        int | None, typer.Option(help="Validations without an improvement. (default: 2)")
    ] = None,
    at_stage: Annotated[
        str | None,
        typer.Option(help="continue the schedule, or restart it. (default: continue)"),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Validations without a better score that end a stage; 0: none do. (default: 0)"
        ),
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(help="Save and end within 9m, 90s or 1.5h; go on with --resume.")
    ] = None,
    ema_decay: Annotated[
        float | None, typer.Option(help="Average the weights; 0: no. (default: 0.0)")
    ] = None,
    sync_batchnorm: Annotated[
        bool, typer.Option("--sync-batchnorm", help="Several GPUs: BatchNorm of the whole batch.")
    ] = False,
    precision: Annotated[
        str | None, typer.Option(help="auto, bf16, fp16, tf32 or fp32. (default: auto)")
    ] = None,
    compile_: Annotated[
        str | None, typer.Option("--compile", help="auto, off or max. (default: auto)")
    ] = None,
    fill_ahead: Annotated[
        bool, typer.Option("--fill-ahead", help="Also fill the next stage's cache meanwhile.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Of weights and order. (default: 0)")] = None,
    order: Annotated[
        str | None, typer.Option(help="global, or windowed for huge sets. (default: global)")
    ] = None,
    window_shards: Annotated[
        int | None, typer.Option(help="Shards mixed at a time. (default: 64 or more)")
    ] = None,
    log_every: Annotated[
        int | None, typer.Option(help="Steps between records. (default: 50)")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints. (default: 1000)")
    ] = None,
    keep_every: Annotated[
        int | None,
        typer.Option(help="Steps between checkpoints kept for good; 0: none. (default: 0)"),
    ] = None,
    init_from: Annotated[
        Path | None, typer.Option(help="Begin with a checkpoint's weights, and nothing else of it.")
    ] = None,
    max_bad_steps: Annotated[
        int | None,
        typer.Option(help="Steps that may be skipped, not being finite. (default: 10)"),
    ] = None,
    panels: Annotated[
        int | None, typer.Option(help="Validation samples drawn. (default: 32)")
    ] = None,
    histograms: Annotated[
        bool, typer.Option("--histograms", help="Of weights and gradients, for TensorBoard.")
    ] = False,
    graph: Annotated[
        bool, typer.Option("--graph", help="The network's graph, for TensorBoard.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Trace a few steps, for TensorBoard or Perfetto.")
    ] = False,
    augment: Annotated[
        str | None,
        typer.Option(
            help="PRESET[,OPTION=VALUE...]: none, flip, strong, or a reference's, 000 to 004; as "
            "in strong,rotation=15. (default: flip)"
        ),
    ] = None,
    decoder: DecoderName = None,
    threads: Annotated[
        str | None, typer.Option(help="Decoding threads, or auto. (default: auto)")
    ] = None,
    prefetch_batches: Annotated[
        str | None, typer.Option(help="Batches decoded ahead, or auto. (default: auto)")
    ] = None,
    exact_decode: Annotated[
        bool, typer.Option("--exact-decode", help="Never decode at a reduced scale.")
    ] = False,
    cache: Annotated[
        str | None,
        typer.Option(
            help="Keep decoded samples for the next pass: device, host, file, off; auto picks the "
            "first with room. (default: auto)"
        ),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of cache files, kept after the run. (default: auto makes none)"),
    ] = None,
    hw_decoder_load: Annotated[
        str | None, typer.Option(help="Share for the JPEG engines, or auto. (default: auto)")
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option(
            help="auto measures what is quickest here once, again once more, off never. "
            "(default: auto)"
        ),
    ] = None,
    max_bad_samples: MaxBadSamples = None,
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="The same bits every time, on a GPU too; slower."),
    ] = False,
    verify_hashes: Annotated[
        bool, typer.Option("--verify-hashes", help="Check every file's SHA-256 first.")
    ] = False,
    repeat: Annotated[
        str | None, typer.Option(help="How often an epoch holds each set, as 2,1. (default: once)")
    ] = None,
    remote_cache_dir: RemoteCacheDir = None,
    remote_cache_gb: RemoteCacheGb = None,
    remote_fetches: Annotated[
        int | None, typer.Option(help="Shards fetched at a time. (default: 4)")
    ] = None,
    remote_retries: Annotated[
        int | None, typer.Option(help="Tries after the first. (default: 6)")
    ] = None,
    remote_timeout: Annotated[
        float | None, typer.Option(help="Seconds of silence that end a try. (default: 30.0)")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the very next sample.")
    ] = False,
) -> None:
    """Train on a set; leaves checkpoints, metrics, TensorBoard and panels in the run folder."""
    began = time.monotonic()
    from dataclasses import replace

    from models.recipe import EMPTY, read_recipe
    from models.training.distributed import joined
    from models.training.precision import resolved
    from pipeline.loader import LoaderConfig
    from pipeline.remote import RemoteConfig

    place = _device(device)
    base = EMPTY if recipe is None else read_recipe(recipe)
    mask_factor, mask_ramp = _task_weight(mask_weight)
    depth_factor, depth_ramp = _task_weight(depth_weight)
    with _values():
        config = base.part("train", {
            "stages": stages,
            "batch_size": batch_size,
            "tasks": tasks,
            "optimizer": {
                "name": optimizer,
                "lr": lr,
                "momentum": momentum,
                "nesterov": nesterov,
                "weight_decay": weight_decay,
                "clip_norm": clip_norm,
                "clip_value": clip_value,
            },
            "schedule": {
                "name": schedule,
                "warmup": warmup,
                "at": step_at,
                "factor": lr_factor,
                "patience": plateau_patience,
                "at_stage": at_stage,
                "mask_weight": mask_ramp,
                "depth_weight": depth_ramp,
            },
            "precision": {
                "dtype": precision,
                "compile": compile_,
                "deterministic": deterministic or None,
            },
            "ema_decay": ema_decay,
            "accumulate": accumulate,
            "sync_batchnorm": sync_batchnorm or None,
            "seed": seed,
            "patience": patience,
            "time_limit": time_limit,
            "log_every": log_every,
            "checkpoint_every": checkpoint_every,
            "keep_every": keep_every,
            "init_from": None if init_from is None else str(init_from),
            "max_bad_steps": max_bad_steps,
            "num_panels": panels,
            "histograms": histograms or None,
            "graph": graph or None,
            "profile": profile or None,
        })  # fmt: skip
        config = replace(config, precision=resolved(config.precision, place))
        # another network has other widths than the recipe's
        wide = "" if network_name and not width else width
        network = base.part("network", {"name": network_name, "width": wide})
        weights = {"mask_weight": mask_factor, "depth_weight": depth_factor}
        loss = base.part("loss", {"mask": mask_loss, "depth": depth_loss, **weights})
    loading = _build(
        LoaderConfig,
        decoder=decoder,
        threads=_number(threads),
        prefetch_batches=_number(prefetch_batches),
        exact_decode=exact_decode,
        cache=cache,
        cache_dir=cache_dir,
        fill_ahead=fill_ahead,
        seed=config.seed,
        order=order,
        window_shards=window_shards,
        augment=_augment(augment, base),
        max_bad_samples=max_bad_samples,
        hw_decoder_load=_number(hw_decoder_load),
        tune=tune,
        deterministic=config.precision.deterministic,
        verify_hashes=verify_hashes,
        repeats=_numbers(repeat, "repeat"),
        remote=_build(
            RemoteConfig,
            cache_dir=remote_cache_dir,
            cache_gb=remote_cache_gb,
            fetches=remote_fetches,
            retries=remote_retries,
            timeout_s=remote_timeout,
        ),
    )
    with joined(place) as (ranks, own), _one_voice(ranks):
        scores, num_bad = _train(
            data, out, config, loading, network, loss, own, base, ranks, resume=resume, began=began
        )
    if not ranks.is_writer:
        return
    _print_scores(scores)
    print(f"\nrun          {out}\nnewest panel {_newest(out / 'panels')}")
    _print_bad_samples(num_bad)


@app.command("lr-find")
def find_lr(
    data: Data,
    out: Annotated[Path, typer.Option(help="The plot; the numbers lie beside it, as JSON.")] = Path(
        "lr-find.png"
    ),
    recipe: Annotated[
        str | None, typer.Option(help="Network, losses, optimiser: a name or a file.")
    ] = None,
    network_name: Annotated[
        str | None, typer.Option("--network", help="Another network than the recipe's.")
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="Another optimiser than the recipe's.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of that optimiser.")] = None,
    size: Annotated[
        int | None, typer.Option(help="Side of the images in pixels. (default: the first stage's)")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Samples per step. (default: the first stage's)")
    ] = None,
    lowest: Annotated[
        float | None, typer.Option(help="Rate of the first step. (default: 1e-06)")
    ] = None,
    highest: Annotated[
        float | None, typer.Option(help="Rate of the last step. (default: 1.0)")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="From the one to the other. (default: 100)")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, bf16, fp16, tf32 or fp32. (default: auto)")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and order. (default: 0)")] = None,
    device: Device = "auto",
) -> None:
    """Train with an ever higher learning rate, and suggest one; keeps no weights."""
    from dataclasses import replace

    from models.recipe import EMPTY, read_recipe
    from models.training.lr_find import LrFindConfig, draw
    from models.training.precision import resolved
    from pipeline.loader import LoaderConfig

    place = _device(device)
    base = EMPTY if recipe is None else read_recipe(recipe)
    with _values():
        config = base.part("train", {
            "optimizer": {"name": optimizer, "weight_decay": weight_decay},
            # nothing is compiled for so few steps
            "precision": {"dtype": precision, "compile": "off"},
            "seed": seed,
        })  # fmt: skip
        config = replace(config, precision=resolved(config.precision, place))
        first = config.parsed_stages[0]
        side, samples = size or first.size, batch_size or first.batch_size
        config = replace(config, stages=f"{side}:1", batch_size=str(samples))
        # another network has other widths than the recipe's
        network = base.part(
            "network", {"name": network_name, "width": "" if network_name else None}
        )
        loss = base.part("loss")
    finding = _build(LrFindConfig, lowest=lowest, highest=highest, steps=steps)
    loading = _build(LoaderConfig, seed=config.seed, augment=_augment(None, base))
    found = _range_test(data, config, network, loss, loading, place, finding)
    rule = config.optimizer.name
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(found, f"{network.name}, {rule}, {side} px, batches of {samples}").save(out, "PNG")
    found.save(out.with_suffix(".json"))
    end = "it diverged" if found.has_diverged else "the last one"
    print(f"rates tried      {found.rates[0]:.2g} to {found.rates[-1]:.2g}: {end}")
    print(f"steepest         {found.steepest:.2g}")
    print(f"lowest / 10      {found.tenth_of_lowest:.2g}")
    print(f"plot             {out}, {out.with_suffix('.json')}")


@app.command()
def evaluate(
    checkpoint: Checkpoint,
    data: Data,
    size: Annotated[
        int | None, typer.Option(help="Side in pixels. (default: the last stage's)")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Samples per forward pass.")] = 64,
    device: Device = "auto",
    decoder: DecoderName = None,
    max_bad_samples: MaxBadSamples = None,
    remote_cache_dir: RemoteCacheDir = None,
    remote_cache_gb: RemoteCacheGb = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Also compute the Dice of system 000 and the IoU and RMSE of 004 as they were "
            "published, defects included.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Score a checkpoint on a set's validation samples, beside the two free baselines."""
    from models.exported import ExportedNetwork
    from models.training.evaluate import evaluate as run
    from models.training.evaluate import facts_of
    from models.training.precision import Precision, PrecisionConfig
    from pipeline.loader import Loader, LoaderConfig
    from pipeline.normalise import Normalisation
    from pipeline.remote import RemoteConfig

    place = _device(device)
    predictor = _predictor(checkpoint, size, place)
    config = _build(
        LoaderConfig,
        decoder=decoder,
        max_bad_samples=max_bad_samples,
        remote=_build(RemoteConfig, cache_dir=remote_cache_dir, cache_gb=remote_cache_gb),
    )
    # the set may be another than the one trained on; an exported network has its own inside
    trained = None
    if not isinstance(predictor, ExportedNetwork):
        trained = Normalisation(mean=predictor.mean, std=predictor.std)
    with Loader(data, config, place, normalisation=trained) as loader:
        _require_validation(loader)
        scaling = loader.normalisation
        scores = run(
            predictor.as_network(scaling.mean, scaling.std)
            if isinstance(predictor, ExportedNetwork)
            else predictor.network,
            loader,
            size=predictor.size,
            batch_size=batch_size,
            facts=facts_of(loader),
            precision=Precision(PrecisionConfig(compile="off"), place),
            published=published,
        )
        num_bad = loader.num_bad_samples
    if as_json:
        result = {"checkpoint": str(checkpoint), "size": predictor.size, "bad_samples": num_bad}
        _print_json({**result, **scores})
    else:
        _print_scores(scores)
        _print_bad_samples(num_bad)


@app.command()
def predict(
    checkpoint: Checkpoint,
    out: Annotated[Path, typer.Option(help="Folder for the PNGs and the panel.")],
    background: Annotated[
        Path | None, typer.Option(help="A scene, or a folder of scenes named as the composites.")
    ] = None,
    composite: Annotated[
        Path | None, typer.Option(help="The scene with the object, or a folder of such.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Folder or URL of a set: predict its validation samples."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side in pixels. (default: the last stage's)")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Samples per forward pass.")] = 32,
    device: Device = "auto",
    decoder: DecoderName = None,
    max_bad_samples: MaxBadSamples = None,
    remote_cache_dir: RemoteCacheDir = None,
    remote_cache_gb: RemoteCacheGb = None,
) -> None:
    """Write mask and depth PNGs and a panel for pictures, folders of pictures, or a set."""
    from models.predict import pair_folders, predict_files, predict_set
    from pipeline.loader import Loader, LoaderConfig
    from pipeline.remote import RemoteConfig

    if bool(data) == bool(composite):
        msg = "give either --composite (with --background) or --data"
        raise typer.BadParameter(msg)
    place = _device(device)
    predictor = _predictor(checkpoint, size, place)
    config = _build(
        LoaderConfig,
        decoder=decoder,
        max_bad_samples=max_bad_samples,
        remote=_build(RemoteConfig, cache_dir=remote_cache_dir, cache_gb=remote_cache_gb),
    )
    num_bad = 0
    if data:
        with Loader(data, config, place) as loader:
            _require_validation(loader)
            with loader.validate(size=predictor.size, batch_size=batch_size) as batches:
                count = predict_set(
                    predictor,
                    batches,
                    out,
                    mean=loader.normalisation.mean,
                    std=loader.normalisation.std,
                    stem=loader.validation_key,
                )
            num_bad = loader.num_bad_samples
    else:
        assert composite is not None
        for path in (background, composite):
            if path is not None and not path.exists():
                msg = f"{path} does not exist; name an image or a folder of images"
                raise typer.BadParameter(msg)
        with _values():
            pairs = pair_folders(background, composite)
            count = predict_files(
                predictor, pairs, out, decode=_file_decoder(config, place), batch_size=batch_size
            )
    print(f"{count:,} predictions in {out}\npanel        {out / 'panel.png'}")
    if num_bad:
        _print_bad_samples(num_bad)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Option(help="last.pt or best.pt of a run.")],
    format_: Annotated[
        str, typer.Option("--format", help="onnx, for onnxruntime; torch-export, for torch.")
    ] = "onnx",
    size: Annotated[
        int | None, typer.Option(help="Side in pixels. (default: the last stage's)")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="FILE.onnx or FILE.pt2. (default: beside the checkpoint)")
    ] = None,
    batch: Annotated[str, typer.Option(help="Images at once: a number, or dynamic.")] = "dynamic",
    dtype: Annotated[str, typer.Option(help="What it computes in: fp32.")] = "fp32",
) -> None:
    """Write a network as one file from uint8 pixels to probabilities, and check it."""
    import torch

    from models.export import check_request
    from models.export import export as run
    from models.exported import FORMATS

    with _values():
        number = check_request(format_, out, batch, dtype)
    predictor, network = _trained(checkpoint, size, torch.device("cpu"))
    name = f"{checkpoint.stem}-{predictor.size}px{FORMATS[format_]}"
    path = out or checkpoint.with_name(name)
    found = run(predictor, network, path, batch=number)
    images = f"(N, 3, {predictor.size}, {predictor.size}) uint8 RGB"
    print(f"exported     {path}, {path.stat().st_size / 1e6:,.1f} MB")
    print(f"inputs       {', '.join(found.facts.inputs)}: {images}, N {number or 'at will'}")
    print(f"outputs      {', '.join(found.facts.outputs)}: as many maps of the size, in [0, 1]")
    print(f"difference   {found.difference:.1e} from the checkpoint at most, of {found.num_images} "
          f"pairs; {found.tolerance:g} is tolerated")  # fmt: skip


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="The run folder.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file. (default: report.html in the run folder)")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Folder or URL of the set: shows the best and worst predictions, too."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Samples per forward pass.")] = 64,
    device: Device = "auto",
    decoder: DecoderName = None,
    remote_cache_dir: RemoteCacheDir = None,
    remote_cache_gb: RemoteCacheGb = None,
) -> None:
    """Show a run, finished or not, as one HTML page that needs nothing else."""
    from benchmarks.harness import environment
    from models.report.folder import read_run
    from models.report.page import write_report
    from pipeline.loader import LoaderConfig
    from pipeline.remote import RemoteConfig

    found = read_run(run)
    extremes = None
    if data:
        config = _build(
            LoaderConfig,
            decoder=decoder,
            remote=_build(RemoteConfig, cache_dir=remote_cache_dir, cache_gb=remote_cache_gb),
        )
        extremes = _extremes(run / "best.pt", data, config, batch_size, _device(device))
    page = out or run / "report.html"
    write_report(found, page, versions=environment(), extremes=extremes)
    print(f"report       {page}, {page.stat().st_size / 1e6:,.1f} MB")


@app.command("models")
def list_models(as_json: Json = False) -> None:
    """List the networks: source, parameters, inputs, outputs, sizes, cost of a forward pass."""
    from models.listing import describe, facts, list_networks

    rows = list_networks()
    if as_json:
        _print_json(facts(rows))
    else:
        _print_lines(describe(rows))


@app.command("recipes")
def show_recipes(
    name: Annotated[
        str | None, typer.Argument(help="Print this one's file.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes that `train --recipe` takes, or print one to begin your own from."""
    from models.recipe import describe, facts, read_recipe, recipe_names

    if name is not None:
        print(read_recipe(name).text, end="")
        return
    recipes = [read_recipe(known) for known in recipe_names()]
    if as_json:
        _print_json([facts(recipe) for recipe in recipes])
    else:
        _print_lines(describe(recipes))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("demo"),
    count: Annotated[int, typer.Option(help="Triplets to make and train on.")] = 2000,
    stages: Annotated[str, typer.Option(help="SIZE:EPOCHS,...")] = "64:14,96:8",
    batch_size: Annotated[str, typer.Option(help="One number, or one per stage.")] = "32",
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 6e-3,
) -> None:
    """The whole path on made-up data: zips, shards, training, predictions, a picture.

    Run again it goes on where it stopped.
    """
    from benchmarks.harness import environment

    source, shard_set, run = out / "source", out / "set", out / "run"
    seconds: dict[str, float] = {}
    with _timed(seconds, "synth", "1/4 synth: a data set as zips"):
        if not list(source.glob("*.zip")):
            synth(source, count=count)
    with _timed(seconds, "convert", "2/4 convert: zips to a shard set, every image decoded"):
        convert([source], out=shard_set)
    with _timed(seconds, "train", "3/4 train: mask and depth, size by size"):
        train([str(shard_set)], run, stages=stages, batch_size=batch_size, lr=lr, resume=True)
    with _timed(seconds, "predict", "4/4 predict: objects that training never saw"):
        predict(run / "best.pt", out / "predictions", data=[str(shard_set)])
    last = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    found = {"count": count, "stages": stages, "seconds": seconds, "validation": last,
             "environment": environment()}  # fmt: skip
    (out / "result.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


@app.command()
def doctor(
    data: Annotated[
        Path | None, typer.Option(help="Also look at this set's files.", show_default=False)
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Say what this machine has, what the loader would choose here, and what bounds it.

    Takes some seconds; exit status 1 if something is found that makes the loader fail.
    """
    from pipeline.doctor import examine

    report = examine(_device(device), data)
    if as_json:
        _print_json(report.facts())
    else:
        _print_lines(report.lines())
    if report.faults:
        raise typer.Exit(BAD_NEWS)


@app.command()
def bench(
    question: Annotated[
        str,
        typer.Argument(
            help="convert or loader: samples/s against ceiling and peers; "
            "train: the share reached of the step alone, waiting for data; "
            "quality: accuracy and speed of the networks; augment: its cost; "
            "order: its cost and mixing; growth: memory over many epochs."
        ),
    ],
    quick: Annotated[bool, typer.Option("--quick", help="A first look, in a minute.")] = False,
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Also against what people write first."),
    ] = False,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Keep the result in this file.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the result into this PNG.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="A result kept before: exit status 1 if slower now.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="quality: zips or a folder to convert, instead of made-up data."),
    ] = None,
    losses: Annotated[
        bool, typer.Option("--losses", help="quality: pairs of losses instead of networks.")
    ] = False,
) -> None:
    """Measure a hop against its ceiling and its peers, or the networks against each other."""
    from benchmarks.compare import read_comparable, slower_rows
    from benchmarks.plot import save
    from benchmarks.questions import find

    given = {"peers": peers, "data": data, "losses": losses}
    with _values():
        asked, run = find(question, {**given, "plot": plot, "compare": compare})
        stored = compare and read_comparable(compare, question=question, quick=quick)
    options = {name: value for name, value in given.items() if name in asked.options}
    found = run(quick=quick, json_path=json_path, **options)
    if plot is not None:
        save(found, plot)
    if stored:
        with _values():
            slower = slower_rows(found, stored)
        _print_lines([*slower, f"{compare}: {len(slower) or 'nothing'} slower"])
        if slower:
            raise typer.Exit(BAD_NEWS)


Config = TypeVar("Config")


def _build(kind: Callable[..., Config], **values: object) -> Config:
    """A configuration from the options that were given; the others keep its own defaults."""
    with _values():
        return kind(**{name: value for name, value in values.items() if value is not None})


def _number(text: str | None) -> int | float | str | None:
    """A number where the text is one; what else it may be is for the configuration to say."""
    for kind in (int, float):
        with suppress(ValueError, TypeError):
            return kind(text)  # type: ignore[arg-type] # None is a TypeError
    return text


def _numbers(text: str | None, name: str = "sets") -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        msg = f"{name} is {text!r}; it must be numbers such as 1,3"
        raise typer.BadParameter(msg) from None


@contextmanager
def _timed(seconds: dict[str, float], name: str, title: str) -> Iterator[None]:
    print(f"\n== {title}", file=sys.stderr)
    began = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - began, 1)


@contextmanager
def _values() -> Iterator[None]:
    """What a configuration says of a wrong value is the user's to read."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _device(name: str) -> "torch.device":
    import torch

    if name not in {"auto", "cpu", "cuda"}:
        msg = f"device is {name!r}; it must be auto, cpu or cuda"
        raise typer.BadParameter(msg)
    if name == "cuda" and not torch.cuda.is_available():
        msg = "device is 'cuda', and torch sees no GPU here; use --device cpu"
        raise typer.BadParameter(msg)
    found = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(found if name == "auto" else name)


def _train(
    data: list[str],
    out: Path,
    config: Any,
    loading: "LoaderConfig",
    network: Any,
    loss: Any,
    device: "torch.device",
    recipe: "Recipe",
    ranks: "Ranks",
    *,
    resume: bool,
    began: float,
) -> tuple[dict[str, float], int]:
    """The last validation's metrics, and how many samples were found bad."""
    from dataclasses import asdict

    import torch

    from models.losses import TaskLoss
    from models.registry import NETWORKS, build_network, check_size, smallest_scale
    from models.training.distributed import check_shares
    from models.training.evaluate import facts_of
    from models.training.tasks import check_tasks
    from models.training.trainer import Trainer
    from pipeline.loader import Loader

    with _values():
        check_tasks(config.tasks, NETWORKS[network.name].tasks, network.name)
        check_shares(config, ranks, device)
        for stage in config.parsed_stages:
            share = stage.batch_size // ranks.size
            check_size(network, stage.size, max(1, share // config.accumulate))
            loss.check_size(stage.size, smallest_scale(network), NETWORKS[network.name].tasks)
    with Loader(
        data,
        loading,
        device,
        rank=ranks.rank,
        world_size=ranks.size,
        tell_plan=_print_plan if ranks.is_writer else None,
    ) as loader:
        loader.expect(
            [(stage.size, stage.epochs_of(loader.num_samples)) for stage in config.parsed_stages]
        )
        _require_validation(loader)
        if ranks.is_writer:
            _tell_other_set(recipe, loader)
        _require_backgrounds(network, loader)
        torch.manual_seed(config.seed)
        trainer = Trainer(
            config,
            network=build_network(network),
            loss=TaskLoss(loss),
            loader=loader,
            facts=facts_of(loader),
            run_dir=out,
            device=device,
            sections={
                "network": asdict(network),
                "loss": asdict(loss),
                "loader": loader.record,
            },
            began=began,
            ranks=ranks,
        )
        return trainer.run(resume=resume), loader.num_bad_samples


def _require_backgrounds(network: Any, loader: "Loader") -> None:
    from models.registry import needs_background

    if needs_background(network) and not loader.manifest.backgrounds:
        msg = (
            f"{loader.sets.told} has no backgrounds, and network {network.name!r} needs them; "
            "convert again with them among the sources, or with --backgrounds estimate"
        )
        raise LoaderError(msg)


def _range_test(
    data: list[str],
    config: Any,
    network: Any,
    loss: Any,
    loading: "LoaderConfig",
    device: "torch.device",
    finding: "LrFindConfig",
) -> "RangeTest":
    """Of the first stage's size and batch size."""
    import torch

    from models.losses import TaskLoss
    from models.registry import NETWORKS, build_network, check_size, smallest_scale
    from models.training.learner import Learner
    from models.training.lr_find import range_test
    from models.training.tasks import check_tasks
    from pipeline.loader import Loader

    stage = config.parsed_stages[0]
    with _values():
        check_tasks(config.tasks, NETWORKS[network.name].tasks, network.name)
        check_size(network, stage.size, stage.batch_size // config.accumulate)
        loss.check_size(stage.size, smallest_scale(network), NETWORKS[network.name].tasks)
    with Loader(data, loading, device) as loader:
        _require_backgrounds(network, loader)
        torch.manual_seed(config.seed)
        learner = Learner(config, build_network(network), TaskLoss(loss), device)
        with loader.train(
            size=stage.size, batch_size=stage.batch_size, start=0, num_steps=finding.steps
        ) as batches:
            learner.begin_stage(1)
            return range_test(learner, batches, finding)


@contextmanager
def _one_voice(ranks: "Ranks") -> Iterator[None]:
    """What several ranks have to say alike is said by the first that comes to it."""
    from models.training.distributed import lost_rank

    try:
        try:
            yield
        except RuntimeError as error:
            if ranks.size > 1 and (found := lost_rank(error)):
                raise found from error
            raise
    except (*REPAIRABLE, Interrupted, TimeIsUp, typer.BadParameter) as error:
        if ranks.is_first_to_say(str(error)):
            raise
        status = {Interrupted: INTERRUPTED, TimeIsUp: 0}.get(type(error), USER_ERROR)
        sys.exit(status)


def _augment(given: str | None, recipe: "Recipe") -> "AugmentConfig | None":
    from pipeline.augment import read_augment

    text = recipe.part("loader").augment
    if given is not None or not text:
        return None if given is None else _build(read_augment, text=given)
    try:
        return read_augment(text)
    except ValueError as error:
        msg = f"recipe {recipe.name}: loader.{error}; correct it there, or give --augment"
        raise TrainingError(msg) from None


def _task_weight(text: str | None) -> tuple[float | None, str | None]:
    """A task's weight as the loss takes it, and as the schedule does: one takes the other away."""
    if text is None:
        return None, None
    try:
        return float(text), ""
    except ValueError:
        return None, text


def _tell_other_set(recipe: "Recipe", loader: "Loader") -> None:
    expected = recipe.part("set")
    for difference in expected.differences(loader.manifest.split, loader.manifest.options):
        _fail(
            f"recipe {recipe.name} was written for another set than {loader.sets.told}: this one "
            f"has {difference}, and scores will not compare; `maskdepth {expected.convert} ...` "
            "makes such a one"
        )


def _resuming(arguments: list[str]) -> str:
    import shlex

    more = [] if "--resume" in arguments else ["--resume"]
    return shlex.join(["maskdepth", *arguments, *more])


def _print_plan(plan: "MemoryPlan") -> None:
    print(plan.text(), file=sys.stderr)


def _verify_remote(url: str, *, is_plain: bool, as_json: bool) -> None:
    from pipeline.remote import RemoteConfig
    from pipeline.remote_set import RemoteSets

    if not is_plain:
        msg = f"--deep and --repair read every file; copy {url} to a folder first"
        raise typer.BadParameter(msg)
    faults = RemoteSets(RemoteConfig()).faults(url)
    if as_json:
        _print_json({"faults": faults})
    else:
        _print_lines([*faults, f"{url}: {len(faults) or 'no'} fault{'s' * (len(faults) != 1)}"])
    if faults:
        raise typer.Exit(BAD_NEWS)


def _require_validation(loader: "Loader") -> None:
    if not loader.num_validation_samples:
        msg = f"{loader.sets.told} has no validation samples; convert it with a larger --val"
        raise LoaderError(msg)


def _predictor(
    checkpoint: Path, size: int | None, device: "torch.device"
) -> "Predictor | ExportedNetwork":
    """What a checkpoint or an exported file predicts with."""
    from models.exported import is_exported, read_exported

    if not is_exported(checkpoint):
        return _trained(checkpoint, size, device)[0]
    program = read_exported(checkpoint, device)
    if size not in {None, program.size}:
        msg = f"{checkpoint} was exported for {program.size} px, not {size}; leave out --size"
        raise typer.BadParameter(msg)
    return program


def _trained(
    checkpoint: Path, size: int | None, device: "torch.device"
) -> "tuple[Predictor, NetworkConfig]":
    """A checkpoint's network, ready to predict, and what it is."""
    from models.checkpoint import load_weights, read_checkpoint, weights
    from models.predict import Predictor
    from models.registry import NetworkConfig, build_network, check_size
    from models.training.config import TrainConfig, from_dict
    from models.training.tasks import with_tasks

    state = read_checkpoint(checkpoint)
    with _values():
        config = from_dict(NetworkConfig, state["config"]["network"], "network")
        trained = from_dict(TrainConfig, state["config"]["train"])
        side = size or trained.parsed_stages[-1].size
        check_size(config, side)
    network = build_network(config)
    load_weights(network, weights(state), checkpoint)
    predictor = Predictor(
        network=with_tasks(network, trained.tasks).to(device).eval(),
        size=side,
        mean=tuple(state["set"]["pixel_mean"]),
        std=tuple(state["set"]["pixel_std"]),
        device=device,
    )
    return predictor, config


def _extremes(
    checkpoint: Path,
    data: list[str],
    config: "LoaderConfig",
    batch_size: int,
    device: "torch.device",
) -> "Extremes":
    from models.checkpoint import read_checkpoint
    from models.report.extremes import find_extremes
    from pipeline.loader import Loader

    predictor, _ = _trained(checkpoint, None, device)
    trained_on = read_checkpoint(checkpoint)["set"]["fingerprint"]
    with Loader(data, config, device) as loader:
        _require_validation(loader)
        another = "This is another set than the one trained on."
        with loader.validate(size=predictor.size, batch_size=batch_size) as batches:
            return find_extremes(
                predictor,
                batches,
                mean=loader.normalisation.mean,
                std=loader.normalisation.std,
                name=loader.validation_key,
                note="" if loader.manifest.fingerprint == trained_on else another,
            )


def _file_decoder(config: "LoaderConfig", device: "torch.device") -> "Decode":
    from models.predict import Decoded
    from pipeline.loader import open_decoder
    from shards.imagery import ImageError, read_header

    decoder = open_decoder(config, device)

    def decode(path: Path, size: int) -> Decoded:
        content = path.read_bytes()
        try:
            header = read_header(content)
        except ImageError as error:
            msg = f"{path}: {error}; give a JPEG or PNG image"
            raise LoaderError(msg) from None
        pixels = decoder.decode_images([content], size=size, names=[str(path)])
        return Decoded(pixels[0].permute(2, 0, 1), (header.height, header.width))

    return decode


def _draw_samples(path: Path, picture: Path) -> None:
    import torch

    from models.panel import panel
    from pipeline.loader import Loader, LoaderConfig

    with Loader(path, LoaderConfig(decoder="turbojpeg"), torch.device("cpu")) as loader:
        size = min(loader.manifest.image_size)
        stream = (
            loader.validate(size=size, batch_size=8)
            if loader.num_validation_samples
            else loader.train(size=size, batch_size=8, start=0, num_steps=1)
        )
        with stream as batches:
            batch = next(batches)
        image = panel(
            batch.background,
            batch.composite,
            batch.mask,
            batch.depth,
            None,
            None,
            mean=loader.normalisation.mean,
            std=loader.normalisation.std,
        )
    picture.parent.mkdir(parents=True, exist_ok=True)
    image.save(picture)


def _print_set(path: Path, manifest: "Manifest", *, as_json: bool) -> None:
    from shards.plan import SPLITS
    from shards.summary import describe_set

    if as_json:
        samples = {split: manifest.num_samples(split) for split in SPLITS}
        size_bytes = sum(record.bytes for record in manifest.files.values())
        _print_json({**json.loads(manifest.text()), "samples": samples, "bytes": size_bytes})
    else:
        _print_lines(describe_set(path, manifest))


def _print_lines(lines: Iterable[str]) -> None:
    print("\n".join(lines))


def _print_scores(scores: Mapping[str, float]) -> None:
    baselines = {"mask_iou": "baseline_mask_iou", "depth_rmse": "baseline_depth_rmse"}
    width = max(map(len, ("metric", *scores))) + 2
    print(f"{'metric':<{width}}{'network':>9}{'free baseline':>16}")
    for name, value in scores.items():
        if not name.startswith("baseline_"):
            free = scores.get(baselines.get(name, ""))
            # 000's figures differ in the fifth decimal
            shown = f"{value:#.3g}" if name.startswith("published_") else f"{value:.4f}"
            print(f"{name:<{width}}{shown:>9}{f'{free:.4f}' if free is not None else '':>16}")


def _print_bad_samples(count: int) -> None:
    told = f"{count:,}, left out at weight 0; `maskdepth verify` names them" if count else "none"
    print(f"bad samples  {told}")


def _newest(folder: Path) -> Path:
    return max(folder.glob("*.png"), key=lambda path: path.stat().st_mtime, default=folder)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, sort_keys=True))


def _fail(message: str) -> int:
    print(f"maskdepth: {' '.join(message.split())}", file=sys.stderr)
    return USER_ERROR


@contextmanager
def _progress(verb: str, unit: str) -> Iterator[Callable[..., None]]:
    """A bar with rate and time left on stderr, on a terminal only.

    Yields a function of what is done, what is to do, and the bytes written so far if any are.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(verb),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} " + unit),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(verb, total=1, rate="")

        def show(done: int, total: int, written: int = 0) -> None:
            speed, elapsed = bar.tasks[0].speed, bar.tasks[0].elapsed
            rate = f"{speed:,.0f} {unit}/s" if speed else ""
            if written and elapsed:
                rate += f", {written / elapsed / 1e6:,.0f} MB/s"
            bar.update(task, completed=done, total=total, rate=rate)

        yield show


if __name__ == "__main__":  # where nothing is installed
    main()
