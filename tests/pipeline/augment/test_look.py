"""What is drawn of a picture's look: ranges and chances. What it does is in `test_finish.py`."""

import numpy as np
import pytest

from pipeline.augment import AugmentConfig
from pipeline.augment.draws import Drawer
from pipeline.augment.look import Look, draw_look
from pipeline.normalise import Normalisation


def look(**options: float) -> Look:
    drawer = Drawer(2, np.zeros(4_000, np.int64), np.arange(4_000))
    plain = Normalisation(mean=(0, 0, 0), std=(1, 1, 1))
    return draw_look(AugmentConfig(**options), drawer, plain)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "largest"), [("blur", 2.0), ("noise", 0.1)])
def test_a_sigma_lies_evenly_between_nothing_and_the_largest(name: str, largest: float) -> None:
    drawn = getattr(look(**{name: largest, f"{name}_chance": 0.4}), name)
    chosen = drawn[drawn != 0]
    assert len(chosen) / 4_000 == pytest.approx(0.4, abs=0.03)
    counts = np.histogram(chosen, 4, (0, largest))[0]
    assert counts.sum() == len(chosen)
    np.testing.assert_allclose(counts / len(chosen), 0.25, atol=0.05)


def test_hsv_is_shifted_both_ways_all_three_at_once() -> None:
    reaches = {"hsv_hue": 0.1, "hsv_saturation": 0.2, "hsv_value": 0.3}
    drawn = look(**reaches, hsv_chance=0.5).hsv
    chosen = drawn[drawn.any(1)]
    assert len(chosen) / 4_000 == pytest.approx(0.5, abs=0.03)
    assert chosen.all()
    for values, reach in zip(chosen.T, reaches.values(), strict=True):
        counts = np.histogram(values, 4, (-reach, reach))[0]
        assert counts.sum() == len(chosen)
        np.testing.assert_allclose(counts / len(chosen), 0.25, atol=0.05)
    assert np.abs(np.corrcoef(chosen.T) - np.eye(3)).max() < 0.08
