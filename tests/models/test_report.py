"""The report as a reader meets it: read by a parser, and shown by a real browser."""

import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

import cli
from models.checkpoint import encode
from models.error import TrainingError
from models.predict import Maps
from models.registry import NetworkConfig, build_network
from models.report.chart import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Series, draw, thinned
from models.report.extremes import find_extremes
from models.report.folder import read_run
from models.report.page import page
from models.training.config import TrainConfig
from models.training.toml import to_toml
from pipeline.batch import Batch

NUM_SAMPLES = 100
VERSIONS = {"python": "3.11", "torch": "2.13"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code if isinstance(ended.value.code, int) else 0


def training(step: int, stage: int, **more: float) -> dict[str, Any]:
    size = (64, 96)[stage - 1]
    return {
        "kind": "train", "step": step, "samples": 10 * step, "epoch": 10 * step / NUM_SAMPLES,
        "stage": stage, "size": size, "elapsed_s": 2.0 * step, "bad_samples": 0, "loss": 3 / step,
        "mask_loss": 2 / step, "depth_loss": 1 / step, "grad_norm": 1.5, "lr": 0.01 / step,
        "samples_per_s": 400.0 / stage, "images_per_s": 1200.0 / stage, "data_wait_share": 0.02,
        **more,
    }  # fmt: skip


def validation(step: int, stage: int, **more: float) -> dict[str, Any]:
    place = dict(list(training(step, stage).items())[:8])
    return {
        **place, "kind": "validation", "score": 0.5 + step / 100, "mask_iou": 0.6 + step / 100,
        "mask_dice": 0.7 + step / 100, "depth_rmse": 0.1 - step / 1000, "depth_mae": 0.05,
        "depth_delta1": 0.9, "baseline_mask_iou": 0.7777, "baseline_depth_rmse": 0.0888, **more,
    }  # fmt: skip


RECORDS = [
    record
    for step, stage in ((10, 1), (20, 1), (30, 2))
    for record in (training(step - 5, stage), training(step, stage), validation(step, stage))
]
"""A finished run: 2 epochs at 64 px, 1 at 96 px, of 100 samples."""


def run_folder(
    at: Path, records: list[dict[str, Any]], *, stages: str = "64:2,96:1", **config: Any
) -> Path:
    (at / "panels").mkdir(parents=True)
    train = TrainConfig(stages=stages, batch_size="10").to_dict()
    (at / "config.toml").write_text(
        to_toml({"train": train, "network": {"name": "unet"}, **config})
    )
    (at / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for record in records:
        if record["kind"] == "validation":
            name = f"epoch-{record['epoch']:06.2f}-{record['size']}px.png"
            colour = (int(40 * record["epoch"]), 120, 200)
            Image.new("RGB", (400, 300), colour).save(at / "panels" / name)
    return at


class WellFormed(HTMLParser):
    """Checks that tags close as they opened; gathers text and whatever would be fetched."""

    VOID = ("meta", "link", "img")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of `<tag>`."""
        found = dict(attrs)
        self.tags.append((tag, found))
        self.fetched += [str(found[name]) for name in ("src", "href", "srcset") if name in found]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of `<tag/>`, as SVG has it."""
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Of `</tag>`: the newest open one."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """What stands between tags."""
        self.text.append(data)

    def says(self, text: str) -> bool:
        """Whether the page has this text, whatever tags are in it."""
        return text in " ".join(" ".join(self.text).split())


def shown(folder: Path) -> WellFormed:
    return WellFormed(page(read_run(folder), versions=VERSIONS))


def test_a_finished_run_is_told_with_its_best_weights(tmp_path: Path) -> None:
    """The best are those of the last size, also where a smaller size scored higher."""
    records = [*RECORDS[:-1], validation(30, 2, mask_iou=0.7123, score=0.2)]
    found = shown(run_folder(tmp_path / "night", records, loss={"mask": "bce + dice"}))
    assert found.says("night finished")
    assert found.says("mask IoU 0.7123 baseline 0.7777")
    assert found.says("depth RMSE 0.0700 baseline 0.0888")
    assert found.says("samples seen 300 3.0 epochs")
    assert found.says("time 1 min 00 s 30 steps")
    assert found.says("samples/s 200 median at 96 px")
    assert found.says("best.pt: epoch 3.0, 96 px")
    assert found.says("mask bce + dice")
    assert found.says("torch 2.13")
    assert found.says("maskdepth report RUN --data SET"), "how to get the extremes"
    titles = [attributes["aria-label"] for tag, attributes in found.tags if tag == "svg"]
    assert titles == ["Mask", "Depth error", "Depth agreement", "Loss", "Samples per second",
                      "Waiting for data", "Learning rate", "Grad norm"]  # fmt: skip
    pictures = [attributes["alt"] for tag, attributes in found.tags if tag == "img"]
    assert pictures == [f"validation samples after epoch {epoch}.0 at {size} px"
                        for epoch, size in ((1, 64), (2, 64), (3, 96))]  # fmt: skip


def test_a_record_of_another_kind_of_number_gets_a_chart_of_its_own(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", [training(5, 1, memory_gb=3.5)])
    assert found_chart(shown(folder), "Memory gb")


def found_chart(found: WellFormed, title: str) -> bool:
    return any(tag == "svg" and attrs["aria-label"] == title for tag, attrs in found.tags)


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([], "no record yet"),
        (RECORDS[:1], "not finished: 17% of 300 samples"),
        (RECORDS[:3], "not finished: 33% of 300 samples"),
        (RECORDS[:6], "not finished: 67% of 300 samples"),
        (RECORDS[:8], "not finished: 100% of 300 samples"),
        (RECORDS, "finished"),
    ],
)
def test_an_unfinished_run_has_a_page_at_any_time(
    records: list[dict[str, Any]], told: str, tmp_path: Path
) -> None:
    found = shown(run_folder(tmp_path / "run", records))
    assert found.says(f"run {told}")
    assert found_chart(found, "Loss") == bool(records)


def test_a_stage_that_ended_early_leaves_a_finished_run(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", [RECORDS[0], RECORDS[2], validation(20, 2)])
    config = (folder / "config.toml").read_text().replace("patience = 0", "patience = 3")
    (folder / "config.toml").write_text(config)
    assert shown(folder).says("not finished: 67%")
    parts = ("model", "ema", "optimizer", "schedule", "scaler", "rng", "config", "set")
    state: dict[str, Any] = {**dict.fromkeys(parts), "progress": {"skipped_samples": 100}}
    (folder / "last.pt").write_bytes(encode(state))
    assert shown(folder).says("run finished early")


def test_a_record_that_is_just_being_written_is_left_out(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", RECORDS[:3])
    with (folder / "metrics.jsonl").open("a") as records:
        records.write('{"kind": "train", "step": 1')
    assert len(read_run(folder).records) == 3


@pytest.mark.parametrize("harm", ["no json", "[1]", '{"kind": "train"}', ""])
def test_a_damaged_record_is_named_by_its_line(harm: str, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", RECORDS)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[3] = harm
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(TrainingError, match=r"metrics\.jsonl is damaged in line 4; go on with"):
        read_run(folder)


def test_a_panel_cut_short_costs_that_panel_alone(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", RECORDS)
    path = next((folder / "panels").glob("*96px.png"))
    path.write_bytes(path.read_bytes()[:60])
    found = shown(folder)
    assert found.says(f"{path.name} cannot be read.")
    assert sum(tag == "img" for tag, _ in found.tags) == 2


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda folder: shutil.rmtree(folder), "is no run folder (no config.toml in it); name"),
        (lambda folder: (folder / "metrics.jsonl").unlink(), "(no metrics.jsonl in it)"),
        (lambda folder: (folder / "config.toml").write_text("a = "), "config.toml is damaged ("),
        (lambda folder: (folder / "metrics.jsonl").write_text("{}\n"), "damaged in line 1"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(
    prepare: Callable[[Path], object],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = run_folder(tmp_path / "run", RECORDS)
    prepare(folder)
    assert run("report", folder, "--out", tmp_path / "page.html") == 2
    told = capsys.readouterr().err
    assert expected in told
    assert told.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_text_from_the_run_stays_text(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>'
    folder = run_folder(
        tmp_path / "<b>&run", [training(5, 1, **{evil: 1.0}), validation(10, 1, **{evil: 0.5})],
        loss={evil: evil}, set={"sets": [evil]}, **{evil: {"a": 1}},
    )  # fmt: skip
    found = shown(folder)
    assert "script" not in {tag for tag, _ in found.tags}
    assert found.says(evil)
    assert found.says("<b>&run")


def test_the_page_fetches_nothing(tmp_path: Path) -> None:
    text = page(read_run(run_folder(tmp_path / "run", RECORDS)), versions=VERSIONS)
    found = WellFormed(text)
    assert found.fetched
    assert all(address.startswith("data:") for address in found.fetched)
    assert not re.search(r"https?:|url\(|@import|<script|<iframe", text)
    assert "default-src 'none'" in text


numbers_or_worse = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=40)
@given(
    values=st.lists(st.tuples(st.sampled_from((1, 2)), numbers_or_worse), max_size=8),
    keys=st.sets(st.sampled_from(("loss", "mask_iou", "depth_rmse", "score", "lr", "odd"))),
)
@example(values=[(1, 0.0), (1, 0.0), (1, 5e-324)], keys={"mask_iou", "loss"})
def test_any_numbers_make_a_page_whose_curves_stay_inside(
    values: list[tuple[int, float]], keys: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also not a number, infinite, huge, equal, negative."""
    folder = tmp_path_factory.mktemp("any") / "run"
    ordered = sorted(values, key=lambda pair: pair[0])
    make = (training, validation)
    records = [
        make[step % 2](step + 1, stage, **dict.fromkeys(keys, value))
        for step, (stage, value) in enumerate(ordered)
    ]
    found = shown(run_folder(folder, records))
    for tag, attributes in found.tags:
        if tag == "polyline":
            points = [pair.split(",") for pair in str(attributes["points"]).split()]
            assert all(LEFT - 1 <= float(x) <= WIDTH - RIGHT + 1 for x, _ in points)
            assert all(TOP - 1 <= float(y) <= HEIGHT for _, y in points)


def test_a_curve_lies_where_its_values_are() -> None:
    line = Series(name="a", pieces=(((0, 50, 100), (1.0, 10.0, 100.0)), ((100,), (1.0,))), colour=1)
    chart = Chart(title="t", series=(line,), show=str, is_logarithmic=True)
    first, second = re.findall(r'points="([^"]+)"', draw(chart))
    (x0, y0), (x1, y1), (x2, y2) = (map(float, pair.split(",")) for pair in first.split())
    assert (x0, x2) == (LEFT, WIDTH - RIGHT)
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1), "a decade is a decade"
    assert y0 > y2, "more is higher"
    assert second == f"{x2},{y0}", "the line is broken between two stages"


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), most=st.integers(1, 20))
def test_a_thinned_line_keeps_length_order_and_ends_within_its_groups(
    values: list[float], most: int
) -> None:
    xs, ys = thinned(range(len(values)), values, most)
    assert len(xs) == len(ys) == min(len(values), most)
    assert xs == sorted(xs)
    assert min(values) - 1e-6 <= min(ys)
    assert max(ys) <= max(values) + 1e-6
    if len(values) % most == 0:
        assert sum(ys) / len(ys) == pytest.approx(sum(values) / len(values), abs=1e-3)


MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


class Known:
    """Predicts masks and depth that the composite's red and green spell out."""

    size = 8

    def __init__(self, *, depth: bool = True) -> None:
        self.depth = depth

    def from_pixels(self, background: Tensor | None, composite: Tensor) -> Maps:
        """Red is the mask's probability, green the depth."""
        assert composite.dtype == torch.uint8
        values = composite.float() / 255
        return Maps(values[:, :1], values[:, 1:2] if self.depth else None)


def known_batch(numbers: list[int], weights: list[float]) -> Batch:
    """The truth has rows 0-3 in the mask; sample n predicts rows n ... n + 3, and depth n / 10."""
    pixels = torch.zeros(len(numbers), 3, 8, 8)
    for row, number in enumerate(numbers):
        pixels[row, 0, number : number + 4] = 1
        pixels[row, 1] = 51 * (number % 6) / 255
    mask = torch.zeros(len(numbers), 1, 8, 8)
    mask[:, :, :4] = 1
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return Batch(
        background=None,
        composite=(pixels - mean) / std,
        mask=mask,
        depth=torch.zeros_like(mask),
        number=torch.tensor(numbers),
        weight=torch.tensor(weights),
    )


def test_the_best_and_worst_are_found_with_their_figures() -> None:
    batches = [known_batch([2, 0, 4], [1, 1, 1]), known_batch([1, 3, 4], [1, 1, 0])]
    found = find_extremes(Known(), batches, mean=MEAN, std=STD, name="s{}".format, count=2)
    ranked = {title: [one.name for one in examples] for title, examples in found.lists.items()}
    assert ranked == {
        "Worst masks": ["s4", "s3"],
        "Best masks": ["s0", "s1"],
        "Worst depth": ["s4", "s3"],
        "Best depth": ["s0", "s1"],
    }
    assert found.num_samples == 5, "padding does not count"
    third = found.lists["Worst masks"][1]
    assert third.mask_iou == pytest.approx(1 / 7)  # a row of four is in both, seven in either
    assert third.depth_rmse == pytest.approx(0.6)
    error = third.tiles["mask error"]
    assert {tuple(error[row, 0]) for row in range(3)} == {(56, 128, 240)}, "missed"
    assert tuple(error[3, 0]) == (116, 116, 122), "right"
    assert tuple(error[5, 0]) == (240, 128, 32), "too much"
    assert tuple(error[7, 0]) == (22, 22, 26), "nothing"
    assert tuple(third.tiles["depth error"][0, 0]) == (252, 252, 190), "0.6 is above the scale"
    assert tuple(third.tiles["composite"][3, 0]) == (255, 153, 0)


