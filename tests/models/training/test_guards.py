"""Steps that are not finite change nothing, whatever the optimiser."""

import copy

import pytest
import torch
from torch import nn

from models.training import guards
from models.training.ema import MovingAverage
from models.training.guards import SkippedSteps, is_bad
from models.training.optimizer import OptimizerConfig
from models.training.precision import PrecisionConfig

OPTIMIZERS = {
    "adamw": OptimizerConfig(lr=0.01),
    "adam": OptimizerConfig(name="adam", lr=0.01, weight_decay=1e-4),
    "sgd": OptimizerConfig(name="sgd", lr=0.01),
    "sgd without momentum": OptimizerConfig(name="sgd", lr=0.01, momentum=0.0),
    "nesterov": OptimizerConfig(name="sgd", lr=0.01, nesterov=True),
    "rmsprop": OptimizerConfig(name="rmsprop", lr=0.01),
    "rmsprop without momentum": OptimizerConfig(name="rmsprop", lr=0.01, momentum=0.0),
    "clip value": OptimizerConfig(lr=0.01, clip_norm=0, clip_value=0.1),
}


def poisoned(batch, how, network):
    """A batch whose step is not finite."""
    if how == "input":
        batch.composite[0, 0, 0, 0] = float("nan")
    elif how == "target":
        batch.depth[0] = float("inf")
    else:
        weight = network.head.weight
        weight.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor([0]), torch.nan))
    return batch


def tensors(learner):
    """Clones of weights, running statistics, average and optimiser state."""
    state = copy.deepcopy(learner.state_dict())
    return [state["model"], state["ema"], state["optimizer"]["state"]]


def assert_equal(there, here):
    torch.testing.assert_close(there, here, rtol=0, atol=0)


def batches_of(loader, number):
    with loader.train(size=8, batch_size=4, start=0, num_steps=number) as batches:
        return list(batches)


@pytest.mark.parametrize("how", ["input", "target", "gradient"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("num_before", [0, 2])
def test_a_bad_step_changes_no_bit(make_trainer, loader, name, how, num_before):
    """Nor does it by what it leaves behind: the next good step is the one without it.

    Also as the very first step, when the optimiser has no state yet.
    """
    runs = [make_trainer(optimizer=OPTIMIZERS[name], ema_decay=0.9).learner for _ in range(2)]
    good, bad = batches_of(loader, num_before), batches_of(loader, 4)[3]
    for number, batch in enumerate(good):
        for run in runs:
            torch.manual_seed(number)
            run.step(batch, rate=1.0, progress=0.0, number=number)
    before = tensors(runs[0])
    runs[0].loss._has_seen_targets = True  # the very first ones would be refused
    hooked = copy.deepcopy(bad)
    runs[0].step(poisoned(hooked, how, runs[0].network), rate=1.0, progress=0.0, number=num_before)
    if num_before:
        assert_equal(tensors(runs[0]), before)
    else:
        assert_equal(tensors(runs[0])[:2], before[:2])
    runs[0].network.head.weight._backward_hooks = None
    for run in runs:
        torch.manual_seed(9)
        run.step(batches_of(loader, 3)[2], rate=1.0, progress=0.0, number=num_before + 1)
    assert_equal(tensors(runs[0]), tensors(runs[1]))
    assert [skipped.step for skipped in runs[0].skipped.take()] == [num_before + 1]


def test_a_good_step_is_the_optimisers_own(make_trainer, loader):
    """The guard changes no bit of a run without faults."""
    guarded, plain = make_trainer().learner, make_trainer().learner
    plain.guard.step = lambda bad: plain.optimizer.step()
    for number, batch in enumerate(batches_of(loader, 3)):
        for run in (guarded, plain):
            torch.manual_seed(number)
            run.step(batch, rate=1.0, progress=0.0, number=number)
    assert_equal(tensors(guarded), tensors(plain))


def test_the_means_leave_a_bad_step_out(make_trainer, loader):
    run = make_trainer().learner
    good, bad = batches_of(loader, 2)
    run.step(good, rate=1.0, progress=0.0, number=0)
    alone = copy.deepcopy(run.window).take()
    run.step(poisoned(bad, "target", run.network), rate=1.0, progress=0.0, number=1)
    assert run.window.take() == alone


def test_the_samples_of_skipped_steps_are_known(make_trainer, loader):
    run = make_trainer().learner
    good, bad = batches_of(loader, 2)
    run.step(poisoned(bad, "input", run.network), rate=1.0, progress=0.0, number=0)
    run.step(good, rate=1.0, progress=0.0, number=1)
    assert run.skipped.take() == [(1, bad.number.tolist())]
    assert run.skipped.take() == []


def test_a_gradient_that_overflows_fp16_is_no_fault_until_the_scale_is_not_to_blame(
    make_trainer, loader
):
    """The scaler begins at 65,536 and halves its scale at every overflow."""
    run = make_trainer(precision=PrecisionConfig(dtype="fp16")).learner
    before = copy.deepcopy(run.network.state_dict())
    (batch,) = batches_of(loader, 1)
    run.network.head.weight.register_hook(lambda gradient: gradient * torch.inf)
    for number in range(20):
        run.step(batch, rate=1.0, progress=0.0, number=number)
    assert [skipped.step for skipped in run.skipped.take()] == [18, 19, 20]
    assert_equal(dict(run.network.state_dict()), dict(before))


def test_nothing_is_asked_of_the_device_before_a_record(make_trainer, loader, monkeypatch):
    """A stand-in for a GPU: every way from a tensor to a Python number is refused."""
    run = make_trainer(ema_decay=0.9).learner
    first, second = batches_of(loader, 2)
    run.step(first, rate=1.0, progress=0.0, number=0)

    def refuse(*_):
        pytest.fail("the step waits for the device")

    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    run.step(second, rate=1.0, progress=0.0, number=1)


def test_many_steps_without_a_record_are_settled_in_between(monkeypatch):
    monkeypatch.setattr(guards, "SETTLED_EVERY", 4)
    skipped = SkippedSteps()
    for step in range(1, 11):
        skipped.add(step, torch.tensor(float(step % 3 == 0)), torch.tensor([step, -step]))
        assert len(skipped._pending) < 4
    again = SkippedSteps()
    again.load_state_dict(skipped.state_dict())
    assert again.take() == skipped.take() == [(3, [3, -3]), (6, [6, -6]), (9, [9, -9])]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_bad(value):
    good = torch.tensor(1.0)
    assert is_bad(good, good).item() == 0
    assert is_bad(good, torch.tensor(value)).item() == 1
    assert is_bad(torch.tensor(value), good).item() == 1


def test_the_average_of_a_skipped_step_stays():
    network = nn.Linear(1, 1)
    average = MovingAverage(network, decay=0.5)
    before = copy.deepcopy(average.network.state_dict())
    with torch.no_grad():
        network.weight.fill_(7.0)
    average.update(network, 3, torch.tensor(1.0))
    assert_equal(dict(average.network.state_dict()), dict(before))
    average.update(network, 3, torch.tensor(0.0))
    start = before["weight"].item()
    expected = start + (1 - 4 / 13) * (7 - start)
    assert average.network.weight.item() == pytest.approx(expected)
