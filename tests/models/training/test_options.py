"""What a run may be asked for beyond the usual; `test_trainer.py` has the usual."""

import math
import os
import signal

import pytest
import torch

from models.checkpoint import read_checkpoint
from models.error import Interrupted, TimeIsUp, TrainingError
from models.training.learner import Learner, parts_of
from models.training.optimizer import OptimizerConfig
from models.training.precision import PrecisionConfig
from models.training.schedule import ScheduleConfig
from models.training.tasks import check_tasks
from models.training.time_limit import ENDING_S, TimeLimit
from tests.models.training.same_run import assert_same_run, records

SGD = OptimizerConfig(name="sgd", lr=0.05, nesterov=True, clip_norm=0, clip_value=0.01)
FP32 = PrecisionConfig(dtype="fp32")
FALLING = ScheduleConfig(name="plateau", patience=0, threshold=0.9, factor=0.5, warmup=0)
FEATURES = {
    "sgd": {"optimizer": SGD},
    "adam": {"optimizer": OptimizerConfig(name="adam", lr=0.01, decay="all")},
    "rmsprop": {"optimizer": OptimizerConfig(name="rmsprop", lr=0.001)},
    "plateau": {"schedule": FALLING},
    "step": {"schedule": ScheduleConfig(name="step", at="0.3,1.5e", at_stage="restart")},
    "weights": {"schedule": ScheduleConfig(mask_weight="1 -> 0.2")},
    "tasks": {"tasks": "depth", "ema_decay": 0.9},
    "accumulate": {"accumulate": 2},
}


def interrupted_at(loader, consumed):
    def callback(begin):
        if begin == consumed:
            os.kill(os.getpid(), signal.SIGINT)

    loader.on_train = callback
    return loader


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("consumed", [8, 20])
def test_resumed_in_either_stage_it_ends_as_undisturbed(make_trainer, loader, feature, consumed):
    """Bit for bit, records included. Stages of 4 and 3 steps of 4 samples."""
    options = {"stages": "8:1.5,12:1", "batch_size": "4", "num_panels": 0, **FEATURES[feature]}
    undisturbed = make_trainer("undisturbed", **options)
    undisturbed.run()
    with pytest.raises(Interrupted):
        make_trainer(loader=interrupted_at(loader, consumed), **options).run()
    resumed = make_trainer(**options)
    resumed.run(resume=True)
    assert_same_run(undisturbed.run_dir, resumed.run_dir)


def test_a_plateau_lowers_the_rate_of_the_steps_that_follow(make_trainer):
    """No loss is ever 90 % better: each validation after a stage's first halves the rate."""
    trainer = make_trainer(
        stages="8:2,12:2", batch_size="5", log_every=1, num_panels=0, schedule=FALLING
    )
    trainer.run()
    lr = trainer.config.optimizer.lr
    rates = [record["lr"] / lr for record in records(trainer.run_dir, "train")]
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]
    assert trainer.learner.plateau.share == 0.25


def test_validation_records_the_loss_beside_the_metrics(make_trainer, loader):
    """By hand, on one whole batch, of the weights that were saved."""
    trainer = make_trainer(stages="8:1", batch_size="10", precision=FP32)
    trainer.run()
    (record,) = records(trainer.run_dir, "validation")
    network = trainer.learner.network.eval()
    with loader.validate(size=8, batch_size=5) as batches, torch.no_grad():
        batch = next(batches)
        losses = trainer.learner.loss(
            network(batch.background, batch.composite), batch.mask, batch.depth, batch.weight
        )
    found = [record["loss"], record["mask_loss"], record["depth_loss"]]
    assert found == pytest.approx([loss.item() for loss in losses], rel=1e-5)


def test_a_restarted_schedule_begins_anew_in_each_stage(make_trainer):
    schedule = ScheduleConfig(name="step", at="1e", factor=0.1, warmup=0, at_stage="restart")
    trainer = make_trainer(
        stages="8:2,12:2", batch_size="5", log_every=1, num_panels=0, schedule=schedule
    )
    trainer.run()
    rates = [
        record["lr"] / trainer.config.optimizer.lr for record in records(trainer.run_dir, "train")
    ]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 1, 1, 0.1, 0.1])


