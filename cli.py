"""The command line: what a user types becomes configurations, and one call a command.

A command lies in the lowest folder that knows all it needs; those that put a loader and a network
together are here. `COMMANDS`, at the end, lists all.

    shards/commands.py      synth, convert, stats
    pipeline/commands.py    verify, doctor
    models/commands.py      export, models, recipes
    benchmarks/commands.py  bench
    cli.py                  inspect, train, lr-find, evaluate, predict, report, demo

What they share is in `shards/console.py`; the many options of `train` are declared in
`models/training/command_options.py` and `pipeline/command_options.py`.

Nothing heavy is imported before a command needs it, so `--help` is instant. Options left out take
their default from the configuration they belong to. Results go to stdout, progress to stderr, and
what a user can repair is one line on stderr and exit status 2.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.commands import bench
from models.commands import Size, export, list_models, predictor_of, show_recipes, trained_network
from models.error import CheckpointError, Interrupted, TimeIsUp, TrainingError
from models.training import command_options as run_options
from pipeline import command_options as loader_options
from pipeline.command_options import (
    Data,
    Decoder,
    Device,
    MaxBadSamples,
    RemoteCacheDir,
    RemoteCacheGb,
    chosen_device,
)
from pipeline.commands import doctor, verify
from pipeline.error import LoaderError
from shards.commands import Set, convert, print_set, stats, synth
from shards.console import (
    USER_ERROR,
    Json,
    build,
    fail,
    given_values,
    number,
    numbers,
    print_json,
    print_lines,
)
from shards.error import ShardError

if TYPE_CHECKING:
    import torch

    from models.predict import Decode
    from models.recipe import Recipe
    from models.report.extremes import Extremes
    from models.training.distributed import Ranks
    from models.training.lr_find import LrFindConfig, RangeTest
    from pipeline.augment import AugmentConfig
    from pipeline.cache.memory_plan import MemoryPlan
    from pipeline.loader import Loader, LoaderConfig

REPAIRABLE = (ShardError, LoaderError, CheckpointError, TrainingError)
INTERRUPTED = 130

Checkpoint = Annotated[
    Path, typer.Option(help="last.pt or best.pt of a run; or what `export` wrote.")
]
PassSize = Annotated[int, typer.Option(help="Samples per forward pass.")]


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
    print_set(path, manifest, as_json=as_json)
    if not as_json:
        print()
        print_lines(describe_statistics(manifest.statistics, manifest.statistics_samples))
    if panel is not None:
        _draw_samples(path, panel)
        if not as_json:
            print(f"panel        {panel}")


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
    stages: run_options.Stages = None,
    batch_size: run_options.BatchSize = None,
    device: Device = "auto",
    seed: run_options.Seed = None,
    resume: run_options.Resume = False,
    # the network
    network_name: run_options.Network = None,
    width: run_options.Width = None,
    init_from: run_options.InitFrom = None,
    tasks: run_options.Tasks = None,
    mask_loss: run_options.MaskLoss = None,
    depth_loss: run_options.DepthLoss = None,
    mask_weight: run_options.TaskWeight = None,
    depth_weight: run_options.TaskWeight = None,
    # the optimiser
    optimizer: run_options.Optimizer = None,
    lr: run_options.Lr = None,
    momentum: run_options.Momentum = None,
    nesterov: run_options.Nesterov = None,
    weight_decay: run_options.WeightDecay = None,
    clip_norm: run_options.ClipNorm = None,
    clip_value: run_options.ClipValue = None,
    accumulate: run_options.Accumulate = None,
    ema_decay: run_options.EmaDecay = None,
    sync_batchnorm: run_options.SyncBatchnorm = False,
    # the schedule
    schedule: run_options.Schedule = None,
    warmup: run_options.Warmup = None,
    step_at: run_options.StepAt = None,
    lr_factor: run_options.LrFactor = None,
    plateau_patience: run_options.PlateauPatience = None,
    at_stage: run_options.AtStage = None,
    patience: run_options.Patience = None,
    time_limit: run_options.TimeLimit = None,
    # precision
    precision: run_options.Precision = None,
    compile_: run_options.Compile = None,
    deterministic: run_options.Deterministic = False,
    # samples
    order: loader_options.Order = None,
    window_shards: loader_options.WindowShards = None,
    repeat: loader_options.Repeat = None,
    augment: loader_options.Augment = None,
    max_bad_samples: loader_options.TrainMaxBadSamples = None,
    verify_hashes: loader_options.VerifyHashes = False,
    # decoding and caching
    decoder: loader_options.TrainDecoder = None,
    exact_decode: loader_options.ExactDecode = False,
    threads: loader_options.Threads = None,
    prefetch_batches: loader_options.PrefetchBatches = None,
    hw_decoder_load: loader_options.HwDecoderLoad = None,
    tune: loader_options.Tune = None,
    cache: loader_options.Cache = None,
    cache_dir: loader_options.CacheDir = None,
    fill_ahead: loader_options.FillAhead = False,
    # sets at URLs
    remote_cache_dir: loader_options.TrainRemoteCacheDir = None,
    remote_cache_gb: loader_options.TrainRemoteCacheGb = None,
    remote_fetches: loader_options.RemoteFetches = None,
    remote_retries: loader_options.RemoteRetries = None,
    remote_timeout: loader_options.RemoteTimeout = None,
    # records and checkpoints
    log_every: run_options.LogEvery = None,
    checkpoint_every: run_options.CheckpointEvery = None,
    keep_every: run_options.KeepEvery = None,
    max_bad_steps: run_options.MaxBadSteps = None,
    panels: run_options.Panels = None,
    histograms: run_options.Histograms = False,
    graph: run_options.Graph = False,
    profile: run_options.Profile = False,
) -> None:
    """Train on a set; leaves checkpoints, metrics, TensorBoard and panels in the run folder."""
    began = time.monotonic()
    from dataclasses import replace

    from models.recipe import EMPTY, read_recipe
    from models.training.distributed import joined
    from models.training.precision import resolved
    from pipeline.loader import LoaderConfig
    from pipeline.remote.folder import RemoteConfig

    place = chosen_device(device)
    base = EMPTY if recipe is None else read_recipe(recipe)
    mask_factor, mask_ramp = _task_weight(mask_weight)
    depth_factor, depth_ramp = _task_weight(depth_weight)
    with given_values():
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
    loading = build(
        LoaderConfig,
        decoder=decoder,
        threads=number(threads),
        prefetch_batches=number(prefetch_batches),
        exact_decode=exact_decode,
        cache=cache,
        cache_dir=cache_dir,
        fill_ahead=fill_ahead,
        seed=config.seed,
        order=order,
        window_shards=window_shards,
        augment=_augment(augment, base),
        max_bad_samples=max_bad_samples,
        hw_decoder_load=number(hw_decoder_load),
        tune=tune,
        deterministic=config.precision.deterministic,
        verify_hashes=verify_hashes,
        repeats=numbers(repeat, "repeat"),
        remote=build(
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
    print(f"\nrun          {out}")
    if newest := _newest(out / "panels"):
        print(f"newest panel {newest}")
    _print_bad_samples(num_bad)


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
    from models.training.plan import plan_run
    from models.training.stages import check_sets
    from models.training.tasks import check_tasks
    from models.training.trainer import Trainer
    from pipeline.loader import Loader

    check_sets(config.parsed_stages, len(data))
    with given_values():
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
        plan = plan_run(config.parsed_stages, *loader.set_lengths)
        loader.expect([(stage.size, stage.epochs, stage.sets) for stage in plan.stages])
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


def _augment(given: str | None, recipe: "Recipe") -> "AugmentConfig | None":
    from pipeline.augment import read_augment

    text = recipe.part("loader").augment
    if given is not None or not text:
        return None if given is None else build(read_augment, text=given)
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


def _tell_other_set(recipe: "Recipe", loader: "Loader") -> None:
    expected = recipe.part("set")
    for difference in expected.differences(loader.manifest.split, loader.manifest.options):
        fail(
            f"recipe {recipe.name} was written for another set than {loader.sets.told}: this one "
            f"has {difference}, and scores will not compare; `maskdepth {expected.convert} ...` "
            "makes such a one"
        )


def _print_plan(plan: "MemoryPlan") -> None:
    print(plan.text(), file=sys.stderr)


def _newest(folder: Path) -> Path | None:
    return max(folder.glob("*.png"), key=lambda path: path.stat().st_mtime, default=None)


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
    precision: Annotated[str | None, typer.Option(help=run_options.PRECISION)] = None,
    seed: run_options.Seed = None,
    device: Device = "auto",
) -> None:
    """Train with an ever higher learning rate, and suggest one; keeps no weights."""
    from dataclasses import replace

    from models.recipe import EMPTY, read_recipe
    from models.training.lr_find import LrFindConfig, draw
    from models.training.precision import resolved
    from pipeline.batch import sets_text
    from pipeline.loader import LoaderConfig

    place = chosen_device(device)
    base = EMPTY if recipe is None else read_recipe(recipe)
    with given_values():
        config = base.part("train", {
            "optimizer": {"name": optimizer, "weight_decay": weight_decay},
            # nothing is compiled for so few steps
            "precision": {"dtype": precision, "compile": "off"},
            "seed": seed,
        })  # fmt: skip
        config = replace(config, precision=resolved(config.precision, place))
        first = config.parsed_stages[0]
        side = first.size if size is None else size
        samples = first.batch_size if batch_size is None else batch_size
        own = f"@{sets_text(first.sets)}" if first.sets else ""
        config = replace(config, stages=f"{side}:1{own}", batch_size=str(samples))
        # another network has other widths than the recipe's
        network = base.part(
            "network", {"name": network_name, "width": "" if network_name else None}
        )
        loss = base.part("loss")
    finding = build(LrFindConfig, lowest=lowest, highest=highest, steps=steps)
    loading = build(LoaderConfig, seed=config.seed, augment=_augment(None, base))
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


def _range_test(
    data: list[str],
    config: Any,
    network: Any,
    loss: Any,
    loading: "LoaderConfig",
    device: "torch.device",
    finding: "LrFindConfig",
) -> "RangeTest":
    """Of the first stage's size, batch size and sets."""
    import torch

    from models.losses import TaskLoss
    from models.registry import NETWORKS, build_network, check_size, smallest_scale
    from models.training.learner import Learner
    from models.training.lr_find import range_test
    from models.training.stages import check_sets
    from models.training.tasks import check_tasks
    from pipeline.loader import Loader

    check_sets(config.parsed_stages, len(data))
    stage = config.parsed_stages[0]
    with given_values():
        check_tasks(config.tasks, NETWORKS[network.name].tasks, network.name)
        check_size(network, stage.size, stage.batch_size // config.accumulate)
        loss.check_size(stage.size, smallest_scale(network), NETWORKS[network.name].tasks)
    with Loader(data, loading, device) as loader:
        _require_backgrounds(network, loader)
        torch.manual_seed(config.seed)
        learner = Learner(config, build_network(network), TaskLoss(loss), device)
        with loader.train(
            size=stage.size,
            batch_size=stage.batch_size,
            start=0,
            num_steps=finding.steps,
            sets=stage.sets,
        ) as batches:
            learner.begin_stage(1)
            return range_test(learner, batches, finding)


def evaluate(
    checkpoint: Checkpoint,
    data: Data,
    size: Size = None,
    batch_size: PassSize = 64,
    device: Device = "auto",
    decoder: Decoder = None,
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
    from pipeline.loader import Loader
    from pipeline.normalise import Normalisation

    place = chosen_device(device)
    predictor = predictor_of(checkpoint, size, place)
    config = _loading(decoder, max_bad_samples, remote_cache_dir, remote_cache_gb)
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
        print_json({**result, **scores})
    else:
        _print_scores(scores)
        _print_bad_samples(num_bad)


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
    size: Size = None,
    batch_size: PassSize = 32,
    device: Device = "auto",
    decoder: Decoder = None,
    max_bad_samples: MaxBadSamples = None,
    remote_cache_dir: RemoteCacheDir = None,
    remote_cache_gb: RemoteCacheGb = None,
) -> None:
    """Write mask and depth PNGs and a panel for pictures, folders of pictures, or a set."""
    from models.predict import pair_folders, predict_files, predict_set
    from pipeline.loader import Loader

    if bool(data) == bool(composite):
        msg = "give either --composite (with --background) or --data"
        raise typer.BadParameter(msg)
    place = chosen_device(device)
    predictor = predictor_of(checkpoint, size, place)
    config = _loading(decoder, max_bad_samples, remote_cache_dir, remote_cache_gb)
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
        with given_values():
            pairs = pair_folders(background, composite)
            count = predict_files(
                predictor, pairs, out, decode=_file_decoder(config, place), batch_size=batch_size
            )
    print(f"{count:,} predictions in {out}\npanel        {out / 'panel.png'}")
    if num_bad:
        _print_bad_samples(num_bad)


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


def report(
    run: Annotated[Path, typer.Argument(help="The run folder.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file. (default: report.html in the run folder)")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Folder or URL of the set: shows the best and worst predictions, too."),
    ] = None,
    batch_size: PassSize = 64,
    device: Device = "auto",
    decoder: Decoder = None,
    remote_cache_dir: RemoteCacheDir = None,
    remote_cache_gb: RemoteCacheGb = None,
) -> None:
    """Show a run, finished or not, as one HTML page that needs nothing else."""
    from benchmarks.harness import environment
    from models.report.folder import read_run
    from models.report.page import write_report

    found = read_run(run)
    extremes = None
    if data:
        config = _loading(decoder, None, remote_cache_dir, remote_cache_gb)
        extremes = _extremes(run / "best.pt", data, config, batch_size, chosen_device(device))
    page = out or run / "report.html"
    write_report(found, page, versions=environment(), extremes=extremes)
    print(f"report       {page}, {page.stat().st_size / 1e6:,.1f} MB")


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

    predictor, _ = trained_network(checkpoint, None, device)
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


@contextmanager
def _timed(seconds: dict[str, float], name: str, title: str) -> Iterator[None]:
    print(f"\n== {title}", file=sys.stderr)
    began = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - began, 1)


