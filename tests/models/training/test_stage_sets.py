"""Stages on some of several sets: each set's own samples, and nothing lost where a run is cut."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cli
from models.checkpoint import encode, read_checkpoint, write_atomically
from models.error import CheckpointError, TrainingError
from models.report.folder import read_run
from models.report.page import page
from models.training.evaluate import facts_of
from models.training.plan import plan_run
from models.training.precision import PrecisionConfig
from models.training.progress import Progress
from models.training.schedule import ScheduleConfig
from models.training.stages import parse_stages
from models.training.trainer import Trainer
from pipeline.augment import AugmentConfig
from pipeline.batch import JointLoader
from pipeline.loader import Loader, LoaderConfig
from shards.convert import convert
from shards.options import ConvertConfig
from shards.synth import SynthConfig, synthesise
from tests.models.training.same_run import assert_same_run, records

CPU = torch.device("cpu")
STAGES = "8:2@1,8:1@2,12:1,8:0.5@1"
"""Sets of 4 and 6 samples, by 2: 4 steps, 3, 5 and 1."""


class PowerFailureError(Exception):
    """Ends the program without warning."""


@contextmanager
def crashing_at(step, monkeypatch):
    """The power fails when a trainer is about to make a step."""
    train = Trainer.step

    def crash(trainer, *arguments):
        if trainer.progress.step == step:
            raise PowerFailureError
        train(trainer, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", crash)
        with pytest.raises(PowerFailureError):
            yield


# what is asked for


def test_sets_are_read_behind_a_stage():
    stages = parse_stages("64:40@1, 64:20@2+3,96:50000s@3+1,96:10", "8")
    assert [stage.sets for stage in stages] == [(1,), (2, 3), (1, 3), ()]
    assert [(stage.epochs, stage.samples) for stage in stages] == [
        (40, 0), (20, 0), (0, 50_000), (10, 0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("64:4@", "stage '64:4@' says no sets behind its @; give their places among --data"),
        ("64:4@0", "stage '64:4@0' says no sets"),
        ("64:4@-1", "stage '64:4@-1' says no sets"),
        ("64:4@1+", r"stage '64:4@1\+' says no sets"),
        ("64:4@1@2", "stage '64:4@1@2' says no sets"),
        ("64:4@one", "stage '64:4@one' says no sets"),
        ("64:4@2+1+2", r"stage '64:4@2\+1\+2' names set 2 twice; --repeat gives a set more"),
        ("64@1:4", "stage '64@1:4' is not SIZE:EPOCHS"),
        ("64:@1", "stage '64:@1' is not SIZE:EPOCHS"),
        ("64:0@1", "a stage of 0 epochs is none"),
    ],
)
def test_what_names_no_sets_is_quoted(text, message):
    with pytest.raises(ValueError, match=message):
        parse_stages(text, "8")


@pytest.mark.parametrize(("lengths", "there"), [((10,), "is only set 1"), ((10, 20), "are 2 sets")])
def test_a_set_that_there_is_not_is_refused_with_how_many_there_are(lengths, there):
    message = rf"stage 2 \(96 px\) is to train on set 3, and there {there}; name it with --data"
    with pytest.raises(TrainingError, match=message):
        plan_run(parse_stages("64:1,96:1@1+3", "8"), *lengths)


def test_a_set_without_training_samples_is_refused_where_it_is_needed():
    assert plan_run(parse_stages("64:1@1,64:1", "8"), 10, 0).num_steps == 4
    with pytest.raises(TrainingError, match=r"stage 1 \(64 px\) has no training samples in set 2"):
        plan_run(parse_stages("64:1@2,64:1", "8"), 10, 0)


# the plan


def test_a_plan_by_hand_counts_each_stages_own_samples():
    """By 300: 40 passes over 1,000 are 134 steps, 20 over 3,000 are 200, 1 over 6,000 is 20."""
    plan = plan_run(parse_stages("64:40@1,64:20@2+3,96:1,96:1@1+2+3", "300"), 1000, 2000, 3000)
    one, two, three, four = plan.stages
    assert [stage.epoch_samples for stage in plan.stages] == [1000, 5000, 6000, 6000]
    assert (one.sets, two.sets, three.sets, four.sets) == ((1,), (2, 3), (), ())
    assert (one.last_step, two.last_step, three.last_step, four.last_step) == (134, 468, 488, 508)
    assert one.epoch_ends[:3] == (4, 7, 10)
    assert two.first_sample == 134 * 300
    assert plan.epochs == pytest.approx(134 * 0.3 + 334 * 300 / 5000 + 2)
    assert plan.passes_at(134 + 50) == pytest.approx(134 * 0.3 + 3)


def test_all_sets_by_name_are_the_plan_without_names():
    named, plain = (plan_run(parse_stages(text, "7"), 10, 20) for text in ("8:3@1+2", "8:3"))
    assert named == plain


def test_progress_counts_each_stream_and_the_whole():
    plan = plan_run(parse_stages("8:1@1,8:1@2", "2"), 4, 6)
    progress = Progress()
    for sets, num in (((), 5), ((1,), 4), ((2,), 3), ((1,), 4)):
        progress.take(sets, num)
    assert (progress.samples, progress.taken(())) == (16, 5)
    assert (progress.taken((1,)), progress.taken((2,)), progress.taken((1, 3))) == (8, 3, 0)
    assert progress.passes(plan) == 5 / 10 + 8 / 4 + 3 / 6


# the run


@pytest.fixture
def options():
    """A run of `STAGES`."""
    return {"stages": STAGES, "batch_size": "2", "log_every": 1, "num_panels": 0}


def test_a_list_in_a_loaders_clothes_is_what_the_trainer_takes_for_several_sets(two_lists, loader):
    assert isinstance(two_lists(), JointLoader)
    assert not isinstance(loader, JointLoader)


def test_stages_draw_from_their_own_sets_and_go_on_with_the_very_next_sample(
    make_trainer, options, two_lists
):
    loader = two_lists()
    trainer = make_trainer(loader=loader, **options)
    trainer.run()
    assert loader.opened == [((1,), 0, 4), ((2,), 0, 3), ((), 0, 5), ((1,), 8, 1)]
    assert sorted(loader.numbers_seen[:8]) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sorted(loader.numbers_seen[8:14]) == [*range(4, 10)]
    assert sorted(loader.numbers_seen[14:24]) == [*range(10)]
    found = records(trainer.run_dir, "train")
    assert [record["epoch"] for record in found] == pytest.approx(
        [0.5, 1, 1.5, 2, 2 + 1 / 3, 2 + 2 / 3, 3, 3.2, 3.4, 3.6, 3.8, 4, 4.5]
    )
    assert [record["samples"] for record in found] == [*range(2, 28, 2)]
    assert [record.get("sets", "") for record in found] == 4 * ["1"] + 3 * ["2"] + 5 * [""] + ["1"]
    ends = [record["step"] for record in records(trainer.run_dir, "validation")]
    assert ends == [2, 4, 7, 12, 13]


@pytest.mark.parametrize("step", range(13))
def test_a_crash_at_any_step_and_resume_are_the_undisturbed_run(
    make_trainer, options, step, monkeypatch, two_lists
):
    """With a checkpoint every third step: what came after it is done again."""
    options |= {"checkpoint_every": 3, "ema_decay": 0.9}
    undisturbed = make_trainer("undisturbed", loader=two_lists(), **options)
    undisturbed.run()
    with crashing_at(step, monkeypatch):
        make_trainer(loader=two_lists(), **options).run()
    resumed = make_trainer(loader=two_lists(), **options)
    resumed.run(resume=True)
    assert_same_run(undisturbed.run_dir, resumed.run_dir)


def test_after_an_early_end_the_next_stage_takes_the_very_next_sample(
    make_trainer, monkeypatch, two_lists
):
    """The first stage's third and fourth epoch are skipped; its sets' samples are not."""
    monkeypatch.setattr("models.training.trainer.score", lambda _: 0.0)
    loader = two_lists()
    options = {"stages": "8:4@2,8:1@1,12:1@2", "batch_size": "2", "num_panels": 0}
    trainer = make_trainer(loader=loader, patience=1, **options)
    trainer.run()
    assert loader.opened == [((2,), 0, 12), ((1,), 0, 2), ((2,), 12, 3)]
    assert trainer.progress.skipped_samples == 12
    assert trainer.progress.by_sets == {"2": 18, "1": 4}
    assert read_run(trainer.run_dir).is_finished


def test_epochs_of_a_step_schedule_are_passes_over_the_stages_own_samples(make_trainer, two_lists):
    """Down at the ends of the first set's second epoch and of the second's first."""
    schedule = ScheduleConfig(name="step", at="2e,3e", factor=0.1, warmup=0)
    options = {"stages": "8:2@1,8:1@2,8:1@1", "batch_size": "2", "log_every": 1, "num_panels": 0}
    trainer = make_trainer(loader=two_lists(), schedule=schedule, **options)
    trainer.run()
    lr = trainer.config.optimizer.lr
    rates = [record["lr"] / lr for record in records(trainer.run_dir, "train")]
    assert rates == pytest.approx(4 * [1] + 3 * [0.1] + 2 * [0.01])


def test_a_restarted_step_schedule_counts_each_stages_epochs(make_trainer, two_lists):
    schedule = ScheduleConfig(name="step", at="1e", factor=0.1, warmup=0, at_stage="restart")
    options = {"stages": "8:2@1,8:2@2", "batch_size": "2", "log_every": 1, "num_panels": 0}
    trainer = make_trainer(loader=two_lists(), schedule=schedule, **options)
    trainer.run()
    lr = trainer.config.optimizer.lr
    rates = [record["lr"] / lr for record in records(trainer.run_dir, "train")]
    assert rates == pytest.approx(2 * [1] + 2 * [0.1] + 3 * [1] + 3 * [0.1])


def test_a_step_that_was_skipped_is_told_at_its_own_place(make_trainer, options, two_lists):
    loader = two_lists()
    loader.composite[4:6] = torch.nan  # the second set's first batch, step 4 of the run
    options |= {"stages": "8:2@1,8:1@2", "log_every": 3}
    trainer = make_trainer(loader=loader, **options)
    trainer.run()
    (skipped,) = records(trainer.run_dir, "skipped")
    assert (skipped["step"], skipped["samples"], skipped["sets"]) == (5, 10, "2")
    assert skipped["epoch"] == pytest.approx(2 + 2 / 6)
    assert skipped["numbers"] == [4, 5]


def test_a_checkpoint_from_before_there_were_stages_on_some_sets_is_gone_on_from(
    make_trainer, options, two_lists
):
    options |= {"stages": "8:2"}
    undisturbed = make_trainer("undisturbed", loader=two_lists(), **options)
    undisturbed.run()
    first = make_trainer(loader=two_lists(), **options, time_limit="")
    first.loader.on_train = _failing_at(6)
    first.config = replace(first.config, checkpoint_every=1)
    with pytest.raises(PowerFailureError):
        first.run()
    path = first.run_dir / "last.pt"
    state = read_checkpoint(path)
    del state["progress"]["by_sets"]
    write_atomically(path, encode(state))
    resumed = make_trainer(loader=two_lists(), **options, checkpoint_every=1)
    resumed.run(resume=True)
    assert resumed.loader.opened == [((), 6, 7)]
    assert_same_run(undisturbed.run_dir, resumed.run_dir)


def _failing_at(consumed):
    def fail(begin):
        if begin == consumed:
            raise PowerFailureError

    return fail


def test_resume_on_other_sets_spells_the_difference(make_trainer, options, two_lists):
    make_trainer(loader=two_lists(), **options).run()
    other = make_trainer(loader=two_lists(), **{**options, "stages": STAGES.replace("@2", "@1")})
    message = r"train\.stages: '8:2@1,8:1@2,12:1,8:0\.5@1' there, '8:2@1,8:1@1,12:1,8:0\.5@1' here"
    with pytest.raises(CheckpointError, match=message):
        other.run(resume=True)


def test_a_loader_of_one_set_is_refused_stages_on_another(make_trainer):
    assert make_trainer(stages="8:1@1", batch_size="4").plan.stages[0].sets == ()
    with pytest.raises(TrainingError, match="there is only set 1"):
        make_trainer(stages="8:1@2", batch_size="4")


def test_the_report_knows_how_long_the_run_is_and_names_the_sets(make_trainer, options, two_lists):
    trainer = make_trainer(loader=two_lists(), **options)
    trainer.loader.on_train = _failing_at(0)
    with pytest.raises(PowerFailureError):
        trainer.run()
    assert read_run(trainer.run_dir).planned_samples == 26
    trainer = make_trainer(loader=two_lists(), **options)
    trainer.run(resume=True)
    found = read_run(trainer.run_dir)
    assert found.is_finished
    assert [stage.told for stage in found.stages] == ["8 px @1", "8 px @2", "12 px", "8 px @1"]
    html = page(found, versions={})
    assert "8 px @2" in html
    assert 'aria-label="Sets"' not in html


def test_the_console_names_the_sets(make_trainer, options, capsys, two_lists):
    trainer = make_trainer(loader=two_lists(), **options)
    trainer.run()
    assert "stage 1/4, 8 px @1, epoch 0.50/4.50" in capsys.readouterr().err


# real sets


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two sets of 12 and 24 training samples at 32 px."""
    folder = tmp_path_factory.mktemp("sets")
    found = []
    for number, count in enumerate((16, 32), 1):
        made = SynthConfig(count=count, size=32, seed=number, num_backgrounds=2, num_foregrounds=4)
        synthesise(folder / f"source{number}", made)
        out = folder / f"set{number}"
        convert(ConvertConfig(sources=(folder / f"source{number}",), out=out, val=0.25,
                              samples_per_shard=8, processes=1))  # fmt: skip
        found.append(out)
    return found


