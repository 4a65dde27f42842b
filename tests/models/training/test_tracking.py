import io
import json
import tomllib

import pytest
import torch
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer import event_file_writer

from models.error import TrainingError
from models.training.config import TrainConfig, from_dict
from models.training.display import Display
from models.training.plan import plan_run
from models.training.stages import parse_stages
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


def test_tensorboard_shows_every_step_once(tmp_path, monkeypatch):
    """TensorBoard's own reader, which honours the purge, sees no duplicate after a resume."""
    # files of one second and one process are read by their number as text: 10 before 9
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
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


def board_of(trainer):
    return EventAccumulator(
        str(trainer.run_dir / "tensorboard"), size_guidance={"histograms": 0, "images": 0}
    ).Reload()


def test_tensorboard_shows_what_a_run_measures_by_step_and_by_epoch(make_trainer):
    trainer = make_trainer(log_every=1)
    trainer.run()
    board = board_of(trainer)
    shown = {tag: [event.step for event in board.Scalars(tag)] for tag in board.Tags()["scalars"]}
    by_step = ("loss", "mask_loss", "depth_loss", "lr", "samples_per_s", "images_per_s", "step_s",
               "data_wait_share", "memory_bytes", "mfu")  # fmt: skip
    assert all(shown[f"train/{name}"] == list(range(1, 9)) for name in by_step)
    by_epoch = ("loss", "mask_loss", "depth_loss", "mask_iou", "depth_rmse")
    assert all(shown[f"validation/{name}"] == [3, 4, 8] for name in by_epoch)


def test_hyper_parameters_stand_beside_the_final_metrics(make_trainer):
    """In the run's own folder, so that TensorBoard shows one run and not two."""
    trainer = make_trainer()
    scores = trainer.run()
    board = board_of(trainer)
    content = board.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["train.optimizer.lr"].number_value == pytest.approx(0.01)
    assert start.hparams["train.stages"].string_value == "8:1.5,12:1"
    assert start.hparams["network.name"].string_value == "tiny"
    (final,) = board.Scalars("final/mask_iou")
    assert final.value == pytest.approx(scores["mask_iou"])
    assert [
        path.name for path in (trainer.run_dir / "tensorboard").iterdir() if path.is_dir()
    ] == []


def test_distributions_come_with_each_validation_if_asked_for(make_trainer):
    asked, plain = make_trainer("asked", histograms=True), make_trainer("plain")
    asked.run()
    plain.run()
    board = board_of(asked)
    for tag in ("weights/body.0.weight", "gradients/body.0.weight", "gradients/head.bias"):
        found = board.Histograms(tag)
        assert [event.step for event in found] == [3, 4, 8]
    weights = asked.learner.network.body[0].weight.detach()
    last = board.Histograms("weights/body.0.weight")[-1].histogram_value
    assert last.num == weights.numel()
    assert (last.min, last.max) == pytest.approx((float(weights.min()), float(weights.max())))
    assert board_of(plain).Tags()["histograms"] == []


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_the_graph_is_drawn_if_asked_for_and_changes_nothing(make_trainer):
    asked, plain = make_trainer("asked", graph=True), make_trainer("plain")
    asked.run()
    plain.run()
    board = board_of(asked)
    assert any("Conv2d" in node.name for node in graph_of(board).node)
    assert not board_of(plain).Tags()["graph"]
    ends = [run.learner.network.state_dict() for run in (asked, plain)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def graph_of(board):
    return GraphDef.FromString(board.Graph().SerializeToString())


DONE = "done, mask IoU 0.9876"


def table(*steps):
    """What the live table says after records at these steps, row by row."""
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    with Display(PLAN, console) as display:
        for step in steps:
            stage = PLAN.stages[step > 10]
            display.advance(step)
            display.trained(stage, {**TRAINED, "step": step, "epoch": step / 10})
            if step == stage.last_step:
                display.validating(stage)
                display.validated(stage, {**VALIDATED, "step": step}, is_best=True)
        return [
            (task.completed, task.total, task.fields["left"], task.fields["news"].split(", 10")[0])
            for task in display._progress.tasks
        ]


def test_the_table_has_a_row_for_each_stage():
    """10 samples/s at 8 px: 5 steps of 10 take 5 s, and 10 steps at 16 px four times 10 s."""
    assert table(5) == [(5, 10, "0:00:05", "loss 0.2500"), (0, 10, "0:00:40", "waiting")]


def test_a_stage_that_is_over_shows_its_score_and_the_next_one_runs():
    """10 samples/s at 16 px now: 8 steps of 10 are left, and take 8 s."""
    assert table(5, 10, 12) == [(10, 10, "", DONE), (2, 10, "0:00:08", "loss 0.2500")]
    assert table(10)[0] == (10, 10, "", DONE)


def test_a_stage_that_was_over_before_a_resume_is_done():
    assert table(12)[0] == (10, 10, "", "done")
