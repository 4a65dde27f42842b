import io
import json
import tomllib

import pytest
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.error import TrainingError
from models.training.config import TrainConfig, from_dict
from models.training.display import Display
from models.training.plan import parse_stages, plan_run
from models.training.tracking import Tracker, open_run_dir


def track(run_dir, steps, *, num_records=0, step=0):
    run_dir.mkdir(exist_ok=True)
    with Tracker(run_dir, {"train": {}}, num_records=num_records, step=step) as tracker:
        for number in steps:
            tracker.write({"kind": "train", "step": number, "loss": 1 / number})


def test_records_after_the_checkpoint_are_taken_back(tmp_path):
    """Also half a line, where the program was killed while it wrote one."""
    track(tmp_path, [1, 2, 3, 4])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')
    track(tmp_path, [3, 4, 5], num_records=2, step=2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5]


def test_tensorboard_shows_every_step_once(tmp_path):
    """TensorBoard's own reader, which honours the purge, sees no duplicate after a resume."""
    track(tmp_path, [1, 2, 3, 4])
    track(tmp_path, [3, 4, 5], num_records=2, step=2)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = [(event.step, event.value) for event in board.Scalars("train/loss")]
    assert [step for step, _ in found] == [1, 2, 3, 4, 5]
    assert [value for _, value in found] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])


def test_tensorboard_shows_the_bad_samples_beside_the_losses(tmp_path):
    with Tracker(tmp_path, {}, num_records=0, step=0) as tracker:
        for step in (1, 2):
            tracker.write({"kind": "train", "step": step, "loss": 0.5, "bad_samples": 3 * step})
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in board.Scalars("data/bad_samples")] == [(1, 3), (2, 6)]


def test_panels_are_kept_as_pictures(tmp_path):
    picture = Image.new("RGB", (6, 4), (10, 20, 30))
    with Tracker(tmp_path, {}, num_records=0, step=0) as tracker:
        tracker.draw(picture, "epoch-001.00-8px", 3)
    with Image.open(tmp_path / "panels" / "epoch-001.00-8px.png") as found:
        assert (found.size, found.getpixel((0, 0))) == ((6, 4), (10, 20, 30))


def test_config_toml_of_a_run_names_its_configuration(make_trainer):
    trainer = make_trainer()
    trainer.run()
    found = tomllib.loads((trainer.run_dir / "config.toml").read_text())
    assert from_dict(TrainConfig, found["train"]) == trainer.config
    assert found["network"] == {"name": "tiny"}
    assert found["set"]["fingerprint"] == trainer.facts.fingerprint


def test_an_empty_folder_is_no_run(tmp_path):
    assert not open_run_dir(tmp_path, resume=False)


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_folder_is_made_with_its_parents(tmp_path, resume):
    assert not open_run_dir(tmp_path / "runs" / "first", resume=resume)
    assert (tmp_path / "runs" / "first").is_dir()


def test_a_folder_with_anything_in_it_is_refused_without_resume(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(TrainingError, match="not empty; go on in it with --resume"):
        open_run_dir(tmp_path, resume=False)


PLAN = plan_run(parse_stages("8:1,16:1", "10"), 100)
TRAINED = {
    "kind": "train",
    "step": 5,
    "epoch": 0.5,
    "loss": 0.25,
    "samples_per_s": 10.0,
    "data_wait_share": 0.031,
}
VALIDATED = {"step": 10, "epoch": 1.0, "mask_iou": 0.9876, "baseline_mask_iou": 0.4321}


def shown(*, terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=150)
    with Display(PLAN, console) as display:
        display.advance(5)
        display.trained(PLAN.stages[0], TRAINED)
        display.trained(PLAN.stages[0], TRAINED)
        display.validating(PLAN.stages[0])
        display.validated(PLAN.stages[0], VALIDATED, is_best=True)
        display.validated(PLAN.stages[0], VALIDATED, is_best=False)
    return out.getvalue()


def test_without_a_terminal_lines_are_few_and_plain():
    """Time left by pixels: 50 samples at 8 px and 100 at 16 px are 450 at 8 px, 10 a second."""
    lines = shown(terminal=False).splitlines()
    assert lines[0] == (
        "stage 1/2, 8 px, epoch 0.50/2.00: loss 0.2500, 10 samples/s, data 3.1%, 0:00:45 left"
    )
    assert len(lines) == 4
    assert "\x1b" not in "".join(lines)


def test_bad_samples_are_told_with_the_speed():
    console = Console(file=io.StringIO(), force_terminal=False, width=150)
    with Display(PLAN, console) as display:
        display.trained(PLAN.stages[0], {**TRAINED, "bad_samples": 1200})
    assert console.file.getvalue().endswith("left, 1,200 bad samples\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_validation_leaves_a_row_beside_its_baseline(terminal):
    rows = [line for line in shown(terminal=terminal).splitlines() if "0.9876" in line]
    assert len(rows) == 2
    assert all("0.9876 (0.4321)" in row for row in rows)
    assert ["best" in row for row in rows] == [True, False]
