"""Named augmentations: our own, and those of the five reference systems as they published them.

What the references got wrong is left out: geometry that moved the composite and not its targets
(003), and colours drawn apart for composite and background (004; `independent` brings it back).
The probabilities of 004 are its library's default, since it states none.
"""

from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from pipeline.augment.config import AugmentConfig

_NONE = AugmentConfig(flip=0)

PRESETS: dict[str, AugmentConfig] = {
    "none": _NONE,
    "flip": AugmentConfig(),
    "strong": AugmentConfig(
        rotation=20, rotation_chance=0.5,
        scale_min=0.8, scale_max=1.5, aspect=1.1, scale_chance=0.7,
        translate=0.1, translate_chance=0.5,
        cutout=0.3, cutout_holes=2, cutout_size=0.25,
        brightness=0.3, brightness_chance=0.8,
        contrast=0.3, contrast_chance=0.8,
        saturation=0.4, saturation_chance=0.8,
        hue=0.05, hue_chance=0.5,
        blur=1.0, blur_chance=0.2,
        noise=0.04, noise_chance=0.3,
    ),
    "000": _NONE,
    "001": replace(_NONE, brightness=0.2, contrast=0.2, saturation=0.2, hsv_hue=0.1),
    "002": _NONE,
    "003": AugmentConfig(rotation=30, rotation_chance=0.5),
    "004": replace(
        _NONE,
        hsv_hue=20 / 180, hsv_saturation=30 / 255, hsv_value=20 / 255, hsv_chance=0.5,
        brightness=0.2, brightness_chance=0.5,  # what its library calls contrast
        shift=0.2, shift_chance=0.5,  # and this brightness
    ),
}  # fmt: skip


def read_augment(text: str) -> AugmentConfig:
    """A preset, changed or not: `strong`, or `003,rotation=15,flip=0`.

    Raises:
        ValueError: There is no such preset or option, or a value is out of range.
    """
    name, *changes = (part.strip() for part in text.split(","))
    if name not in PRESETS:
        msg = f"augment is {name!r}; it must begin with a preset: {', '.join(PRESETS)}"
        raise ValueError(msg)
    return replace(PRESETS[name], **dict(map(_change, changes)))


def _change(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    kinds = {field.name: field.type for field in fields(AugmentConfig)}
    if not sign or name not in kinds:
        near = get_close_matches(name, kinds, 1, 0.0)[0]
        msg = f"{text!r} is no option of an augmentation; write OPTION=VALUE; the nearest is {near}"
        raise ValueError(msg)
    kind = kinds[name]
    try:
        return name, _TRUTH[value] if kind is bool else kind(value)  # type: ignore[operator]
    except (ValueError, KeyError):
        told = {float: "a number", int: "a whole number", bool: "true or false"}[kind]  # type: ignore[index]
        msg = f"{name} is {value!r}; it must be {told}"
        raise ValueError(msg) from None


_TRUTH = {"true": True, "false": False}
