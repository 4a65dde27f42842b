import colorsys

import numpy as np
import torch

from pipeline.augment.hsv import shift_hsv


def test_colours_are_shifted_as_the_standard_library_does() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (7, 3, 12, 12)).astype(np.float32)
    pixels[:, :, 0, :4] = [0, 255, 128, 77]  # black, white and greys have no hue
    pixels[:, :, 1, :3] = np.eye(3) * 255
    shifts = random.uniform(-0.3, 0.3, (7, 3)).astype(np.float32)
    found = shift_hsv(torch.from_numpy(pixels), torch.from_numpy(shifts)).numpy()
    for picture, (turn, more_saturation, more_value), image in zip(
        pixels, shifts, found, strict=True
    ):
        for place in np.ndindex(12, 12):
            h, s, v = colorsys.rgb_to_hsv(*picture[(slice(None), *place)].astype(float) / 255)
            s, v = np.clip([s + more_saturation, v + more_value], 0, 1)
            expected = 255 * np.array(colorsys.hsv_to_rgb((h + turn) % 1, s, v))
            np.testing.assert_allclose(image[(slice(None), *place)], expected, atol=2e-2)


def test_no_shift_is_no_change() -> None:
    pixels = torch.randint(0, 256, (2, 3, 32, 32)).float()
    torch.testing.assert_close(shift_hsv(pixels, torch.zeros(2, 3)), pixels, atol=1e-3, rtol=0)
