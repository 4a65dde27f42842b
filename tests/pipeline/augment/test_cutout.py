import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.augment import AugmentConfig
from pipeline.augment.cutout import draw_holes, shown
from pipeline.augment.draws import Drawer


def holes(config: AugmentConfig, size: int) -> npt.NDArray[np.int64]:
    return draw_holes(config, Drawer(3, np.zeros(3_000, np.int64), np.arange(3_000)), size)


@pytest.mark.parametrize(("size", "share", "largest"), [(64, 0.25, 16), (224, 0.1, 22), (32, 0, 1)])
def test_holes_are_as_many_and_as_large_as_asked_and_lie_in_the_frame(
    size: int, share: float, largest: int
) -> None:
    config = AugmentConfig(cutout=0.4, cutout_holes=3, cutout_size=share)
    found = holes(config, size)
    lengths = found[..., 1::2] - found[..., 0::2]
    assert (found.min(), found.max()) == (0, size)
    cut = (lengths > 0).all(-1)
    assert set(np.unique(lengths[cut])) == set(range(1, largest + 1))
    np.testing.assert_array_equal(lengths[..., 0] > 0, lengths[..., 1] > 0)
    counts = cut.sum(1)
    assert (counts > 0).mean() == pytest.approx(0.4, abs=0.03)
    for count in (1, 2, 3):
        assert (counts == count).mean() == pytest.approx(0.4 / 3, abs=0.03)


def test_holes_are_cut_where_they_were_drawn() -> None:
    found = holes(AugmentConfig(cutout=0.6, cutout_holes=2, cutout_size=0.5), 20)[:50]
    expected = np.ones((50, 1, 20, 20), np.float32)
    for number, sample in enumerate(found):
        for top, bottom, left, right in sample:
            expected[number, 0, top:bottom, left:right] = 0
    np.testing.assert_array_equal(shown(torch.from_numpy(found), 20), expected)
    assert expected.min() == 0
