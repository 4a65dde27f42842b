import numpy as np
import torch
from torch import Tensor

from models.panel import GAP_PX, TITLE_PX, panel

SIZE = 64
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def flat(*colour: float, num: int = 2) -> Tensor:
    return torch.tensor(colour).view(1, -1, 1, 1).expand(num, -1, SIZE, SIZE)


def cell(image: np.ndarray, row: int, column: int) -> np.ndarray:
    top = TITLE_PX + GAP_PX + row * (SIZE + GAP_PX)
    left = GAP_PX + column * (SIZE + GAP_PX)
    return image[top : top + SIZE, left : left + SIZE]


def test_every_column_shows_its_own_values_in_order() -> None:
    columns = (flat(0.0, 0.2, 1.0), flat(1.0, 0.0, 0.4), *(flat(g) for g in (0.2, 0.4, 0.6, 0.8)))
    background, composite, mask, depth, predicted_mask, predicted_depth = columns
    image = np.asarray(panel(background, composite, mask, depth, predicted_mask, predicted_depth))
    expected = [(0, 51, 255), (255, 0, 102), (51,) * 3, (153,) * 3, (102,) * 3, (204,) * 3]
    for row in range(2):
        for column, colour in enumerate(expected):
            np.testing.assert_array_equal(cell(image, row, column) - np.uint8(colour), 0)


def test_normalised_colours_come_back_and_greys_are_left_alone() -> None:
    colour = flat(0.2, 0.4, 0.8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    image = np.asarray(
        panel(None, (colour - mean) / std, flat(0.2), None, None, None, mean=MEAN, std=STD)
    )
    np.testing.assert_array_equal(cell(image, 0, 0), np.full((SIZE, SIZE, 3), (51, 102, 204)))
    np.testing.assert_array_equal(cell(image, 0, 1), 51)


def test_unknown_columns_and_rows_beyond_the_limit_are_left_out() -> None:
    images = panel(None, flat(0, 0, 0, num=9), None, None, None, flat(0.5, num=9), max_rows=3)
    height = TITLE_PX + 3 * (SIZE + GAP_PX) + GAP_PX
    assert images.size == (GAP_PX + 2 * (SIZE + GAP_PX), height)


def test_each_column_has_a_title_that_stays_inside_it() -> None:
    grey = flat(1.0)
    image = np.asarray(panel(flat(1, 1, 1), flat(1, 1, 1), grey, grey, grey, grey))[:TITLE_PX]
    ink = (image < 255).any((0, 2))
    for column in range(6):
        left = GAP_PX + column * (SIZE + GAP_PX)
        assert ink[left : left + SIZE].any()
        assert not ink[left + SIZE : left + SIZE + GAP_PX].any()


def test_values_outside_0_to_1_and_half_precision_are_drawn() -> None:
    image = np.asarray(panel(None, flat(-3.0, 7.0, 0.5).bfloat16(), None, None, None, None))
    np.testing.assert_array_equal(cell(image, 0, 0)[0, 0], (0, 255, 128))


def test_an_error_is_the_distance_from_the_truth_beside_its_prediction() -> None:
    """Depth's is drawn four times as bright: 0.6 against 0.7 are 0.4."""
    composite, mask, depth = flat(0.0, 0.0, 0.0), flat(0.2), flat(0.6)
    image = np.asarray(panel(None, composite, mask, depth, flat(0.8), flat(0.7), with_errors=True))
    found = [int(cell(image, 1, column)[5, 5, 0]) for column in range(7)]
    assert found == [0, 51, 204, 153, 153, 178, 102]
    assert panel(None, composite, None, depth, flat(0.8), flat(0.7), with_errors=True).width == (
        GAP_PX + 5 * (SIZE + GAP_PX)
    )


def test_large_images_are_drawn_smaller_by_their_mean() -> None:
    """A chess board of single pixels becomes its mean grey; small images stay as they are."""
    board = torch.arange(SIZE).view(1, 1, 1, SIZE) + torch.arange(SIZE).view(1, 1, SIZE, 1)
    composite = (board % 2).float().expand(1, 3, SIZE, SIZE)
    image = panel(None, composite, None, None, None, None, max_px=SIZE // 2)
    assert image.size == (SIZE // 2 + 2 * GAP_PX, TITLE_PX + SIZE // 2 + 2 * GAP_PX)
    assert abs(int(np.asarray(image)[TITLE_PX + GAP_PX + 3, GAP_PX + 3, 0]) - 128) <= 1
    assert panel(None, composite, None, None, None, None, max_px=SIZE).width == SIZE + 2 * GAP_PX


def test_titles_stay_within_their_columns() -> None:
    """Images of 32 px are narrower than most titles."""
    small = torch.zeros(1, 3, 32, 32)
    grey = small[:, :1]
    image = np.asarray(panel(small, small, grey, grey, grey, grey, with_errors=True))
    step = 32 + GAP_PX
    for right in range(step, image.shape[1], step):
        assert (image[:TITLE_PX, right : right + GAP_PX] == 255).all(), right
