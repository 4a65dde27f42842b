import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.augment.draws import BACKGROUND, HOLES, Drawer, Stream, draws

ZEROS = np.zeros(4_000, np.int64)


def test_draws_are_uniform_and_unrelated() -> None:
    numbers, epochs = np.arange(20_000), np.zeros(20_000, np.int64)
    first = draws(0, epochs, numbers, 1)
    others = [draws(1, epochs, numbers, 1), draws(0, epochs + 1, numbers, 1),
              draws(0, epochs, numbers, 2), np.roll(first, 1)]  # fmt: skip
    assert first.min() >= 0
    assert first.max() < 1
    np.testing.assert_allclose(np.histogram(first, 10, (0, 1))[0] / 2_000, 1, atol=0.12)
    for other in others:
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.03


def test_draws_are_what_they_have_always_been() -> None:
    """Otherwise a resumed run is no longer the undisturbed one."""
    epochs, numbers = np.array([0, 3, 2**40]), np.array([0, 5, 399_999])
    assert draws(7, epochs, numbers, 1).tolist() == [
        0.4614440964057963, 0.22771909831129344, 0.6507261509798267,
    ]  # fmt: skip
    assert draws(2**63 - 1, epochs, numbers, 33).tolist() == [
        0.9509763976864022, 0.21134565093588353, 0.5741418504883966,
    ]  # fmt: skip


def test_every_decision_keeps_the_stream_it_was_given() -> None:
    names = """FLIP FLIP_VERTICAL ROTATION_CHANCE ROTATION SCALE_CHANCE SCALE ASPECT POSITION_X
        POSITION_Y TRANSLATE_CHANCE TRANSLATE_X TRANSLATE_Y CUTOUT_CHANCE CUTOUT_NUM
        BRIGHTNESS_CHANCE BRIGHTNESS CONTRAST_CHANCE CONTRAST SATURATION_CHANCE SATURATION
        HUE_CHANCE HUE SHIFT_CHANCE SHIFT HSV_CHANCE HSV_HUE HSV_SATURATION HSV_VALUE
        BLUR_CHANCE BLUR NOISE_CHANCE NOISE NOISE_KEY"""
    assert [(stream.name, stream.value) for stream in Stream] == [
        (name, number) for number, name in enumerate(names.split(), 1)
    ]
    assert max(Stream) < BACKGROUND
    assert max(Stream) + BACKGROUND < HOLES


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(1, 50))
def test_a_draw_depends_on_nothing_but_its_own_sample(seed: int, epoch: int, count: int) -> None:
    numbers = np.arange(count)
    together = draws(seed, np.full(count, epoch), numbers, 3)
    alone = [draws(seed, np.array([epoch]), numbers[n : n + 1], 3)[0] for n in range(count)]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("chance", [0.0, 0.25, 1.0])
def test_so_many_samples_are_chosen_as_asked(chance: float) -> None:
    chosen = Drawer(0, ZEROS, np.arange(4_000)).chosen(chance, Stream.FLIP)
    assert chosen.mean() == pytest.approx(chance, abs=0.02 if 0 < chance < 1 else 0)


def test_ranges_are_filled_evenly() -> None:
    drawer = Drawer(0, ZEROS, np.arange(4_000))
    drawn = drawer.around(10, 2, Stream.ROTATION)
    np.testing.assert_allclose(np.histogram(drawn, 8, (8, 12))[0] / 500, 1, atol=0.2)
    np.testing.assert_array_equal(drawer.between(3, 3, Stream.SCALE), 3.0)
