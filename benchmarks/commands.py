"""The command of this folder: bench; `cli.py` registers it."""

from pathlib import Path
from typing import Annotated

import typer

from shards.console import BAD_NEWS, given_values, print_lines


def bench(
    question: Annotated[
        str,
        typer.Argument(
            help="convert or loader: samples/s against ceiling and peers; "
            "train: the share reached of the step alone, waiting for data; "
            "quality: accuracy and speed of the networks; "
            "recipes: whether each beats the free mask; augment: its cost; "
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
        typer.Option(help="quality, recipes: zips or a folder to convert, not made-up data."),
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
    with given_values():
        asked, run = find(question, {**given, "plot": plot, "compare": compare})
        stored = compare and read_comparable(compare, question=question, quick=quick)
    options = {name: value for name, value in given.items() if name in asked.options}
    found = run(quick=quick, json_path=json_path, **options)
    if plot is not None:
        save(found, plot)
    if stored:
        with given_values():
            slower = slower_rows(found, stored)
        print_lines([*slower, f"{compare}: {len(slower) or 'nothing'} slower"])
        if slower:
            raise typer.Exit(BAD_NEWS)