def test_of_equal_predictions_the_earlier_one_is_shown() -> None:
    batches = [known_batch([4, 0], [1, 1]), known_batch([6], [1])]  # 6 misses all as 4, depth as 0
    found = find_extremes(Known(), batches, mean=MEAN, std=STD, name="s{}".format, count=1)
    assert [one.name for one in found.lists["Worst masks"]] == ["s4"]
    assert [one.name for one in found.lists["Best depth"]] == ["s0"]


def test_a_network_of_one_task_has_its_lists_alone() -> None:
    batches = [known_batch([0, 1], [1, 1])]
    found = find_extremes(Known(depth=False), batches, mean=MEAN, std=STD)
    assert list(found.lists) == ["Worst masks", "Best masks"]
    assert [one.name for one in found.lists["Best masks"]] == ["000000", "000001"]
    assert list(found.lists["Best masks"][0].tiles) == [
        "composite", "mask", "predicted mask", "mask error"
    ]  # fmt: skip


def test_the_command_looks_at_the_set_where_it_is_given(
    small_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "run", RECORDS)
    network = NetworkConfig(name="004-masknet3")
    torch.manual_seed(0)
    state = {
        **dict.fromkeys(("optimizer", "schedule", "scaler", "rng", "progress")),
        "model": build_network(network).state_dict(),
        "ema": None,
        "config": {
            "network": {"name": network.name, "width": network.width},
            "train": TrainConfig(stages="32:1").to_dict(),
        },
        "set": {"fingerprint": "another", "pixel_mean": MEAN, "pixel_std": STD},
    }
    (folder / "best.pt").write_bytes(encode(state))
    assert run("report", folder) == 0
    assert run("report", folder, "--data", small_set, "--out", tmp_path / "sub/page.html") == 0
    assert f"report       {tmp_path / 'sub/page.html'}" in capsys.readouterr().out
    without, found = (WellFormed(path.read_text())
                      for path in (folder / "report.html", tmp_path / "sub/page.html"))  # fmt: skip
    assert without.says("--data SET")
    assert found.says("Of 80 validation samples at 32 px, by best.pt.")
    assert found.says("This is another set than the one trained on.")
    pictures = [attributes["alt"] for tag, attributes in found.tags if tag == "img"]
    assert len(pictures) == 3 + 4 + 4
    assert sum("IoU" in str(label) for label in pictures) == 8