@pytest.mark.parametrize(
    ("order", "cache", "step"),
    [("global", "host", 2), ("global", "off", 7), ("windowed", "host", 9)],
)
def test_real_sets_cached_or_not_cut_and_resumed_give_the_same_weights(
    sets, make_trainer, tmp_path, order, cache, step, monkeypatch
):
    """The undisturbed run caches nothing. Stages of 3, 6, 5 and 2 steps of 4."""

    def trained(name, cache, *, resume=False):
        loading = LoaderConfig(
            decoder="turbojpeg", threads=2, tune="off", cache=cache, order=order,
            augment=AugmentConfig(flip=0.5),
        )  # fmt: skip
        with Loader(sets, loading, CPU) as loader:
            make_trainer(
                name,
                loader=loader,
                facts=facts_of(loader),
                sections={"loader": loader.record},
                stages="16:1@1,16:1@2,24:0.5,16:0.5@1",
                batch_size="4",
                log_every=1,
                num_panels=0,
                checkpoint_every=2,
                precision=PrecisionConfig(dtype="fp32"),
            ).run(resume=resume)

    trained("undisturbed", "off")
    with crashing_at(step, monkeypatch):
        trained("cut", cache)
    trained("cut", cache, resume=True)
    assert_same_run(tmp_path / "undisturbed", tmp_path / "cut")


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code or 0