def _loading(
    decoder: str | None,
    max_bad_samples: float | None,
    cache_dir: Path | None,
    cache_gb: float | None,
) -> "LoaderConfig":
    """How samples are read where nothing is trained."""
    from pipeline.loader import LoaderConfig
    from pipeline.remote.folder import RemoteConfig

    return build(
        LoaderConfig,
        decoder=decoder,
        max_bad_samples=max_bad_samples,
        remote=build(RemoteConfig, cache_dir=cache_dir, cache_gb=cache_gb),
    )


def _require_validation(loader: "Loader") -> None:
    if not loader.num_validation_samples:
        msg = f"{loader.sets.told} has no validation samples; convert it with a larger --val"
        raise LoaderError(msg)


def _require_backgrounds(network: Any, loader: "Loader") -> None:
    from models.registry import needs_background

    if needs_background(network) and not loader.manifest.backgrounds:
        msg = (
            f"{loader.sets.told} has no backgrounds, and network {network.name!r} needs them; "
            "convert again with them among the sources, or with --backgrounds estimate"
        )
        raise LoaderError(msg)


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


COMMANDS: Mapping[str, Callable[..., None]] = {
    "synth": synth,
    "convert": convert,
    "verify": verify,
    "inspect": inspect,
    "stats": stats,
    "train": train,
    "lr-find": find_lr,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "report": report,
    "models": list_models,
    "recipes": show_recipes,
    "demo": demo,
    "doctor": doctor,
    "bench": bench,
}
"""Every command, in the order of `maskdepth --help`."""

