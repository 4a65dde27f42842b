import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.training.schedule import SCHEDULES, ScheduleConfig, cosine, one_cycle


def test_one_cycle_is_torchs_one_cycle():
    """Against `OneCycleLR`, whose phases end on steps: 14 of 49 is its 30 % of 50 steps."""
    num_steps, peak = 50, 0.2
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, num_steps, pct_start=0.3, div_factor=25, final_div_factor=1e4
    )
    for step in range(num_steps):
        share = one_cycle(step / (num_steps - 1), warmup=14 / 49, start=1 / 25, final=1 / 25 / 1e4)
        assert peak * share == pytest.approx(reference.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if step < num_steps - 1:
            reference.step()


@pytest.mark.parametrize(
    ("progress", "rate"),
    [
        (0, 0.1),
        (0.1, 0.55),
        (0.2, 1),
        (0.4, 0.2 + 0.4 * (1 + math.sqrt(0.5))),
        (0.6, 0.6),
        (1, 0.2),
    ],
)
def test_cosine_warms_up_in_a_line_and_falls_in_a_cosine(progress, rate):
    """By hand: a fifth up from 0.1, then half a wave from 1 to 0.2."""
    assert cosine(progress, warmup=0.2, start=0.1, final=0.2) == pytest.approx(rate)


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_warm_up_the_first_rate_is_the_peak(name):
    assert ScheduleConfig(name=name, warmup=0).rate(0) == 1


@given(
    name=st.sampled_from(SCHEDULES),
    progress=st.floats(0, 1),
    warmup=st.floats(0, 0.999),
    start=st.floats(0, 1),
    final=st.floats(0, 1),
)
def test_the_rate_stays_between_its_ends_and_the_peak(name, progress, warmup, start, final):
    config = ScheduleConfig(name=name, warmup=warmup, start=start, final=final)
    assert min(start, final) - 1e-9 <= config.rate(progress) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "step"}, "schedule 'step' is not known"),
        ({"warmup": 1.0}, "warmup 1.0 is a share of the run"),
        ({"start": -0.1}, "start -0.1 is a share of the peak"),
        ({"final": 1.5}, "final 1.5 is a share of the peak"),
    ],
)
def test_a_shape_that_is_none_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**changes)
