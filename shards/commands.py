"""The commands of this folder: synth, convert, stats; `cli.py` registers them.

Nothing heavy is imported before a command runs. Options left out take their default from the
configuration they belong to.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shards.console import BAD_NEWS, Json, build, numbers, print_json, print_lines, progress

if TYPE_CHECKING:
    from shards.manifest import Manifest

Set = Annotated[Path, typer.Argument(help="Folder of the set.", show_default=False)]


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

    config = build(
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
    with progress("synth", "triplets") as show:
        report = synthesise(out, config, lambda done: show(done, count))
    print(f"{count:,} triplets, {report.bytes:,} bytes: {', '.join(map(str, report.paths))}")


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
    from shards.dry_run import dry_run as look
    from shards.options import ConvertConfig
    from shards.summary import describe_dry_run

    config = build(
        ConvertConfig,
        sources=tuple(sources),
        out=out,
        layout=layout,
        split=split,
        val=val,
        seed=seed,
        samples_per_shard=samples_per_shard,
        sets=numbers(sets, "sets"),
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
            print_json(asdict(found))
        else:
            print_lines(describe_dry_run(found))
        return
    with progress("convert", "samples") as show:
        report = run(config, show)
    if report.already_finished and not as_json:
        print("this very set was already there; nothing was written")
    print_set(out, report.manifest, as_json=as_json)


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
    with progress("stats", "samples") as show:
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
        print_json({
            "samples": found.samples,
            "statistics": {part: asdict(value) for part, value in found.statistics.items()},
            "mask_coverage": found.coverage.tolist(),
            "depth_levels": found.depth_levels.tolist(),
            "differences": faults,
        })  # fmt: skip
    else:
        print_lines(describe_statistics(found.statistics, found.samples))
        for fault in faults:
            print(f"differs from the manifest: {fault}")
        print(f"the manifest {'disagrees' if faults else 'agrees'}")
    if faults:
        raise typer.Exit(BAD_NEWS)


def print_set(path: Path, manifest: "Manifest", *, as_json: bool) -> None:
    """Print what a set holds, without its statistics unless as JSON."""
    from shards.plan import SPLITS
    from shards.summary import describe_set

    if as_json:
        samples = {split: manifest.num_samples(split) for split in SPLITS}
        size_bytes = sum(record.bytes for record in manifest.files.values())
        print_json({**json.loads(manifest.text()), "samples": samples, "bytes": size_bytes})
    else:
        print_lines(describe_set(path, manifest))
