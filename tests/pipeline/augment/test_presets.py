"""Presets, and how the command line names and changes them."""

from dataclasses import asdict, fields

import pytest

from pipeline.augment import PRESETS, AugmentConfig, read_augment

PUBLISHED = {
    "000": {},
    "001": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hsv_hue": 0.1},
    "002": {},
    "003": {"flip": 0.5, "rotation": 30, "rotation_chance": 0.5},
    "004": {
        "hsv_hue": 20 / 180, "hsv_saturation": 30 / 255, "hsv_value": 20 / 255, "hsv_chance": 0.5,
        "brightness": 0.2, "brightness_chance": 0.5, "shift": 0.2, "shift_chance": 0.5,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_references_presets_are_what_they_published_and_nothing_else(name: str) -> None:
    expected = {field.name: field.default for field in fields(AugmentConfig)}
    expected |= {"flip": 0} | PUBLISHED[name]
    assert asdict(read_augment(name)) == expected


def test_flipping_is_the_default() -> None:
    assert read_augment("flip") == AugmentConfig()
    assert read_augment("none") == AugmentConfig(flip=0)
    assert set(PRESETS) == {"none", "flip", "strong", *PUBLISHED}


def test_a_preset_is_changed_option_by_option() -> None:
    found = read_augment("003, rotation=15,cutout_holes=3,fill=edge,independent=true")
    assert asdict(found) == {
        **asdict(PRESETS["003"]),
        "rotation": 15.0, "cutout_holes": 3, "fill": "edge", "independent": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("storng", "augment is 'storng'; it must begin with a preset: none, flip, strong, 000"),
        ("rotation=5", "'rotation=5'; it must begin with a preset"),
        ("flip,rotatoin=5", "'rotatoin=5' is no option .* the nearest is rotation$"),
        ("flip,rotation", "'rotation' is no option of an augmentation; write OPTION=VALUE"),
        ("flip,rotation=far", "rotation is 'far'; it must be a number"),
        ("flip,cutout_holes=1.5", "cutout_holes is '1.5'; it must be a whole number"),
        ("flip,independent=1", "independent is '1'; it must be true or false"),
        ("flip,rotation=270", "rotation is 270.0; it is degrees, 0 to 180"),
    ],
)
def test_what_is_no_augmentation_is_refused_with_the_next_action(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_augment(text)
