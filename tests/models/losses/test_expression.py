import re
from pathlib import Path

import pytest

from models.losses import TERMS, LossConfig, parse_loss


def read(expression: str) -> list[tuple[float, str]]:
    return [(weight, str(term)) for weight, term in parse_loss(expression)]


def test_expressions_are_read_with_and_without_weights() -> None:
    assert read("0.85 ssim + .15*l1+bce") == [(0.85, "ssim"), (0.15, "l1"), (1.0, "bce")]
    assert read("2bce+1e-3 dice") == [(2.0, "bce"), (0.001, "dice")]
    assert read("1e+1 bce+2E0*l1") == [(10.0, "bce"), (2.0, "l1")]
    assert read("bce + 0 dice") == [(1.0, "bce"), (0.0, "dice")]


def test_options_are_read_and_those_not_told_keep_their_defaults() -> None:
    (_, box), (weight, rmse) = parse_loss("ssim(window=3, kernel=box) + 2 rmse ( eps = 1e-4 )")
    assert dict(box.options) == {"window": 3, "kernel": "box"}
    assert (weight, dict(rmse.options)) == (2.0, {"eps": 1e-4})
    assert dict(parse_loss("ssim(kernel=box)")[0][1].options) == {"window": 11, "kernel": "box"}
    assert dict(parse_loss("rmse(eps=1e+0)")[0][1].options) == {"eps": 1.0}
    assert parse_loss("ssim(window=11)") == parse_loss("ssim") == parse_loss("ssim()")


def test_one_term_may_come_with_different_options() -> None:
    assert read("ssim(window=3) + ssim") == [(1.0, "ssim(window=3)"), (1.0, "ssim")]


@pytest.mark.parametrize("name", TERMS)
def test_every_term_is_read_by_its_name_and_as_it_writes_itself(name: str) -> None:
    ((_, term),) = parse_loss(name)
    assert str(term) == name
    told = ", ".join(f"{key}={value}" for key, value in term.options)
    assert parse_loss(f"{name}({told})") == ((1.0, term),)


def test_the_documentation_has_every_term_with_its_options() -> None:
    text = (Path(__file__).parents[3] / "docs" / "losses.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*\| *(.*?) *\|$", text, re.MULTILINE)
    told = {name: re.findall(r"`(\w+)=([^`]+)`", options) for name, options in rows}
    assert told == {
        name: [
            (key, f"{value:.6g}" if isinstance(value, float) else str(value))
            for key, value in kind.options.items()
        ]
        for name, kind in TERMS.items()
    }