def test_a_tasks_weight_changes_over_the_run(make_trainer):
    """The total is the sum of the tasks' losses at the weights of the step's own progress."""
    schedule = ScheduleConfig(mask_weight="1 -> 0.2", depth_weight="0 -> 2")
    trainer = make_trainer(
        stages="8:2", batch_size="5", log_every=1, num_panels=0, schedule=schedule
    )
    trainer.run()
    for number, record in enumerate(records(trainer.run_dir, "train")):
        mask, depth = 1 - 0.8 * number / 4, 2 * number / 4
        expected = mask * record["mask_loss"] + depth * record["depth_loss"]
        assert record["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("number", [2, 3])
def test_parts_of_a_batch_learn_as_the_whole_does(make_trainer, loader, number):
    """Also where samples weigh nothing; with the statistics of BatchNorm held."""
    loader.bad = {3}
    with loader.train(size=8, batch_size=6, start=0, num_steps=2) as stream:
        batches = list(stream)
    assert 0 < sum(float(batch.weight.sum()) for batch in batches) < 12
    found = []
    for accumulate in (1, number):
        trainer = make_trainer(
            stages="8:1", batch_size="6", accumulate=accumulate,
            optimizer=OptimizerConfig(name="sgd", lr=0.5), precision=FP32,
        )  # fmt: skip
        learner = trainer.learner
        learner.network.eval()
        for place, batch in enumerate(batches):
            learner.step(batch, rate=1.0, progress=0.0, number=place)
        weights = torch.cat([weight.flatten() for weight in learner.network.parameters()])
        found.append((weights.detach(), learner.window.take()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)


def test_parts_are_views_of_the_batch_in_its_order(loader):
    with loader.train(size=8, batch_size=4, start=0, num_steps=1) as stream:
        batch = next(stream)
    parts = parts_of(batch, 2)
    assert torch.equal(torch.cat([part.number for part in parts]), batch.number)
    assert parts[1].composite.data_ptr() == batch.composite[2:].data_ptr()
    assert parts_of(batch, 1) == [batch]


@pytest.mark.parametrize(("task", "other"), [("mask", "depth"), ("depth", "mask")])
def test_one_task_alone_is_trained_and_scored(make_trainer, task, other):
    no_decay = OptimizerConfig(weight_decay=0)
    trainer = make_trainer(stages="8:1", batch_size="5", tasks=task, optimizer=no_decay)
    before = {name: value.clone() for name, value in trainer.learner.network.state_dict().items()}
    scores = trainer.run()
    assert {name.split("_")[0] for name in scores} == {task, "baseline"}
    (train,) = records(trainer.run_dir, "train")
    assert train[f"{other}_loss"] == 0 < train[f"{task}_loss"] == train["loss"]
    after = read_checkpoint(trainer.run_dir / "last.pt")["model"]
    assert after.keys() == before.keys(), "the checkpoint is of the network, whole"
    other_row = 1 if task == "mask" else 0
    for name, wanted in (("head.weight", False), ("head.bias", False)):
        assert torch.equal(after[name][other_row], before[name][other_row]) != wanted


@pytest.mark.parametrize(
    ("tasks", "has"), [("depth", ("mask",)), ("both", ("mask",)), ("mask", ("depth",))]
)
def test_a_task_that_the_network_lacks_is_refused(tasks, has):
    with pytest.raises(ValueError, match=f"tasks '{tasks}' cannot be trained: network '000-x'"):
        check_tasks(tasks, has, "000-x")
    check_tasks("auto", has, "000-x")
    check_tasks(has[0], ("mask", "depth"), "000-x")


EARLY = {"stages": "8:4,12:2", "batch_size": "5", "patience": 1, "num_panels": 0, "log_every": 1}
"""Without patience 8 and 4 steps; where no score is better, 4 and 4."""


@pytest.fixture
def hopeless(monkeypatch):
    """No validation is better than the one before."""
    monkeypatch.setattr("models.training.trainer.score", lambda _: 0.0)


@pytest.mark.usefixtures("hopeless")
def test_a_stage_that_no_longer_improves_ends_early(make_trainer, loader, capsys):
    """The next one has its own share of the schedule, and the very next samples."""
    trainer = make_trainer(loader=loader, **EARLY)
    trainer.run()
    places = [(record["step"], record["size"]) for record in records(trainer.run_dir, "validation")]
    assert places == [(2, 8), (4, 8), (6, 12), (8, 12)]
    assert sorted(loader.numbers_seen) == sorted(4 * [*range(10)])
    config = trainer.config
    rates = [config.schedule.rate(step / 12) for step in (0, 1, 2, 3, 8, 9, 10, 11)]
    assert [record["lr"] for record in records(trainer.run_dir, "train")] == [
        config.optimizer.lr * rate for rate in rates
    ]
    assert "stage 1 ends 4 steps early: no better score in 1 validations" in capsys.readouterr().err


def test_a_stage_that_improves_goes_on(make_trainer, monkeypatch):
    """Better, worse, better, worse, worse: patience 2 is out only then."""
    scores = iter([0.1, 0.0, 0.2, 0.1, 0.1, 0.9])
    monkeypatch.setattr("models.training.trainer.score", lambda _: next(scores))
    trainer = make_trainer(stages="8:6", batch_size="5", patience=2, num_panels=0)
    trainer.run()
    assert [record["step"] for record in records(trainer.run_dir, "validation")] == [2, 4, 6, 8, 10]


def test_a_score_that_is_no_number_is_worse_than_any(make_trainer, monkeypatch):
    """NaN first, as fp16 may overflow while weights are still finite: the next one is the best."""
    scores = iter([math.nan, 0.3, math.nan, 0.2])
    monkeypatch.setattr("models.training.trainer.score", lambda _: next(scores))
    trainer = make_trainer(stages="8:4", batch_size="5", patience=3, num_panels=0)
    trainer.run()
    assert read_checkpoint(trainer.run_dir / "best.pt")["progress"]["step"] == 4
    assert trainer.progress.best == (1, 0.3)
    assert trainer.progress.num_worse == 2


@pytest.mark.usefixtures("hopeless")
@pytest.mark.parametrize("consumed", [5, 15, 20, 35])
def test_early_ends_are_the_same_after_a_resume(make_trainer, loader, consumed):
    undisturbed = make_trainer("undisturbed", **EARLY)
    undisturbed.run()
    with pytest.raises(Interrupted):
        make_trainer(loader=interrupted_at(loader, consumed), **EARLY).run()
    resumed = make_trainer(**EARLY)
    resumed.run(resume=True)
    assert_same_run(undisturbed.run_dir, resumed.run_dir)
    again = make_trainer(**EARLY)
    again.run(resume=True)
    assert_same_run(undisturbed.run_dir, again.run_dir)


class Ticks:
    """A clock on which every look takes a second."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        """The time, a second later than before."""
        self.now += 1
        return self.now


@pytest.mark.usefixtures("hopeless")
@pytest.mark.parametrize("seconds", [14, 18])
def test_a_run_in_short_pieces_ends_as_the_one_in_one_piece(make_trainer, seconds):
    """Stopped between steps and within validations, as the clock wants it."""
    undisturbed = make_trainer("undisturbed", **EARLY)
    undisturbed.run()
    news: list[str] = []
    for piece in range(40):
        trainer = make_trainer(time_limit=f"{seconds}s", **EARLY)
        trainer.time_limit = TimeLimit(seconds, clock=Ticks())
        try:
            trainer.run(resume=piece > 0)
            break
        except TimeIsUp as told:
            news.append(str(told))
        assert trainer.time_limit._clock.now <= 1 + seconds - ENDING_S
    assert len(news) > 2
    assert f"the time limit of {seconds}s is near; stopped after step" in news[0]
    assert "the same command with --resume goes on" in news[0]
    assert_same_run(undisturbed.run_dir, trainer.run_dir)


def test_a_limit_too_short_for_anything_is_refused(make_trainer, loader):
    """It would be resumed for ever."""
    trainer = make_trainer(loader=loader, time_limit="2s")
    trainer.time_limit = TimeLimit(2, clock=Ticks())
    with pytest.raises(TrainingError, match=r"within the time limit of 2s.*more time"):
        trainer.run()
    assert not loader.numbers_seen


def test_under_a_limit_the_first_step_is_saved(make_trainer, loader):
    """Only then it is known how long a save takes; without one nothing is saved so early."""

    class PowerFailureError(Exception):
        pass

    def crash(begin):
        if begin == 4:
            raise PowerFailureError

    loader.on_train = crash
    for name, options in (("limited", {"time_limit": "1h"}), ("free", {})):
        trainer = make_trainer(name, loader=loader, **options)
        with pytest.raises(PowerFailureError):
            trainer.run()
        assert (trainer.run_dir / "last.pt").exists() == (name == "limited")


def test_another_limit_is_no_other_run(make_trainer, loader):
    undisturbed = make_trainer("undisturbed")
    undisturbed.run()
    with pytest.raises(Interrupted):
        make_trainer(loader=interrupted_at(loader, 8), time_limit="1h").run()
    resumed = make_trainer(time_limit="2h")
    resumed.run(resume=True)
    assert_same_run(undisturbed.run_dir, resumed.run_dir)


def test_an_average_of_one_task_predicts_one_task(make_trainer, loader):
    learner: Learner = make_trainer(tasks="mask", ema_decay=0.5).learner
    with loader.train(size=8, batch_size=4, start=0, num_steps=1) as stream:
        batch = next(stream)
    prediction = learner.predictor()(batch.background, batch.composite)
    assert prediction.depth_logits is None
    assert prediction.mask_logits is not None
