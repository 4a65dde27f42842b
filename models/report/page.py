"""The page: HTML with everything inside. No script, no request: its own policy forbids both."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from models.checkpoint import write_atomically
from models.report.chart import draw, short
from models.report.curves import charts
from models.report.extremes import DEPTH_ERROR_WHITE, Extremes
from models.report.folder import Record, RunFolder, StagePart
from models.report.image import data_uri, in_a_row, read_picture
from models.report.style import STYLE
from models.report.tables import (
    configuration_tables,
    duration,
    is_number,
    stages_table,
    validations_table,
    versions_table,
)

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    run: RunFolder,
    out: Path,
    *,
    versions: Mapping[str, Any],
    extremes: Extremes | None = None,
) -> None:
    """Write the page.

    Args:
        run: What the run left.
        out: The HTML file; an older one is replaced.
        versions: Of the machine that writes the page.
        extremes: Best and worst predictions; without, the page says how to get them.

    Raises:
        CheckpointError: The file cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, page(run, versions=versions, extremes=extremes).encode())


def page(run: RunFolder, *, versions: Mapping[str, Any], extremes: Extremes | None = None) -> str:
    """The whole page as text."""
    name = escape(run.path.resolve().name)
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{name} - maskdepth</title>',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>',
        *_header(run, name),
        *_tiles(run),
        *stages_table(run.stages),
        *_curves(run),
        *_panels(run.stages),
        *_extremes(extremes),
        *validations_table(run),
        *configuration_tables(run.config),
        *versions_table(versions),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _header(run: RunFolder, name: str) -> Iterator[str]:
    seen = run.stages[-1].last_sample if run.stages else 0
    if run.is_finished:
        kind, text = "good", "finished early" if run.skipped_samples else "finished"
    elif not run.stages:
        kind, text = "waiting", "no record yet"
    elif run.planned_samples:
        share = min((seen + run.skipped_samples) / run.planned_samples, 1)
        kind, text = "waiting", f"not finished: {share:.0%} of {run.planned_samples:,} samples"
    else:
        kind, text = "waiting", f"not finished: {seen:,} samples"
    train, network = run.config.get("train", {}), run.config.get("network", {})
    facts = [
        " ".join(str(network[key]) for key in ("name", "width") if network.get(key)),
        f"stages {train['stages']}" if "stages" in train else "",
        *[str(each) for each in run.config.get("set", {}).get("sets", [])],
    ]
    told = " · ".join(escape(fact) for fact in facts if fact)
    yield f'<header><h1>{name} <span class="status {kind}">{text}</span></h1><p>{told}</p></header>'


def _tiles(run: RunFolder) -> Iterator[str]:
    if not run.stages:
        return
    records = run.records
    last, best = records[-1], run.best or {}
    found = [
        _metric(best, "mask_iou", "mask IoU", "baseline_mask_iou"),
        _metric(best, "depth_rmse", "depth RMSE", "baseline_depth_rmse"),
        ("samples seen", _count(last["samples"]), f"{last['epoch']:,.1f} epochs"),
        ("time", duration(last.get("elapsed_s", 0)), f"{last['step']:,} steps"),
        *_rates(run.stages[-1]),
        ("bad samples", f"{last.get('bad_samples', 0):,}", "at weight 0"),
    ]
    yield '<section class="tiles">'
    for title, value, below in (tile for tile in found if tile):
        yield f"<div><h2>{title}</h2><strong>{value}</strong><small>{below}</small></div>"
    yield "</section>"
    if best:
        yield (
            f'<p class="note">Metrics are of best.pt: epoch {best["epoch"]:.1f}, '
            f"{best['size']} px, on the set's validation samples; the baselines cost nothing: "
            "what differs from the background, and the mean depth image.</p>"
        )


def _count(number: int) -> str:
    """In full while it fits."""
    return f"{number:,}" if number < 10_000_000 else short(number)


def _metric(best: Record, key: str, title: str, baseline: str) -> tuple[str, str, str] | None:
    if not is_number(best.get(key)):
        return None
    free = best.get(baseline)
    return title, f"{best[key]:.4f}", f"baseline {free:.4f}" if is_number(free) else ""