@pytest.mark.parametrize("name", TERMS)
def test_every_option_refuses_a_value_out_of_its_range_with_its_rule(name: str) -> None:
    for option in TERMS[name].options:
        for value in ("", "cat", "-1", "nan", "inf", "2", "1e9"):
            text = f"{name}({option}={value})"
            with pytest.raises(ValueError, match=re.escape(f"cannot read '{text}': {option} is")):
                parse_loss(text)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("bce + huber", f"unknown term 'huber'; known: {', '.join(TERMS)}"),
        ("DSSIM", "unknown term 'DSSIM'; known"),
        ("0.5 ms-ssim + l1", "unknown term 'ms-ssim'; known"),
        ("0 bce", "has no weight above 0, so nothing would be learned"),
        ("0 bce + 0.0 dice", "has no weight above 0"),
        ("1e400 bce", "has the weight 1e400, which is no finite number"),
        ("bce + bce", "names a term twice, 'bce'; give it one weight"),
        ("ssim + l1 + ssim(window=11)", "names a term twice, 'ssim'"),
        ("bce - dice", "cannot read 'bce - dice'"),
        ("", "cannot read ''"),
        ("bce +", "cannot read ''"),
        ("-1 bce", "cannot read '-1 bce'"),
        ("nan bce", "cannot read 'nan bce'"),
        ("bce dice", "cannot read 'bce dice'"),
        ("l1 + 0.5 ssim(window=3", "cannot read '0.5 ssim(window=3'"),
        ("ssim(window=3))", "cannot read 'ssim(window=3))'"),
        ("ssim[window=3]", "cannot read 'ssim[window=3]'"),
        (
            "l1 + 0.85 ssim(window=4, kernel=box)",
            "cannot read '0.85 ssim(window=4, kernel=box)': "
            "window is '4', not an odd number of pixels from 3 up",
        ),
        ("ssim(window=3+3) + l1", "cannot read 'ssim(window=3+3)': window is '3+3', not an odd"),
        ("ssim(kernel=round)", "kernel is 'round', not one of gaussian, box"),
        ("ssim(box)", "'box' is no option; options are written NAME=VALUE"),
        ("ssim(window=3,)", "'' is no option"),
        ("ssim(windw=3)", "ssim has no option 'windw'; its options: window, kernel"),
        ("ssim(window=3, window=5)", "window is given twice"),
        ("l1(eps=1)", "l1 has no option 'eps'; its options: none"),
        ("rmse(eps=0)", "eps is '0', not a number from 1e-8 to 1"),
        ("silog(invariance=1.5)", "invariance is '1.5', not a number from 0 to 1"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_reason(expression: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as mask:
        LossConfig(mask=expression)
    with pytest.raises(ValueError, match=re.escape(message)):
        LossConfig(depth=expression)
    assert repr(expression) in str(mask.value)
    assert "\n" not in str(mask.value)


@pytest.mark.parametrize(
    ("expression", "size", "message"),
    [
        ("ssim", 10, "the term ssim has a window of 11 px, but the images have 10 px; the largest"),
        ("ssim", 10, "largest window that fits is 9 px: write ssim(window=9)"),
        ("dssim(window=5)", 4, "largest window that fits is 3 px: write dssim(window=3)"),
        ("ssim(window=3)", 2, "no window fits: use larger images or another term"),
        ("ms_ssim", 160, "window of 11 px on images halved 4 times, but the images have 160 px"),
        ("ms_ssim", 160, "largest window that fits is 9 px: write ms_ssim(window=9)"),
        ("ms_ssim", 96, "largest window that fits is 5 px"),
        ("ms_ssim", 64, "largest window that fits is 3 px"),
        ("ms_ssim(window=3)", 32, "no window fits"),
        ("gradient", 1, "the term gradient needs images of 2 px, but they have 1 px"),
    ],
)
def test_a_stage_too_small_for_a_term_is_refused_by_name(
    expression: str, size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        LossConfig(mask=expression).check_size(size)
    LossConfig(mask=expression, depth="l1").check_size(161)


@pytest.mark.parametrize("size", [33, 64, 65, 96, 161, 224])
def test_the_largest_window_that_is_named_is_the_largest_that_fits(size: int) -> None:
    with pytest.raises(ValueError, match="largest window") as refused:
        LossConfig(depth="ms_ssim(window=51)").check_size(size)
    named = int(re.findall(r"fits is (\d+) px", str(refused.value))[0])
    LossConfig(mask="l1", depth=f"ms_ssim(window={named})").check_size(size)
    with pytest.raises(ValueError, match=f"fits is {named} px"):
        LossConfig(mask="l1", depth=f"ms_ssim(window={named + 2})").check_size(size)
    assert 16 * (named - 1) < size <= 16 * (named + 1)


def test_the_smallest_scale_of_a_network_counts() -> None:
    config = LossConfig(depth="ssim(window=9)")
    config.check_size(64)
    config.check_size(72, smallest_scale=8)
    told = "8 px at the network's smallest scale, 1/8 of 64; the largest window that fits is 7 px"
    with pytest.raises(ValueError, match=f"the images have {told}"):
        config.check_size(64, smallest_scale=8)
    LossConfig(depth="l1").check_size(4)


def test_a_window_counts_only_for_a_task_that_is_predicted() -> None:
    config = LossConfig(mask="ssim", depth="l1")
    config.check_size(8, tasks=("depth",))
    with pytest.raises(ValueError, match="window"):
        config.check_size(8, tasks=("mask",))
