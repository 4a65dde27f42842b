import tomllib

import pytest

from models.error import TrainingError
from models.losses import LossConfig
from models.recipe import EMPTY, FOLDER, ExpectedSet, describe, facts, read_recipe, recipe_names
from models.registry import NETWORKS, NetworkConfig, check_size
from models.training.config import TrainConfig
from models.training.schedule import ScheduleConfig
from models.training.tasks import check_tasks
from pipeline.augment import AugmentConfig, read_augment

REFERENCES = {"000", "001", "002", "003", "004"}


def test_every_reference_system_has_a_recipe_and_the_house_comes_first():
    names = recipe_names()
    assert names[0] == "house"
    assert {name.partition("-")[0] for name in names[1:]} == REFERENCES


@pytest.mark.parametrize("name", recipe_names())
def test_a_bundled_recipe_fits_together(name):
    """Its network takes its sizes, its losses fit them, and its comment says how to convert."""
    recipe = read_recipe(name)
    train, network, loss = (recipe.part(table) for table in ("train", "network", "loss"))
    kind = NETWORKS[network.name]
    check_tasks(train.tasks, kind.tasks, network.name)
    for stage in train.parsed_stages:
        check_size(network, stage.size, stage.batch_size)
        loss.check_size(stage.size, max(kind.scales, default=1))
    assert isinstance(read_augment(recipe.part("loader").augment), AugmentConfig)
    told = recipe.tables["loss"]
    assert {task for task in ("mask", "depth") if task in told} == set(kind.tasks)
    expected = recipe.part("set")
    assert expected.convert.startswith("convert --split ")
    if name != "house":
        assert kind.source.startswith(name[:3])
        (line,) = (line for line in recipe.text.splitlines() if "# maskdepth convert" in line)
        assert line.endswith(expected.convert.removeprefix("convert "))


def test_the_house_recipe_is_what_happens_without_one():
    house = read_recipe("house")
    for table in ("train", "network", "loss"):
        assert house.part(table) == EMPTY.part(table)
    assert read_augment(house.part("loader").augment) == AugmentConfig()
    assert (EMPTY.part("train"), EMPTY.part("loss")) == (TrainConfig(), LossConfig())
    assert EMPTY.part("network") == NetworkConfig()


def test_published_figures_are_in_the_recipes():
    """A few of each, from the systems' own texts."""
    found = {name: facts(read_recipe(name)) for name in recipe_names()}
    keys = ("stages", "batch_size", "optimizer", "lr", "schedule")
    assert {name: tuple(row[key] for key in keys) for name, row in found.items()} == {
        "house": ("64:4,96:2,224:1", "256", "adamw", 0.012, "one-cycle"),
        "000": ("64:10", "128", "adam", 0.01, "one-cycle"),
        "000-mask": ("64:10", "128", "adam", 0.01, "one-cycle"),
        "000-depth": ("64:10", "128", "adam", 0.01, "one-cycle"),
        "001-unet": ("96:20", "128", "sgd", 0.01, "step"),
        "001-resnet18": ("96:100", "64", "adam", 1e-4, "step"),
        "002": ("192:10", "64", "adam", 0.01, "one-cycle"),
        "003": ("224:12", "16", "sgd", 0.01, "plateau"),
        "004": ("64:3,128:3", "128", "sgd", 0.1, "one-cycle"),
        "004-mask": ("64:3,128:3", "128", "sgd", 0.1, "one-cycle"),
    }
    assert found["004"]["weights"] == {"mask": 1.0, "depth": 2.0}
    assert found["002"]["losses"] == {"mask": "bce", "depth": "0.9 dssim(window=11) + 0.1 iou"}