app = typer.Typer(
    name="maskdepth",
    help="Zipped background / composite / mask / depth images to shards, to the GPU, to a network.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for name, command in COMMANDS.items():
    app.command(name)(command)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; ends the process with 0, 1 (a check found faults), 2 or 130."""
    try:
        status = _called(arguments)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "maskdepth"
        message = error.format_message().rstrip(".")
        status = fail(f"{message}; see `{command} --help`") if message else USER_ERROR
    except REPAIRABLE as error:
        status = fail(str(error))
    except (Interrupted, TimeIsUp) as error:
        fail(f"{error}: {_resuming(sys.argv[1:] if arguments is None else arguments)}")
        status = INTERRUPTED if isinstance(error, Interrupted) else 0
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        status = fail(
            "out of memory; a smaller --batch-size needs less, `convert` fewer --processes"
        )
    except (KeyboardInterrupt, typer.Abort):
        fail("interrupted; the same command starts again; `convert` keeps finished shards, and "
              "`train` goes on from its last checkpoint with --resume")  # fmt: skip
        status = INTERRUPTED
    sys.exit(status)


def _called(arguments: list[str] | None) -> int | None:
    status: int | None = app(arguments, standalone_mode=False)
    if status == INTERRUPTED:  # what typer makes of Ctrl-C
        raise KeyboardInterrupt
    return status


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    if isinstance(error, MemoryError):  # no time to import anything
        return True
    from models.training.memory import is_out_of_memory

    return is_out_of_memory(error)


def _resuming(arguments: list[str]) -> str:
    import shlex

    more = [] if "--resume" in arguments else ["--resume"]
    return shlex.join(["maskdepth", *arguments, *more])


if __name__ == "__main__":  # where nothing is installed
    main()
