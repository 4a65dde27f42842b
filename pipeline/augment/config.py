"""What training may change in its images, and how much."""

import math
from dataclasses import dataclass, fields

FILLS = ("reflect", "edge", "zero")
_CHANCES = ("flip", "flip_vertical", "cutout")
_MAX_HOLES = 64
_BOUNDS: dict[str, tuple[float, float, str]] = {
    "rotation": (0, 180, "degrees"),
    "scale_min": (0.1, 10, "a factor"),
    "scale_max": (0.1, 10, "a factor"),
    "aspect": (1, 4, "a factor"),
    "translate": (0, 1, "a share of the side"),
    "cutout_size": (0, 1, "a share of the side"),
    "brightness": (0, 1, "a share"),
    "contrast": (0, 1, "a share"),
    "saturation": (0, 1, "a share"),
    "hue": (0, 0.5, "a share of the circle"),
    "shift": (0, 1, "a share of the full range"),
    "hsv_hue": (0, 0.5, "a share of the circle"),
    "hsv_saturation": (0, 1, "a share of the full range"),
    "hsv_value": (0, 1, "a share of the full range"),
    "blur": (0, 8, "pixels"),
    "noise": (0, 1, "a share of the full range"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """What training changes in its images; 0 leaves an operation out.

    An operation's range is drawn from evenly, its `_chance` is the share of samples that it meets.
    In this order: flips, scale, rotation and translation (one interpolation for all of them), blur,
    HSV, colour (brightness, contrast, saturation, hue, shift), noise, cutout.
    """

    flip: float = 0.5
    """Probability of mirroring a sample left to right."""

    flip_vertical: float = 0.0
    """Probability of mirroring a sample top to bottom."""

    rotation: float = 0.0
    """Degrees up to which a sample is turned, either way."""

    rotation_chance: float = 1.0
    """Probability of it."""

    scale_min: float = 1.0
    """The smallest size of what is seen, as a multiple: below 1 the picture becomes smaller than
    the frame and lies anywhere within it."""

    scale_max: float = 1.0
    """The largest: above 1 the frame shows a crop from anywhere in the picture. Drawn evenly in the
    logarithm, so halving is as likely as doubling."""

    aspect: float = 1.0
    """Width over height is stretched by up to this factor, either way, at the same area."""

    scale_chance: float = 1.0
    """Probability of a new scale and aspect."""

    translate: float = 0.0
    """Share of the side by which a sample is moved, each way: padding, then a crop."""

    translate_chance: float = 1.0
    """Probability of it."""

    fill: str = "reflect"
    """What lies outside the picture: `reflect` (its mirror image, object, mask and depth included),
    `edge` (its outermost pixels, likewise) or `zero` (black, without object; the depth is that of
    the edge, since 0 would mean nearest of all)."""

    cutout: float = 0.0
    """Probability of holes: the mean colour in composite and background alike, and so no object in
    the mask. The depth stays: it is the scene's, and can be told from around the hole."""

    cutout_holes: int = 1
    """Up to how many holes."""

    cutout_size: float = 0.125
    """Share of the side up to which a hole is high and wide."""

    brightness: float = 0.0
    """Colours are multiplied by 1 - this to 1 + this."""

    brightness_chance: float = 1.0
    """Probability of it."""

    contrast: float = 0.0
    """Distances from the composite's mean grey are multiplied by 1 - this to 1 + this."""

    contrast_chance: float = 1.0
    """Probability of it."""

    saturation: float = 0.0
    """Distances from each pixel's grey are multiplied by 1 - this to 1 + this."""

    saturation_chance: float = 1.0
    """Probability of it."""

    hue: float = 0.0
    """Share of the colour circle by which hues are turned, either way, at constant luma (a rotation
    in YIQ): one matrix with the four others, and another operation than `hsv_hue`."""

    hue_chance: float = 1.0
    """Probability of it."""

    shift: float = 0.0
    """Share of the full range that is added to or taken from all channels."""

    shift_chance: float = 1.0
    """Probability of it."""

    hsv_hue: float = 0.0
    """Share of the circle by which HSV's hue is turned, either way."""

    hsv_saturation: float = 0.0
    """Added to or taken from HSV's saturation, of 1."""

    hsv_value: float = 0.0
    """Added to or taken from HSV's value, of 1."""

    hsv_chance: float = 1.0
    """Probability of the three together."""

    blur: float = 0.0
    """Standard deviation of a Gaussian blur in pixels, at most."""

    blur_chance: float = 1.0
    """Probability of it."""

    noise: float = 0.0
    """Standard deviation of Gaussian noise per pixel and channel, as a share of the full range, at
    most."""

    noise_chance: float = 1.0
    """Probability of it."""

    independent: bool = False
    """Blur, colours and noise of the background are drawn apart from the composite's, so that the
    difference between them no longer tells the object alone."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_chance") or field.name in _CHANCES:
                _check(field.name, value, 0, 1, "a probability")
            elif field.name in _BOUNDS:
                _check(field.name, value, *_BOUNDS[field.name])
        if self.scale_min > self.scale_max:
            msg = f"scale_min is {self.scale_min}, more than scale_max, {self.scale_max}"
            raise ValueError(msg)
        if self.fill not in FILLS:
            msg = f"fill is {self.fill!r}; it must be one of {', '.join(FILLS)}"
            raise ValueError(msg)
        if self.cutout_holes not in range(1, _MAX_HOLES + 1):
            msg = f"cutout_holes is {self.cutout_holes}; it must be 1 to {_MAX_HOLES}"
            raise ValueError(msg)

    @property
    def warps(self) -> bool:
        """Whether pixels move to where none was, and have to be interpolated."""
        return bool(
            (self.rotation and self.rotation_chance)
            or (self._rescales and self.scale_chance)
            or (self.translate and self.translate_chance)
        )

    @property
    def recolours(self) -> bool:
        """Whether colours change, other than by blur."""
        return self.mixes_colours or self.changes_hsv or self.adds_noise

    @property
    def mixes_colours(self) -> bool:
        """Whether a colour matrix is drawn."""
        return any(
            getattr(self, name) and getattr(self, f"{name}_chance")
            for name in ("brightness", "contrast", "saturation", "hue", "shift")
        )

    @property
    def changes_hsv(self) -> bool:
        """Whether something is added in HSV."""
        return bool((self.hsv_hue or self.hsv_saturation or self.hsv_value) and self.hsv_chance)

    @property
    def adds_noise(self) -> bool:
        """Whether noise is added."""
        return bool(self.noise and self.noise_chance)

    @property
    def blurs(self) -> bool:
        """Whether anything is blurred."""
        return bool(self.blur and self.blur_chance)

    @property
    def cuts(self) -> bool:
        """Whether holes are cut."""
        return bool(self.cutout and self.cutout_size)

    @property
    def only_flips(self) -> bool:
        """Whether pixels stay what they were: no interpolation, nothing rounded."""
        return not (self.warps or self.recolours or self.blurs or self.cuts)

    @property
    def _rescales(self) -> bool:
        return (self.scale_min, self.scale_max, self.aspect) != (1, 1, 1)


def _check(name: str, value: float, low: float, high: float, meaning: str) -> None:
    if not (isinstance(value, int | float) and math.isfinite(value) and low <= value <= high):
        msg = f"{name} is {value}; it is {meaning}, {low:g} to {high:g}"
        raise ValueError(msg)
