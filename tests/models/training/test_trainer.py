import copy
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.checkpoint import encode, read_checkpoint, write_atomically
from models.error import CheckpointError, Interrupted, TrainingError
from models.training.ema import MovingAverage
from models.training.evaluate import SetFacts
from models.training.optimizer import OptimizerConfig
from models.training.precision import PrecisionConfig
from models.training.resume import check_resumable
from models.training.schedule import ScheduleConfig
from models.training.speed import MEASURED

NUM_STEPS = 8
SAMPLES_BEFORE_STEP = (0, 4, 8, 12, 16, 19, 22, 25)
TIMINGS = ("elapsed_s", *MEASURED)


class PowerFailureError(Exception):
    """Ends the program without warning."""


def records(trainer):
    """Every record without what a clock decides."""
    lines = (trainer.run_dir / "metrics.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key not in TIMINGS}
        for line in lines
    ]


def assert_same(there, here, where="checkpoint"):
    """Equal bit for bit, through all nesting."""
    assert type(there) is type(here), where
    if isinstance(there, torch.Tensor):
        assert torch.equal(there, here), where
    elif isinstance(there, dict):
        assert there.keys() == here.keys(), where
        for key in there:
            if key != "elapsed_s":
                assert_same(there[key], here[key], f"{where}.{key}")
    elif isinstance(there, (list, tuple)):
        assert len(there) == len(here), where
        for number, pair in enumerate(zip(there, here, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    else:
        assert there == here, where


def assert_same_run(undisturbed, resumed):
    for name in ("last.pt", "best.pt"):
        assert_same(
            read_checkpoint(undisturbed.run_dir / name), read_checkpoint(resumed.run_dir / name)
        )
    assert records(resumed) == records(undisturbed)


def signal_at(consumed, number=signal.SIGINT):
    """A loader's callback: Ctrl-C while the batch after `consumed` samples is being fetched."""

    def callback(begin):
        if begin == consumed:
            os.kill(os.getpid(), number)

    return callback


@pytest.fixture
def undisturbed(make_trainer):
    trainer = make_trainer("undisturbed")
    trainer.run()
    return trainer


def test_a_run_learns_and_beats_the_free_baselines(make_trainer, loader):
    """The whole path from batches to metrics: nothing else would make both tasks succeed."""
    trainer = make_trainer(
        loader=loader, stages="16:30", batch_size="5", optimizer=OptimizerConfig(lr=0.05)
    )
    scores = trainer.run()
    train = [record for record in records(trainer) if record["kind"] == "train"]
    assert train[-1]["loss"] < 0.3 * train[0]["loss"]
    assert scores["mask_iou"] > 0.95
    assert scores["depth_rmse"] < scores["baseline_depth_rmse"]


def test_stages_draw_from_one_endless_stream(make_trainer, loader):
    make_trainer(loader=loader).run()
    assert len(loader.numbers_seen) == 4 * 4 + 4 * 3
    assert sorted(loader.numbers_seen[:10]) == sorted(loader.numbers_seen[10:20]) == [*range(10)]


def test_every_epoch_end_is_validated_once(undisturbed):
    validations = [record for record in records(undisturbed) if record["kind"] == "validation"]
    assert [(record["step"], record["size"]) for record in validations] == [(3, 8), (4, 8), (8, 12)]
    assert all({"mask_iou", "baseline_mask_iou", "depth_rmse"} <= row.keys() for row in validations)


def test_train_records_come_every_few_steps_and_at_epoch_ends(undisturbed):
    train = [record for record in records(undisturbed) if record["kind"] == "train"]
    assert [(record["step"], record["samples"]) for record in train] == [
        (3, 12),
        (4, 16),
        (6, 22),
        (8, 28),
    ]


def test_the_learning_rate_follows_the_schedule_over_all_stages(undisturbed):
    """The rate of a step is that of the share of samples consumed before it."""
    config = undisturbed.config
    for record in (record for record in records(undisturbed) if record["kind"] == "train"):
        share = SAMPLES_BEFORE_STEP[record["step"] - 1] / 28
        assert record["lr"] == config.optimizer.lr * config.schedule.rate(share)


def test_a_run_folder_holds_what_is_promised(undisturbed):
    names = {path.name for path in undisturbed.run_dir.iterdir()}
    assert names == {
        "config.toml",
        "last.pt",
        "previous.pt",
        "best.pt",
        "metrics.jsonl",
        "tensorboard",
        "panels",
    }
    panels = sorted(path.name for path in (undisturbed.run_dir / "panels").iterdir())
    assert panels == ["epoch-001.20-8px.png", "epoch-001.60-8px.png", "epoch-002.80-12px.png"]


@pytest.mark.parametrize("step", range(1, NUM_STEPS + 1))
def test_ctrl_c_in_any_step_and_resume_give_the_undisturbed_weights(
    make_trainer, loader, undisturbed, step
):
    """Bit for bit: weights, optimiser, generators, scores, best checkpoint and every record."""
    loader.on_train = signal_at(SAMPLES_BEFORE_STEP[step - 1])
    with pytest.raises(Interrupted, match=rf"after step {step} of 8 and saved .*--resume"):
        make_trainer(loader=loader).run()
    resumed = make_trainer()
    resumed.run(resume=True)
    assert_same_run(undisturbed, resumed)


@pytest.mark.parametrize("validation", [1, 2, 3])
def test_sigterm_while_validating_and_resume_give_the_undisturbed_weights(
    make_trainer, loader, undisturbed, validation
):
    begun = []

    def on_validate(begin):
        begun.append(begin)
        if begun.count(0) == validation:
            os.kill(os.getpid(), signal.SIGTERM)
            loader.on_validate = lambda _: None

    loader.on_validate = on_validate
    with pytest.raises(Interrupted, match="SIGTERM"):
        make_trainer(loader=loader).run()
    resumed = make_trainer()
    resumed.run(resume=True)
    assert_same_run(undisturbed, resumed)


@pytest.mark.parametrize("step", range(1, NUM_STEPS + 1))
def test_a_crash_in_any_step_leaves_no_gap_and_no_duplicate(
    make_trainer, loader, undisturbed, step
):
    """What was recorded after the last checkpoint is taken back, and recorded again."""

    def crash(begin):
        if begin == SAMPLES_BEFORE_STEP[step - 1]:
            raise PowerFailureError

    loader.on_train = crash
    with pytest.raises(PowerFailureError):
        make_trainer(loader=loader, checkpoint_every=2).run()
    assert (step > 2) == (make_trainer().run_dir / "last.pt").exists()
    resumed = make_trainer(checkpoint_every=5)
    resumed.run(resume=True)
    assert records(resumed) == records(undisturbed)
    assert_same(
        read_checkpoint(undisturbed.run_dir / "last.pt")["model"],
        read_checkpoint(resumed.run_dir / "last.pt")["model"],
    )


def test_a_resumed_run_takes_the_very_next_sample(make_trainer, loader):
    whole = make_trainer("whole", loader=loader)
    whole.run()
    first, second = type(loader)(), type(loader)()
    first.on_train = signal_at(16)
    with pytest.raises(Interrupted):
        make_trainer(loader=first).run()
    make_trainer(loader=second).run(resume=True)
    assert first.numbers_seen + second.numbers_seen == loader.numbers_seen


def test_two_interruptions_and_a_running_average_resume_as_well(make_trainer, loader):
    undisturbed = make_trainer("undisturbed", ema_decay=0.9)
    undisturbed.run()
    loader.on_train = signal_at(4)
    with pytest.raises(Interrupted):
        make_trainer(loader=loader, ema_decay=0.9).run()
    loader.on_train = signal_at(19)
    with pytest.raises(Interrupted):
        make_trainer(loader=loader, ema_decay=0.9).run(resume=True)
    resumed = make_trainer(ema_decay=0.9)
    resumed.run(resume=True)
    assert_same_run(undisturbed, resumed)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_mixed_precision_resumes_bit_for_bit(make_trainer, loader, dtype):
    """Under fp16 the loss scaler's state goes along."""
    precision = PrecisionConfig(dtype=dtype)
    undisturbed = make_trainer("undisturbed", precision=precision)
    undisturbed.run()
    loader.on_train = signal_at(19)
    with pytest.raises(Interrupted):
        make_trainer(loader=loader, precision=precision).run()
    resumed = make_trainer(precision=precision)
    resumed.run(resume=True)
    assert_same_run(undisturbed, resumed)
    scaler = read_checkpoint(resumed.run_dir / "last.pt")["scaler"]
    assert bool(scaler) == (dtype == "fp16")


def test_resume_of_a_finished_run_changes_nothing(make_trainer, undisturbed):
    again = make_trainer("undisturbed")
    before = records(undisturbed)
    assert again.run(resume=True) == undisturbed.progress.scores
    assert records(again) == before


def test_resume_in_an_empty_folder_starts_at_zero(make_trainer, undisturbed):
    trainer = make_trainer()
    trainer.run_dir.mkdir()
    trainer.run(resume=True)
    assert_same_run(undisturbed, trainer)


def test_an_existing_run_is_refused_and_left_alone(make_trainer, undisturbed):
    before = (undisturbed.run_dir / "last.pt").read_bytes()
    with pytest.raises(TrainingError, match=r"undisturbed exists and is not empty.*--resume"):
        make_trainer("undisturbed").run()
    assert (undisturbed.run_dir / "last.pt").read_bytes() == before


def test_a_file_in_place_of_the_run_folder_is_refused(make_trainer, tmp_path):
    (tmp_path / "run").write_text("notes")
    with pytest.raises(TrainingError, match="run cannot be a run folder"):
        make_trainer().run()


def test_resume_with_another_set_is_refused(make_trainer, undisturbed):
    facts = replace(undisturbed.facts, fingerprint="fedcba9876543210")
    with pytest.raises(CheckpointError, match=r"another set .*0123456789ab.*fedcba98.*--data"):
        make_trainer("undisturbed", facts=facts).run(resume=True)


def test_resume_with_another_network_spells_the_difference(make_trainer, undisturbed):
    sections = {**undisturbed.sections, "network": {"name": "huge"}}
    sections.pop("train")
    with pytest.raises(CheckpointError, match=r"network\.name: 'tiny' there, 'huge' here"):
        make_trainer("undisturbed", sections=sections).run(resume=True)


def test_resume_with_another_configuration_spells_the_difference(make_trainer, undisturbed):
    with pytest.raises(
        CheckpointError, match=r"train\.batch_size: '4,3' there, '5' here; train\.seed"
    ):
        make_trainer("undisturbed", batch_size="5", seed=6).run(resume=True)


def test_a_checkpoint_that_knows_fewer_options_ran_with_their_defaults(undisturbed):
    state = {"config": {**undisturbed.sections}, "set": undisturbed.facts.record()}
    train = {**undisturbed.sections["train"]}
    train.pop("accumulate")
    train["optimizer"] = {"lr": train["optimizer"]["lr"]}
    state["config"]["train"] = train
    same = {"config": undisturbed.sections, "fingerprint": undisturbed.facts.fingerprint}
    check_resumable(Path("last.pt"), state, **same)
    train["patience"] = 7
    with pytest.raises(CheckpointError, match=r"train\.patience: 7 there, 0 here"):
        check_resumable(Path("last.pt"), state, **same)


def test_bad_samples_are_in_every_record_and_survive_a_resume(make_trainer, loader):
    """Also one that the resumed run never meets again."""
    order = []
    with loader.train(size=8, batch_size=10, start=0, num_steps=1) as batches:
        order += next(batches).number.tolist()
    loader.bad = {order[5]}
    loader.on_train = signal_at(4)
    with pytest.raises(Interrupted):
        make_trainer(loader=loader, stages="8:2", batch_size="2").run()
    resumed = make_trainer(stages="8:2", batch_size="2")
    resumed.run(resume=True)
    found = [record["bad_samples"] for record in records(resumed)]
    assert found == [1] * len(found)
    assert resumed.loader.found_bad == [order[5]]
    state = read_checkpoint(resumed.run_dir / "last.pt")
    assert state["progress"]["loader"] == {"bad": [order[5]]}


def test_a_checkpoint_from_before_bad_samples_were_kept_is_gone_on_from(make_trainer, loader):
    loader.on_train = signal_at(4)
    with pytest.raises(Interrupted):
        make_trainer(loader=loader).run()
    trainer = make_trainer()
    path = trainer.run_dir / "last.pt"
    state = read_checkpoint(path)
    del state["version"], state["progress"]["loader"]
    write_atomically(path, encode(state))
    trainer.run(resume=True)
    assert trainer.progress.step == NUM_STEPS


def test_a_batch_of_bad_samples_alone_changes_nothing_but_the_place_in_the_stream(
    make_trainer, loader
):
    """No decay, no momentum, no running statistics, no average, and no mean loss is moved."""
    trainer = make_trainer(loader=loader, ema_decay=0.9)
    stage = trainer.plan.stages[0]
    with loader.train(size=8, batch_size=4, start=0, num_steps=2) as batches:
        trainer.step(stage, next(batches))
        before = copy.deepcopy(trainer.learner.state_dict())
        loader.bad = set(range(10))
        void = next(batches)
    assert void.is_void
    trainer.step(stage, void)
    after = trainer.learner.state_dict()
    assert after["schedule"]["lr"] > before["schedule"]["lr"]
    for state in (before, after):
        del state["schedule"]["lr"]
        for group in state["optimizer"]["param_groups"]:
            del group["lr"]
    assert_same(before, after)
    assert (trainer.progress.step, trainer.progress.samples) == (2, 8)


def test_a_run_of_bad_samples_alone_ends_as_it_began(make_trainer, loader):
    loader.bad = set(range(10))
    trainer = make_trainer(loader=loader)
    before = copy.deepcopy(trainer.learner.network.state_dict())
    trainer.run()
    assert_same(before, trainer.learner.network.state_dict())
    train = [record for record in records(trainer) if record["kind"] == "train"]
    assert {(record["loss"], record["bad_samples"]) for record in train} == {(0.0, 10)}


def test_a_rank_that_gets_half_of_each_batch_counts_the_whole_of_it(make_trainer, loader):
    """Steps, samples, the schedule and the rate are the run's, not the rank's."""

    class Rank(type(loader)):
        def _batch(self, numbers, size, weight):
            half = len(numbers) // 2
            return super()._batch(numbers[:half], size, weight[:half])

    whole, half = (
        make_trainer(name, loader=made, stages="8:2,12:1", batch_size="4,2")
        for name, made in (("whole", loader), ("half", Rank()))
    )
    whole.run()
    half.run()
    places = [
        [(record["step"], record["samples"], record.get("lr")) for record in records(trainer)]
        for trainer in (whole, half)
    ]
    assert places[0] == places[1]
    assert half.loader.numbers_seen == whole.loader.numbers_seen


def test_best_is_the_best_of_the_last_stage_reached(make_trainer, monkeypatch):
    """A high score at a small size does not keep the later stage from being saved."""
    scores = iter([0.9, 0.8, 0.5, 0.6, 0.4])
    monkeypatch.setattr(
        "models.training.validating.evaluate", lambda *_, **__: {"mask_iou": next(scores)}
    )
    trainer = make_trainer(stages="8:2,12:3", batch_size="5", num_panels=0)
    trainer.run()
    best = read_checkpoint(trainer.run_dir / "best.pt")["progress"]
    assert best["best"] == (2, 0.6)
    assert best["step"] == 8


def test_validation_uses_the_average_and_leaves_the_weights_alone(make_trainer):
    plain, averaged = make_trainer("plain"), make_trainer("averaged", ema_decay=0.99)
    assert plain.run() != averaged.run()
    plain_state, state = (
        read_checkpoint(trainer.run_dir / "last.pt") for trainer in (plain, averaged)
    )
    assert_same(plain_state["model"], state["model"])
    assert state["ema"].keys() == state["model"].keys()


def test_the_average_of_one_weight_is_what_the_formula_says():
    network = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(0.0)
        average = MovingAverage(network, decay=0.5)
        network.weight.fill_(1.0)
    expected = 0.0
    for step in range(12):
        average.update(network, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * 1.0
        assert average.network.weight.item() == pytest.approx(expected, rel=1e-6)


def test_norms_and_biases_do_not_decay(make_trainer):
    config = OptimizerConfig(weight_decay=0.01)
    groups = make_trainer(optimizer=config).learner.optimizer.param_groups
    assert [
        (group["weight_decay"], {weight.ndim for weight in group["params"]}) for group in groups
    ] == [(0.01, {4}), (0.0, {1})]


def test_gradients_are_clipped_to_the_norm_asked_for(make_trainer, loader):
    trainer = make_trainer(optimizer=OptimizerConfig(clip_norm=1e-3))
    with loader.train(size=8, batch_size=4, start=0, num_steps=1) as batches:
        trainer.step(trainer.plan.stages[0], next(batches))
    gradients = [weight.grad for weight in trainer.learner.network.parameters()]
    norm = torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in gradients]))
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)
    assert trainer.learner.window.take()["grad_norm"] > 1e-3


def test_the_configuration_of_a_bad_schedule_is_refused():
    with pytest.raises(ValueError, match="'cyclic' is not known; choose one of one-cycle, cosine"):
        ScheduleConfig(name="cyclic")


def test_facts_record_what_prediction_needs():
    facts = SetFacts(
        fingerprint="f", pixel_mean=(0.1, 0.2, 0.3), pixel_std=(1.0, 2.0, 3.0), mean_depth=torch.eye
    )
    assert facts.record() == {
        "fingerprint": "f",
        "pixel_mean": (0.1, 0.2, 0.3),
        "pixel_std": (1.0, 2.0, 3.0),
        "sets": (),
    }
