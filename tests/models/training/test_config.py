import tomllib

import pytest

from models.training.config import TrainConfig, differences, from_dict
from models.training.optimizer import OptimizerConfig
from models.training.precision import PrecisionConfig
from models.training.schedule import ScheduleConfig
from models.training.toml import to_toml

CHANGED = TrainConfig(
    stages="32:0.5,64:1",
    batch_size="8,4",
    optimizer=OptimizerConfig(
        name="sgd", nesterov=True, lr=3e-05, weight_decay=0.0, decay="all",
        clip_norm=0.0, clip_value=0.5,
    ),
    schedule=ScheduleConfig(
        name="plateau", warmup=0.05, final=1e-07, watch="score", mask_weight="1 -> 0.5"
    ),
    tasks="mask",
    accumulate=2,
    patience=3,
    time_limit="9m",
    precision=PrecisionConfig(dtype="bf16", compile="off"),
    ema_decay=0.999,
    seed=7,
)  # fmt: skip


@pytest.mark.parametrize("config", [TrainConfig(), CHANGED])
def test_a_configuration_survives_toml(config):
    """`config.toml` of a run gives back the very configuration that made it."""
    text = to_toml({"train": config.to_dict(), "set": {"fingerprint": "abc"}})
    assert from_dict(TrainConfig, tomllib.loads(text)["train"]) == config


@pytest.mark.parametrize(
    "values",
    [
        {"text": 'a "quoted" \\ path\nwith\ttabs, \x7f, \x01 and ü 😀'},
        {"small": 1e-300, "large": 1e22, "whole": 3.0, "minus": -0.5, "infinite": float("inf")},
        {"yes": True, "no": False, "list": [1, 2.5, "three", [True]]},
        {"a key": {"with.dots": 1, "ö": {"deep": "x"}}, "empty": {}},
    ],
)
def test_python_reads_the_toml_that_is_written(values):
    assert tomllib.loads(to_toml(values)) == values


def test_none_is_left_out_of_toml():
    assert tomllib.loads(to_toml({"a": None, "b": {"c": None, "d": 1}})) == {"b": {"d": 1}}


def test_what_toml_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="TOML cannot hold"):
        to_toml({"a": object()})


def test_fields_that_are_not_given_keep_their_defaults():
    config = from_dict(TrainConfig, {"batch_size": 64, "optimizer": {"lr": 1}})
    assert config == TrainConfig(batch_size="64", optimizer=OptimizerConfig(lr=1.0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batchsize": "8"}, "train has no key 'batchsize'; the nearest known one is 'batch_size'"),
        ({"schedule": {"warm_up": 0.1}}, "train.schedule has no key 'warm_up'.*'warmup'"),
        ({"seed": "one"}, "train.seed is 'one', which is no int"),
        ({"seed": True}, "train.seed is True, which is no int"),
        ({"optimizer": 0.1}, "train.optimizer is 0.1, which is no OptimizerConfig"),
        ({"optimizer": {"lr": 0.0}}, r"\[train.optimizer\] learning rate 0.0 must be above 0"),
    ],
)
def test_a_wrong_key_or_value_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        from_dict(TrainConfig, values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": "64"}, "not SIZE:EPOCHS"),
        ({"ema_decay": 1.0}, "ema_decay 1.0 must be 0"),
        ({"log_every": 0}, "log_every 0 must be at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every 0 must be at least 1"),
        ({"num_panels": -1}, "num_panels -1 must be at least 0"),
        ({"accumulate": 0}, "accumulate 0 must be at least 1"),
        ({"accumulate": 3}, "accumulate 3 does not divide the batch size 256"),
        ({"patience": -1}, "patience -1 must be at least 0"),
        ({"tasks": "masks"}, "tasks 'masks' is not known; choose one of auto, mask, depth, both"),
        ({"time_limit": "soon"}, "time_limit 'soon' is no time above 0; write it as 9m"),
        ({"time_limit": "0m"}, "time_limit '0m' is no time above 0"),
    ],
)
def test_a_value_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (OptimizerConfig, {"lr": float("nan")}, "learning rate nan must be above 0"),
        (OptimizerConfig, {"weight_decay": -1.0}, "weight_decay -1.0 must be 0"),
        (OptimizerConfig, {"clip_norm": -1.0}, "clip_norm -1.0 must be 0"),
        (OptimizerConfig, {"clip_value": -1.0}, "clip_value -1.0 must be 0"),
        (OptimizerConfig, {"clip_value": 0.1}, "clip_norm 1.0 and clip_value 0.1 both clip"),
        (OptimizerConfig, {"momentum": 1.0}, "momentum 1.0 must be 0"),
        (OptimizerConfig, {"nesterov": True}, "nesterov is sgd's, and needs momentum"),
        (OptimizerConfig, {"name": "adamm"}, "optimizer 'adamm' is not known; choose one of adamw"),
        (OptimizerConfig, {"decay": "no"}, "optimizer decay 'no' is not known; choose one of conv"),
        (PrecisionConfig, {"dtype": "half"}, "choose one of auto, bf16, fp16, tf32, fp32"),
        (PrecisionConfig, {"compile": "yes"}, "choose one of auto, off, max, on"),
    ],
)
def test_a_part_out_of_range_is_refused(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        kind(**changes)


def test_differences_are_spelled_through_nested_tables():
    there = {"train": {"seed": 0, "optimizer": {"lr": 0.1}}, "same": 1, "gone": True}
    here = {"train": {"seed": 0, "optimizer": {"lr": 0.2}}, "same": 1}
    assert differences(there, here) == [
        "gone: True there, None here",
        "train.optimizer.lr: 0.1 there, 0.2 here",
    ]
