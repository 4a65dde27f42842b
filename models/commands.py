"""The commands of this folder: export, models, recipes; `cli.py` registers them.

Nothing heavy is imported before a command runs.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shards.console import Json, given_values, print_json, print_lines

if TYPE_CHECKING:
    import torch

    from models.exported import ExportedNetwork
    from models.predict import Predictor
    from models.registry import NetworkConfig

Size = Annotated[int | None, typer.Option(help="Side in pixels. (default: the last stage's)")]


def export(
    checkpoint: Annotated[Path, typer.Option(help="last.pt or best.pt of a run.")],
    format_: Annotated[
        str, typer.Option("--format", help="onnx, for onnxruntime; torch-export, for torch.")
    ] = "onnx",
    size: Size = None,
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

    with given_values():
        number = check_request(format_, out, batch, dtype)
    predictor, network = trained_network(checkpoint, size, torch.device("cpu"))
    name = f"{checkpoint.stem}-{predictor.size}px{FORMATS[format_]}"
    path = out or checkpoint.with_name(name)
    found = run(predictor, network, path, batch=number)
    images = f"(N, 3, {predictor.size}, {predictor.size}) uint8 RGB"
    print(f"exported     {path}, {path.stat().st_size / 1e6:,.1f} MB")
    print(f"inputs       {', '.join(found.facts.inputs)}: {images}, N {number or 'at will'}")
    print(f"outputs      {', '.join(found.facts.outputs)}: as many maps of the size, in [0, 1]")
    print(f"difference   {found.difference:.1e} from the checkpoint at most, of {found.num_images} "
          f"pairs; {found.tolerance:g} is tolerated")  # fmt: skip


def list_models(as_json: Json = False) -> None:
    """List the networks: source, parameters, inputs, outputs, sizes, cost of a forward pass."""
    from models.listing import describe, facts, list_networks

    rows = list_networks()
    if as_json:
        print_json(facts(rows))
    else:
        print_lines(describe(rows))


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
        print_json([facts(recipe) for recipe in recipes])
    else:
        print_lines(describe(recipes))


def predictor_of(
    checkpoint: Path, size: int | None, device: "torch.device"
) -> "Predictor | ExportedNetwork":
    """What a checkpoint or an exported file predicts with."""
    from models.exported import is_exported, read_exported

    if not is_exported(checkpoint):
        return trained_network(checkpoint, size, device)[0]
    program = read_exported(checkpoint, device)
    if size not in {None, program.size}:
        msg = f"{checkpoint} was exported for {program.size} px, not {size}; leave out --size"
        raise typer.BadParameter(msg)
    return program


def trained_network(
    checkpoint: Path, size: int | None, device: "torch.device"
) -> "tuple[Predictor, NetworkConfig]":
    """A checkpoint's network, ready to predict, and what it is."""
    from models.checkpoint import load_weights, read_checkpoint, weights
    from models.predict import Predictor
    from models.registry import NetworkConfig, build_network, check_size
    from models.training.config import TrainConfig, from_dict
    from models.training.tasks import with_tasks

    state = read_checkpoint(checkpoint)
    with given_values():
        config = from_dict(NetworkConfig, state["config"]["network"], "network")
        trained = from_dict(TrainConfig, state["config"]["train"])
        side = trained.parsed_stages[-1].size if size is None else size
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