@pytest.mark.parametrize("name", ["000", "000-mask", "000-depth", "002", "004", "004-mask"])
def test_a_mended_schedule_leaves_the_published_one_an_option_away(name):
    """`--schedule plateau --warmup 0` has the numbers that the system published."""
    published = {"factor": 0.1, "patience": 2, "threshold": 1e-4}
    if name == "002":
        published = {"factor": 0.5, "patience": 2, "threshold": 1e-3, "cooldown": 2}
    given = {"schedule": {"name": "plateau", "warmup": 0.0}}
    found = read_recipe(name).part("train", given).schedule
    assert found == ScheduleConfig(name="plateau", warmup=0.0, **published)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_cut_short_comes_down_as_the_whole_one_does(name):
    """A rate is drawn over the run, not over epochs that a short run never reaches."""
    schedule = read_recipe(name).part("train").schedule
    shares = [step / 200 for step in range(201)]
    short, whole = (
        [schedule.rate(share, passes=epochs * share) for share in shares] for epochs in (0.5, 100)
    )
    assert short == whole
    if schedule.name != "plateau":
        assert short[-1] <= 0.1 * max(short) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("name", "epochs", "drops"), [("001-unet", 20, 10), ("001-resnet18", 100, 15)]
)
def test_001s_rates_fall_in_the_epochs_that_were_published(name, epochs, drops):
    """Ten samples an epoch; a tenth at each drop."""
    train = read_recipe(name).part("train")
    (stage,) = train.parsed_stages
    assert stage.epochs == epochs
    for step in range(10 * epochs):
        expected = 0.1 ** min(step // (10 * drops), (epochs - 1) // drops)
        rate = train.schedule.rate(step / (10 * epochs), passes=step / 10)
        assert rate == pytest.approx(expected, rel=1e-9), step


def test_options_take_the_place_of_the_recipes_and_nothing_else_does():
    recipe = read_recipe("004")
    given = {"stages": "32:1", "optimizer": {"lr": 0.5, "name": None}, "schedule": {"name": None}}
    plain, changed = recipe.part("train"), recipe.part("train", given)
    assert (changed.stages, changed.optimizer.lr) == ("32:1", 0.5)
    assert changed.optimizer.name == "sgd"
    assert changed.optimizer.weight_decay == plain.optimizer.weight_decay == 1e-8
    assert changed.schedule == plain.schedule
    assert recipe.tables == tomllib.loads((FOLDER / "004.toml").read_text()), "it stays as it is"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[trian]\n", "no table is called 'trian'; the nearest known one is 'train'"),
        ("[train]\nbatchsize = 3\n", "train has no key 'batchsize'.*'batch_size'"),
        ("[train.schedule]\nwarm_up = 0\n", "train.schedule has no key 'warm_up'.*'warmup'"),
        ("[set]\nsplits = 'random'\n", "set has no key 'splits'; the nearest known one is 'split'"),
        ("[loader]\naugmentation = 'flip'\n", "loader has no key 'augmentation'.*'augment'"),
        ("[network]\nname = 'u-net'\n", r"\[network\] no network is called 'u-net'"),
        ("[loss]\nmask = 'hope'\n", r"\[loss\] loss 'hope' has an unknown term"),
        ("[train]\nstages = '64'\n", r"\[train\] stage '64' is not SIZE:EPOCHS"),
        ("train = 3\n", r"'train' is a table, written \[train\]"),
        ("[train\n", "is no TOML .*line 1.*; correct it there"),
    ],
)
def test_a_fault_in_a_file_names_the_file_and_the_key(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=rf"mine\.toml.*{message}"):
        read_recipe(str(path))


def test_a_recipe_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"no recipe '004x'; the nearest is '004'.*recipes"):
        read_recipe("004x")
    with pytest.raises(TrainingError, match=r"none\.toml cannot be read \(No such file"):
        read_recipe(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("split", "options", "expected"),
    [
        ({"rule": "random"}, {"val": 0.3}, []),
        ({"rule": "background"}, {"val": 0.3}, ["split 'background', not 'random'"]),
        ({"rule": "random"}, {"val": 0.1}, ["val 0.1, not 0.3"]),
        ({"rule": "each set's own"}, {"sets": []}, ["split \"each set's own\", not 'random'"]),
    ],
)
def test_a_set_made_otherwise_is_told_by_difference(split, options, expected):
    assert ExpectedSet(split="random", val=0.3).differences(split, options) == expected
    assert ExpectedSet().differences(split, options) == []


def test_the_table_has_a_line_for_each():
    lines = describe([read_recipe(name) for name in recipe_names()])
    assert len(lines) == 1 + len(recipe_names())
    (line,) = (line for line in lines if line.startswith("004 "))
    assert "004-depthmasknet8" in line
    assert "depth x 2: batch_rmse(eps=1e-6)" in line
    assert line.endswith("--split random --val 0.3")
