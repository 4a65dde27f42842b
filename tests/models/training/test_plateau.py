import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.training.plateau import Plateau
from models.training.schedule import ScheduleConfig

VALUES = st.lists(st.sampled_from([0.1, 0.5, 0.5000001, 0.51, 0.6, 0.9, 1.0, 1.2]), max_size=40)


@given(
    values=VALUES,
    watch=st.sampled_from(["loss", "score"]),
    patience=st.integers(0, 3),
    cooldown=st.integers(0, 3),
    threshold=st.sampled_from([0.0, 1e-4, 0.1]),
    final=st.sampled_from([0.0, 0.05]),
    stop=st.integers(0, 40),
)
def test_it_is_torchs_reduce_on_plateau(values, watch, patience, cooldown, threshold, final, stop):
    """Value by value; and so it is after a checkpoint at any place."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        mode="min" if watch == "loss" else "max",
        threshold_mode="rel" if watch == "loss" else "abs",
        factor=0.3,
        patience=patience,
        cooldown=cooldown,
        threshold=threshold,
        min_lr=final,
        eps=0,
    )
    config = ScheduleConfig(
        name="plateau", factor=0.3, watch=watch, patience=patience, cooldown=cooldown,
        threshold=threshold, final=final,
    )  # fmt: skip
    ours = Plateau(config)
    ours.begin_stage(1)
    for place, value in enumerate(values):
        if place == stop:
            state = ours.state_dict()
            ours = Plateau(config)
            ours.load_state_dict(state)
            ours.begin_stage(1)
        ours.update(value)
        reference.step(value)
        assert ours.share == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


@pytest.mark.parametrize(("at_stage", "share"), [("continue", 0.1), ("restart", 1.0)])
def test_losses_of_two_stages_are_not_compared(at_stage, share):
    """A larger loss at another size is no failure; the rate stays, or starts again."""
    plateau = Plateau(ScheduleConfig(name="plateau", patience=0, at_stage=at_stage))
    plateau.begin_stage(1)
    for loss in (0.2, 0.3):
        plateau.update(loss)
    assert plateau.share == pytest.approx(0.1)
    plateau.begin_stage(2)
    assert plateau.share == pytest.approx(share)
    plateau.update(0.9)
    assert plateau.share == pytest.approx(share)
    plateau.update(1.0)
    assert plateau.share == pytest.approx(share / 10)
