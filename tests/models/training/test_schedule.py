import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.training.schedule import SCHEDULES, ScheduleConfig, cosine, one_cycle

FALLING = ("one-cycle", "cosine")


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


def torch_rates(scheduler, num_steps):
    """The rates that torch's scheduler gives to `num_steps` steps of its optimiser."""
    rates = []
    for _ in range(num_steps):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def an_optimizer(peak):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)


@pytest.mark.parametrize("steps_per_epoch", [1, 7])
def test_steps_in_epochs_are_torchs_step_lr(steps_per_epoch):
    """StepLR(4, 0.1) over ten epochs, of which seven steps each are sevenths."""
    reference = torch.optim.lr_scheduler.StepLR(an_optimizer(0.2), 4 * steps_per_epoch, 0.1)
    config = ScheduleConfig(name="step", at="4e,8e", factor=0.1, warmup=0)
    num_steps = 10 * steps_per_epoch
    rates = [
        0.2 * config.rate(step / num_steps, passes=step / steps_per_epoch)
        for step in range(num_steps)
    ]
    assert rates == pytest.approx(torch_rates(reference, num_steps), rel=1e-9)


def test_steps_at_shares_are_torchs_multi_step_lr():
    reference = torch.optim.lr_scheduler.MultiStepLR(an_optimizer(3.0), [15, 45], 0.5)
    config = ScheduleConfig(name="step", at="0.3,0.9", factor=0.5, warmup=0)
    rates = [3 * config.rate(step / 50) for step in range(50)]
    assert rates == pytest.approx(torch_rates(reference, 50), rel=1e-9)


@pytest.mark.parametrize("name", ["constant", "plateau"])
def test_a_warm_up_is_torchs_linear_lr(name):
    reference = torch.optim.lr_scheduler.LinearLR(an_optimizer(0.2), 0.1, 1.0, total_iters=20)
    config = ScheduleConfig(name=name, start=0.1, warmup=0.4)
    rates = [0.2 * config.rate(step / 50) for step in range(50)]
    assert rates == pytest.approx(torch_rates(reference, 50), rel=1e-9)


def test_a_cosine_without_warm_up_is_torchs():
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(an_optimizer(0.2), 50, eta_min=0.02)
    config = ScheduleConfig(name="cosine", warmup=0, final=0.1)
    rates = [0.2 * config.rate(step / 50) for step in range(50)]
    assert rates == pytest.approx(torch_rates(reference, 50), rel=1e-9)


def test_steps_come_on_top_of_the_warm_up():
    config = ScheduleConfig(name="step", at="0.5", factor=0.1, warmup=0.2, start=0)
    assert [config.rate(share) for share in (0.1, 0.3, 0.5)] == pytest.approx([0.5, 1, 0.1])


def test_weights_of_tasks_change_in_a_line():
    config = ScheduleConfig(mask_weight="1 -> 0.5", depth_weight=".5->2e-1")
    assert config.task_weights(0) == {"mask_weight": 1, "depth_weight": 0.5}
    assert config.task_weights(0.5) == pytest.approx({"mask_weight": 0.75, "depth_weight": 0.35})
    assert config.task_weights(1) == pytest.approx({"mask_weight": 0.5, "depth_weight": 0.2})
    assert ScheduleConfig().task_weights(0.3) == {}


@pytest.mark.parametrize("name", SCHEDULES)
def test_without_warm_up_the_first_rate_is_the_peak(name):
    assert ScheduleConfig(name=name, warmup=0).rate(0) == 1


@given(
    name=st.sampled_from(FALLING),
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
        ({"name": "stairs"}, "schedule 'stairs' is not known"),
        ({"at": "0.5,1"}, "schedule at '1' is neither a share of the run"),
        ({"at": "0e"}, "schedule at '0e' is neither"),
        ({"at": "half"}, "schedule at 'half' is neither"),
        ({"factor": 1.0}, "schedule factor 1.0 must be above 0"),
        ({"patience": -1}, "schedule patience -1 must be 0 or more"),
        ({"threshold": float("nan")}, "schedule threshold nan must be 0 or more"),
        ({"cooldown": -1}, "schedule cooldown -1 must be 0 or more"),
        ({"watch": "mood"}, "schedule watch 'mood' must be loss or score"),
        ({"at_stage": "stop"}, "schedule at_stage 'stop' must be continue or restart"),
        ({"mask_weight": "0.5"}, "mask_weight '0.5' is no change over the run; write BEGIN -> END"),
        ({"depth_weight": "1 -> -1"}, "depth_weight '1 -> -1' is no change"),
        ({"warmup": 1.0}, "warmup 1.0 is a share of the run"),
        ({"start": -0.1}, "start -0.1 is a share of the peak"),
        ({"final": 1.5}, "final 1.5 is a share of the peak"),
    ],
)
def test_a_shape_that_is_none_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**changes)
