import pytest

from pipeline.augment import AugmentConfig


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": 1.5}, r"flip is 1\.5; it is a probability, 0 to 1"),
        ({"rotation_chance": -0.1}, r"rotation_chance is -0\.1; it is a probability"),
        ({"rotation": 181}, "rotation is 181; it is degrees, 0 to 180"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"scale_min": 1.2, "scale_max": 1.1}, r"scale_min is 1\.2, more than scale_max, 1\.1"),
        ({"scale_min": 0.0}, r"scale_min is 0\.0; it is a factor, 0\.1 to 10"),
        ({"fill": "pink"}, "fill is 'pink'; it must be one of reflect, edge, zero"),
        ({"cutout_holes": 0}, "cutout_holes is 0; it must be 1 to 64"),
        ({"hue": "red"}, "hue is red; it is a share of the circle"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"rotation": 5}, {"scale_max": 1.1}, {"scale_min": 0.9}, {"aspect": 1.1},
        {"translate": 0.1}, {"cutout": 0.1}, {"brightness": 0.1}, {"contrast": 0.1},
        {"saturation": 0.1}, {"hue": 0.1}, {"shift": 0.1}, {"hsv_hue": 0.1},
        {"hsv_saturation": 0.1}, {"hsv_value": 0.1}, {"blur": 0.1}, {"noise": 0.1},
    ],
)  # fmt: skip
def test_the_exact_path_is_left_for_as_little_as_one_operation(options: dict[str, float]) -> None:
    assert AugmentConfig(flip=0.5, flip_vertical=0.5).only_flips
    assert not AugmentConfig(**options).only_flips
    family = next(iter(options)).split("_")[0]
    if family not in {"cutout", "aspect"}:
        assert AugmentConfig(**options, **{f"{family}_chance": 0}).only_flips  # type: ignore[arg-type]
