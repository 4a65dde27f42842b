"""Hue, saturation and value as HSV has them: exact, not linear, so a pass of its own."""

from torch import Tensor


def shift_hsv(planes_N3SS: Tensor, shifts_N3: Tensor) -> Tensor:
    """Add to hue (a share of the circle), saturation and value (of 1) of values 0 to 255."""
    hue, saturation, value = _to_hsv(planes_N3SS / 255)
    turn, more_saturation, more_value = shifts_N3[..., None, None].unbind(1)
    hue = hue + 6 * turn
    saturation = (saturation + more_saturation).clamp_(0, 1)
    value = (value + more_value).clamp_(0, 1)
    chroma = 255 * saturation * value
    shifted = planes_N3SS.new_empty(planes_N3SS.shape)
    for channel, sextant in enumerate((5, 3, 1)):
        place = (hue + sextant).remainder_(6)
        part = place.minimum(4 - place).clamp_(0, 1)
        shifted[:, channel] = (255 * value).sub_(chroma * part)
    return shifted


def _to_hsv(planes_N3SS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, S, S) hue in sextants, any number of circles; saturation and value in [0, 1]."""
    red, green, blue = planes_N3SS.unbind(1)
    value = planes_N3SS.amax(1)
    chroma = value - planes_N3SS.amin(1)
    scale = 1 / chroma.clamp(min=1e-6)  # greys have no hue: their differences are 0
    hue = ((green - blue) * scale).where(
        value == red,
        ((blue - red) * scale + 2).where(value == green, (red - green) * scale + 4),
    )
    return hue, chroma / value.clamp(min=1e-6), value
