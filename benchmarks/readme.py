"""The README's table, made from the newest files in `benchmarks/results/`.

    python -m benchmarks.readme

rewrites what stands between the two markers in README.md; a test holds README and files together.
"""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures: python -m benchmarks.readme -->", "<!-- /figures -->"
ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"


def table() -> str:
    """The figures as Markdown."""
    parts = [
        _demo(_newest("demo")),
        _convert(_newest("convert")),
        _loader(_newest("loader")),
    ]
    for theme, lines in (("train", _train), ("quality", _quality)):
        if list(RESULTS.glob(f"{theme}_*.json")):
            parts.append(lines(_newest(theme)))
    return "\n\n".join("\n".join(lines) for lines in parts)


def rewritten(readme: str) -> str:
    """The README with its figures up to date."""
    head, _, rest = readme.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


def main() -> None:
    """Rewrite the README."""
    path = ROOT / "README.md"
    path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")


def _newest(theme: str) -> Mapping[str, Any]:
    path = max(RESULTS.glob(f"{theme}_*.json"), key=lambda path: path.stem.rpartition("_")[2])
    return json.loads(path.read_text(encoding="utf-8"))


def _where(found: Mapping[str, Any]) -> str:
    place = found["environment"]
    processor = f"{place['processor']}, {place['cores']} cores"
    return f"{processor}, torch {place['torch']}, {place['date']}, commit {place['commit']}"


def _demo(found: Mapping[str, Any]) -> list[str]:
    scores, seconds = found["validation"], found["seconds"]
    total = sum(seconds.values())
    return [
        f"`make demo`: {found['count']:,} synthesised triplets, stages {found['stages']}, "
        f"validated on held-out objects at {scores['size']} px ({_where(found)}); "
        f"{total:.0f} s in all, {seconds['train']:.0f} s of it training.",
        "",
        "| | network | free baseline |",
        "|---|---|---|",
        f"| mask IoU, mean over images | {scores['mask_iou']:.3f} "
        f"| {scores['baseline_mask_iou']:.3f} |",
        f"| depth RMSE | {scores['depth_rmse']:.4f} | {scores['baseline_depth_rmse']:.4f} |",
    ]


def _convert(found: Mapping[str, Any]) -> list[str]:
    settings, tables, many = found["configuration"], found["tables"], found["many_members"]
    lines = [
        f"`maskdepth bench convert --peers`: samples/s of the whole conversion, "
        f"{settings['count']:,} triplets at 224 px, {settings['processes']} processes, page cache "
        f"warm, medians of {settings['turns']} interleaved turns ({_where(found)}).",
        "",
        "| | samples/s |",
        "|---|---|",
    ]
    lines += [f"| {row['name']} | {row['median']:,.0f} |" for rows in tables.values()
              for row in rows]  # fmt: skip
    lines += [
        "",
        f"{many['members']:,} tiny members are converted in {many['seconds']['in all']:.0f} s with "
        f"{many['peak_bytes'] / 1e6:,.0f} MB of memory at the peak, over all processes.",
    ]
    return lines


def _loader(found: Mapping[str, Any]) -> list[str]:
    settings, tables = found["configuration"], found["tables"]
    streamed = {title: rows for title, rows in tables.items() if "," not in title}
    cached = {title: rows for title, rows in tables.items() if title.endswith("px, cached")}
    lines = [
        f"`maskdepth bench loader --peers`: samples/s (three images each) to uint8 batches, "
        f"{settings['count']:,} triplets at 224 px, page cache warm, medians of "
        f"{settings['turns']} interleaved turns ({_where(found)}).",
        "",
        *_grid(streamed),
    ]
    if cached:
        lines += ["", "Later epochs, gathered from the cache of decoded samples:", ""]
        lines += _grid({title.removesuffix(", cached"): rows for title, rows in cached.items()})
    return lines


def _train(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"`maskdepth bench train`: samples/s of the trainer, its decoded samples in the cache, and "
        f"of one resident batch replayed, in turns, {found['configuration']['precision']} "
        f"({_where(found)}).",
        "",
        "| | resident batch | trainer | share | waiting for data |",
        "|---|---|---|---|---|",
    ]
    for title, (ceiling, reached) in found["tables"].items():
        turns = zip(reached["rates"], ceiling["rates"], strict=True)
        share = statistics.median(ours / alone for ours, alone in turns)
        lines.append(
            f"| {title} | {ceiling['median']:,.0f} | {reached['median']:,.0f} "
            f"| {share:.0%} | {found['data_wait_share'][title]:.2%} |"
        )
    return lines


def _quality(found: Mapping[str, Any]) -> list[str]:
    (size, rows), budget = next(iter(found["tables"].items())), found["configuration"]["budgets"][0]
    free = rows[0]
    lines = [
        f"`maskdepth bench quality --data {found['configuration']['data']}`: every network trained "
        f"alike on {budget['samples']:,} samples of {size}, objects held out; samples/s of a "
        f"training step ({_where(found)}). Free baselines: IoU {free['baseline_mask_iou']:.3f}, "
        f"RMSE {free['baseline_depth_rmse']:.4f}.",
        "",
        "| | parameters | mask IoU | boundary F | depth RMSE | delta 1 | samples/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row[key]:.{digits}f}" if key in row else ""
                 for key, digits in (("mask_iou", 3), ("mask_boundary_f", 3), ("depth_rmse", 4),
                                     ("depth_delta1", 3))]  # fmt: skip
        lines.append(
            f"| {row['name']} | {row['parameters']:,} | {' | '.join(cells)} "
            f"| {row['samples_per_s']:,.0f} |"
        )
    return lines


def _grid(tables: Mapping[str, Any]) -> list[str]:
    """Tables with the same rows, side by side."""
    lines = [f"| | {' | '.join(tables)} |", f"|---|{'---|' * len(tables)}"]
    for rows in zip(*tables.values(), strict=True):
        rates = [f"{row['median']:,.0f}" if row["rates"] else "did not run" for row in rows]
        lines.append(f"| {rows[0]['name']} | {' | '.join(rates)} |")
    return lines


if __name__ == "__main__":
    main()