def _rates(stage: StagePart) -> Iterator[tuple[str, str, str]]:
    rates, waits = (
        sorted(record[key] for record in stage.training if is_number(record.get(key)))
        for key in ("samples_per_s", "data_wait_share")
    )
    if rates:
        yield "samples/s", f"{rates[len(rates) // 2]:,.0f}", f"median at {stage.size} px"
    if waits:
        yield "waiting for data", f"{waits[len(waits) // 2]:.1%}", f"median at {stage.size} px"


def _curves(run: RunFolder) -> Iterator[str]:
    drawn = [chart for chart in charts(run.stages) if not chart.is_empty]
    if not drawn:
        return
    yield "<section><h2>Curves</h2>"
    yield '<p class="note">Over samples seen; dashed borders part the stages. Dots are '
    yield "validations: point at one to read it.</p><div class=charts>"
    for chart in drawn:
        yield f"<figure><figcaption><b>{escape(chart.title)}</b>"
        for series in chart.series:
            if values := series.values:
                kind = f"c{series.colour}" + (" dashed" if series.is_dashed else "")
                yield (
                    f'<span class="key {kind}"><i></i>{escape(series.name)} '
                    f"<em>{escape(chart.show(values[-1]))}</em></span>"
                )
        yield f"</figcaption>{draw(chart)}"
        if chart.hint:
            yield f"<small>{escape(chart.hint)}</small>"
        yield "</figure>"
    yield "</div></section>"


def _panels(stages: Sequence[StagePart]) -> Iterator[str]:
    if not any(stage.panels for stage in stages):
        return
    yield "<section><h2>The same samples, stage by stage</h2>"
    for stage in stages:
        if not stage.panels:
            continue
        shown = stage.panels[:: max(1, len(stage.panels) - 1)][:2]  # the first and the last
        yield f"<h3>Stage {stage.number}, {stage.told}</h3><div class=panels>"
        for epoch, path in shown:
            picture = read_picture(path)
            if picture is None:
                yield f"<p class=note>{escape(path.name)} cannot be read.</p>"
                continue
            label = f"validation samples after epoch {epoch:.1f} at {stage.size} px"
            yield (
                f"<figure><figcaption>after epoch {epoch:.1f}</figcaption>"
                f'<div class=tall><img alt="{label}" src="{data_uri(picture)}"></div></figure>'
            )
        yield "</div>"
    yield "</section>"


def _extremes(extremes: Extremes | None) -> Iterator[str]:
    yield "<section><h2>Best and worst predictions</h2>"
    if extremes is None:
        yield (
            '<p class="note">Not on this page: they need the set. '
            "<code>maskdepth report RUN --data SET</code> finds them with best.pt.</p></section>"
        )
        return
    yield (
        f'<p class="note">Of {extremes.num_samples:,} validation samples at {extremes.size} px, by '
        "best.pt. Mask error: grey is right, "
        '<b class="much">orange</b> too much, <b class="missed">blue</b> missed. Depth error: '
        f"black is none, pale yellow {DEPTH_ERROR_WHITE:g} or more. {escape(extremes.note)}</p>"
    )
    for title, examples in extremes.lists.items():
        yield f"<h3>{escape(title)}</h3><div class=strips><div class=columns>"
        yield "".join(f"<span>{escape(column)}</span>" for column in examples[0].tiles) + "</div>"
        for example in examples:
            told = [f"IoU {example.mask_iou:.3f}"] if example.mask_iou is not None else []
            if example.depth_rmse is not None:
                told.append(f"RMSE {example.depth_rmse:.4f}")
            label = f"{escape(example.name)}: {', '.join(told)}"
            picture = data_uri(in_a_row(example.tiles.values()), exact=True)
            yield (
                f'<figure><img alt="{label}" src="{picture}">'
                f"<figcaption>{label}</figcaption></figure>"
            )
        yield "</div>"
    yield "</section>"
