"""The range test: the rates it makes, what it suggests, and that it leaves nothing behind."""

import json
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from models.error import TrainingError
from models.losses import LossConfig, TaskLoss
from models.prediction import Prediction
from models.training.config import TrainConfig
from models.training.learner import Learner
from models.training.lr_find import LrFindConfig, RangeTest, centred_means, draw, range_test
from models.training.optimizer import OptimizerConfig
from models.training.precision import PrecisionConfig


class TwoConvolutions(nn.Module):
    """With a norm between."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1)
        )

    def forward(self, background, composite):
        """As every network."""
        mask, depth = self.body(torch.cat((background, composite), 1)).split(1, 1)
        return Prediction(mask_logits=mask, depth_logits=depth)


@pytest.fixture
def learner():
    torch.manual_seed(0)
    config = TrainConfig(
        optimizer=OptimizerConfig(name="sgd", lr=0.1, momentum=0.9, weight_decay=0.0, clip_norm=0),
        precision=PrecisionConfig(dtype="fp32"),
    )
    loss = TaskLoss(LossConfig(mask="bce", depth="l1"))
    return Learner(config, TwoConvolutions(), loss, torch.device("cpu"))


@pytest.fixture
def batches(loader):
    with loader.train(size=12, batch_size=5, start=0, num_steps=1000) as stream:
        yield stream


CONFIG = LrFindConfig(lowest=1e-4, highest=1e3, steps=60, smoothing=2)


@pytest.mark.parametrize("steps", [10, 37])
def test_rates_grow_by_one_factor_from_the_lowest_to_the_highest(steps):
    config = LrFindConfig(lowest=1e-5, highest=10.0, steps=steps)
    rates = [config.rate(step) for step in range(steps)]
    assert (rates[0], rates[-1]) == pytest.approx((1e-5, 10.0))
    factors = [later / earlier for earlier, later in pairwise(rates)]
    assert factors == pytest.approx([1e6 ** (1 / (steps - 1))] * (steps - 1))


def test_it_ends_where_the_loss_diverges_and_suggests_less(learner, batches):
    """Without a norm: the logits grow with the rate, and with them the loss."""
    learner.network.body[1].eval()
    found = range_test(learner, batches, CONFIG)
    assert found.has_diverged
    assert len(found.rates) < CONFIG.steps
    assert found.losses[0] > min(found.losses)
    assert 1e-4 < found.steepest < found.rates[-1]
    assert 1e-4 < found.tenth_of_lowest < found.rates[-1] / 10


def test_the_learner_is_left_as_it_was(learner, batches):
    """Weights, running statistics, optimiser and generators."""
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    rng = torch.get_rng_state()
    range_test(learner, batches, CONFIG)
    assert all(torch.equal(v, before[name]) for name, v in learner.network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    momenta = [state["momentum_buffer"] for state in learner.optimizer.state.values()]
    assert not any(momentum.any() for momentum in momenta if momentum is not None)


def test_suggestions_are_those_of_the_curve():
    """Flat, down by 1, by 4, by 2, up: fastest between the third and the fifth value."""
    rates = tuple(10.0**power for power in range(-6, 1))
    losses = (9.0, 9.0, 8.0, 4.0, 2.0, 3.0, 9.0)
    found = RangeTest(rates=rates, losses=losses, smoothed=losses, has_diverged=False)
    assert found.steepest == 1e-3
    assert found.tenth_of_lowest == pytest.approx(1e-3)


def test_means_do_not_lag(learner, batches):
    """A peak stays where it is; near the ends fewer neighbours count, as many on both sides."""
    assert centred_means([0, 0, 3, 0, 0], 1) == (0, 1, 1, 1, 0)
    assert centred_means([0, 0, 5, 0, 0], 2) == pytest.approx((0, 5 / 3, 1, 5 / 3, 0))
    assert centred_means([4, 2], 9) == (4, 2)
    found = range_test(learner, batches, CONFIG)
    assert found.smoothed == centred_means(found.losses, 2)


def test_rates_that_are_all_too_high_are_an_error(learner, batches):
    with pytest.raises(TrainingError, match=r"the loss never fell .*; try a lower --lowest"):
        range_test(learner, batches, LrFindConfig(lowest=1e5, highest=1e9, steps=20))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lowest": 0.0}, "do not grow from above 0"),
        ({"lowest": 2.0}, "do not grow from above 0"),
        ({"highest": math.inf}, "do not grow from above 0"),
        ({"steps": 3}, "3 steps show nothing"),
        ({"smoothing": -1}, "smoothing -1 must be"),
        ({"diverged": 1.0}, "diverged 1.0 must be above 1"),
    ],
)
def test_a_test_that_shows_nothing_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LrFindConfig(**changes)


def test_the_result_is_kept_as_numbers_and_as_a_picture(learner, batches, tmp_path):
    """The line of each suggestion stands at its rate, on the logarithmic axis."""
    found = range_test(learner, batches, CONFIG)
    found.save(tmp_path / "found.json")
    kept = json.loads((tmp_path / "found.json").read_text())
    assert kept["steepest"] == found.steepest
    assert len(kept["losses"]) == len(found.rates)
    picture = draw(found, "two convolutions")
    row = [picture.getpixel((x, picture.height // 4)) for x in range(picture.width)]
    place = math.log(found.steepest / found.rates[0]) / math.log(found.rates[-1] / found.rates[0])
    expected = 2 * (70 + place * (720 - 70 - 20))
    assert any(row[x] == (0xD1, 0x49, 0x5B) for x in range(int(expected) - 2, int(expected) + 4))