def test_the_command_trains_set_after_set_and_refuses_one_that_is_not_given(sets, tmp_path, capsys):
    out = tmp_path / "run"

    def train(stages):
        data = [argument for path in sets for argument in ("--data", path)]
        return run("train", *data, "--out", out, "--stages", stages, "--batch-size", 4, "--device",
                   "cpu", "--panels", 0, "--log-every", 1, "--resume")  # fmt: skip

    assert train("32:1@1,32:1@3") == 2
    told = capsys.readouterr().err
    assert "stage 2 (32 px) is to train on set 3, and there are 2 sets; name it with --data" in told
    assert not out.exists(), "nothing was begun"
    assert train("32:1@1+1") == 2
    assert "names set 1 twice" in capsys.readouterr().err
    assert train("32:1@1,32:0.5@2") == 0
    assert [record["sets"] for record in records(Path(out), "train")] == 3 * ["1"] + 3 * ["2"]
    capsys.readouterr()
    assert train("32:1@1,32:0.5@1") == 2
    assert "'32:1@1,32:0.5@2' there, '32:1@1,32:0.5@1' here" in capsys.readouterr().err


def test_the_range_test_looks_at_the_first_stages_sets(sets, tmp_path, capsys, monkeypatch):
    recipe = tmp_path / "mine.toml"
    seen = []
    plain = Loader.train

    def watched(loader, **stage):
        seen.append(stage["sets"])
        return plain(loader, **stage)

    monkeypatch.setattr(Loader, "train", watched)

    def find(stages):
        recipe.write_text(f'[train]\nstages = "{stages}"\nbatch_size = 4\n')
        data = [argument for path in sets for argument in ("--data", path)]
        return run("lr-find", *data, "--recipe", recipe, "--out", tmp_path / "lr.png", "--size", 32,
                   "--steps", 10, "--device", "cpu")  # fmt: skip

    assert find("32:1@2,32:1") in {0, 2}, "so short a test may find that no loss fell"
    assert seen == [(2,)]
    capsys.readouterr()
    assert find("32:1@3") == 2
    assert "is to train on set 3, and there are 2 sets" in capsys.readouterr().err
