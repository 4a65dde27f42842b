import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.error import TrainingError
from models.training.plan import plan_run
from models.training.stages import Stage, parse_stages


def test_stages_and_batch_sizes_are_read():
    assert parse_stages("64:4, 96:2,224:0.5", "256,128,64") == (
        Stage(size=64, epochs=4, batch_size=256),
        Stage(size=96, epochs=2, batch_size=128),
        Stage(size=224, epochs=0.5, batch_size=64),
    )


def test_one_batch_size_serves_all_stages():
    assert [stage.batch_size for stage in parse_stages("64:4,96:2", "32")] == [32, 32]


@pytest.mark.parametrize(
    ("stages", "batch_sizes", "message"),
    [
        ("64", "8", "stage '64' is not SIZE:EPOCHS"),
        ("64:4,", "8", "stage '' is not SIZE:EPOCHS"),
        ("64:four", "8", "stage '64:four' is not SIZE:EPOCHS"),
        ("64.5:4", "8", "stage '64.5:4' is not SIZE:EPOCHS"),
        ("0:4", "8", "stage size 0 px must be at least 1"),
        ("64:0", "8", "a stage of 0 epochs is none"),
        ("64:-1", "8", "a stage of -1 epochs is none"),
        ("64:0s", "8", "stage '64:0s' is not SIZE:EPOCHS or SIZE:SAMPLESs"),
        ("64:0.5s", "8", "stage '64:0.5s' is not"),
        ("64:-5s", "8", "stage '64:-5s' is not"),
        ("64:inf", "8", "a stage of inf epochs is none"),
        ("64:nan", "8", "a stage of nan epochs is none"),
        ("64:4", "0", "batch size 0 must be at least 1"),
        ("64:4", "many", "batch size 'many' is not a whole number"),
        ("64:4,96:2,224:1", "8,4", "are 2 for 3 stages"),
    ],
)
def test_what_is_no_list_of_stages_is_quoted(stages, batch_sizes, message):
    with pytest.raises(ValueError, match=message):
        parse_stages(stages, batch_sizes)


def test_a_plan_by_hand():
    """1,000 samples: 1.5 epochs by 300 are 5 steps, whose 1,500 samples the next stage follows."""
    plan = plan_run(parse_stages("64:1.5,96:2", "300,256"), 1000)
    first, second = plan.stages
    assert (first.epoch_ends, first.first_sample) == ((4, 5), 0)
    assert (second.first_step, second.first_sample, second.epoch_ends) == (5, 1500, (9, 13))
    assert (plan.num_steps, plan.total_samples) == (13, 1500 + 8 * 256)
    assert plan.epochs == 3.548
    assert plan.pixels_left(3) == 2 * 300 * 64**2 + 8 * 256 * 96**2
    assert plan.pixels_left(12) == 256 * 96**2
    assert plan.pixels_left(13) == 0


def test_a_stage_may_be_so_many_samples():
    """2,500 of 1,000 by 300: validated where an epoch ends, and at the end."""
    plan = plan_run(parse_stages("64:2500s,96:1", "300"), 1000)
    first, second = plan.stages
    assert (first.epoch_ends, first.num_samples) == ((4, 7, 9), 2700)
    assert second.first_sample == 2700
    assert first.epochs == 2.7, "whole batches"


def test_a_decimal_fraction_of_an_epoch_is_exact():
    """In binary 1.1 x 10 is a little more than 11, and would cost another step."""
    assert plan_run(parse_stages("64:1.1", "1"), 10).num_steps == 11


def test_a_set_without_training_samples_is_refused():
    with pytest.raises(TrainingError, match="no training samples"):
        plan_run(parse_stages("64:1", "8"), 0)


def test_an_epoch_smaller_than_a_batch_is_validated_once_a_step():
    assert plan_run(parse_stages("64:5", "8"), 3).stages[0].epoch_ends == (1, 2)


@given(
    stages=st.lists(st.tuples(st.integers(1, 80), st.integers(1, 50)), min_size=1, max_size=4),
    num_samples=st.integers(1, 200),
)
def test_stages_lie_end_to_end_and_are_as_long_as_asked(stages, num_samples):
    """A stage covers its epochs and less than one batch more, and starts where the last ended."""
    plan = plan_run(
        parse_stages(
            ",".join(f"8:{tenths / 10}" for tenths, _ in stages),
            ",".join(str(batch_size) for _, batch_size in stages),
        ),
        num_samples,
    )
    step = sample = 0
    for planned, (tenths, batch_size) in zip(plan.stages, stages, strict=True):
        assert (planned.first_step, planned.first_sample) == (step, sample)
        step, before = planned.last_step, sample
        sample = planned.samples_at(step)
        surplus = sample - before - Fraction(tenths, 10) * num_samples
        assert 0 <= surplus < batch_size
        assert len(planned.epoch_ends) <= math.ceil(tenths / 10)