def browse(path: Path, picture: Path, *options: str) -> list[str]:
    """Show a page in chromium, without a network; returns what its console says."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run",
         f"--user-data-dir={picture.parent / 'profile'}", "--enable-logging=stderr",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1280,2200",
         f"--screenshot={picture}", *options, path.as_uri()],
        check=True, capture_output=True, text=True, timeout=120, env={**os.environ, "LANG": "C"},
    )  # fmt: skip
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def pixels(picture: Path) -> np.ndarray:
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"), dtype=float)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; `apt-get install chromium`")
def test_a_browser_shows_the_page_light_and_dark_without_a_complaint(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", RECORDS)
    path = tmp_path / "page.html"
    text = page(read_run(folder), versions=VERSIONS)
    path.write_text(text)
    assert browse(path, tmp_path / "light.png") == []
    light = pixels(tmp_path / "light.png")
    assert light.shape == (2200, 1280, 3)
    assert light.mean() > 200
    blue = np.abs(light - (31, 111, 235)).max(axis=2) < 12
    assert 200 < blue.sum() < 50_000, "the curves of the first colour are drawn"
    panel = np.abs(light - (80, 120, 200)).max(axis=2) < 6  # of the second epoch
    assert panel.sum() > 50_000, "the panels are shown"

    dark_mode = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")
    assert browse(path, tmp_path / "dark.png", *dark_mode) == []
    dark = pixels(tmp_path / "dark.png")
    assert dark.mean() < 90
    assert dark.std() > 10

    # what the page's policy forbids reaches the console, so an empty one means something
    path.write_text(text.replace("</body>", '<img src="http://127.0.0.1:9/x.png"></body>'))
    assert any("Content Security Policy" in line for line in browse(path, tmp_path / "bad.png"))


def test_a_figure_that_is_no_number_is_not_a_best(tmp_path: Path) -> None:
    records = [validation(10, 1), validation(20, 1, score=math.nan, mask_iou=math.nan)]
    best = read_run(run_folder(tmp_path / "run", records)).best
    assert best is not None
    assert best["step"] == 10
