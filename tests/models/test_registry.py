from dataclasses import asdict

import pytest
import torch

from models.prediction import Prediction
from models.registry import (
    DEPTH,
    MASK,
    NETWORKS,
    NetworkConfig,
    build_network,
    check_size,
    needs_background,
    size_rule,
)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_answers_at_its_smallest_size_in_every_width(name: str) -> None:
    kind = NETWORKS[name]
    for width in kind.widths:
        config = NetworkConfig(name=name, width=width)
        side = size_rule(config).least
        images = torch.rand(2, 3, side, side)
        check_size(config, side)
        prediction = build_network(config)(images if needs_background(config) else None, images)
        assert isinstance(prediction, Prediction)
        for task, channels, logits in (
            (MASK, 1, prediction.mask_logits),
            (DEPTH, kind.depth_channels, prediction.depth_logits),
        ):
            assert (logits is not None) == (task in kind.tasks)
            assert logits is None or logits.shape == (2, channels, side, side)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_takes_the_sizes_its_rule_allows_and_no_other(name: str) -> None:
    """What is allowed comes back at its own size; the rest fails, or would come back at another.

    Of the bare network: `build_network` adds the refusal.
    """
    config = NetworkConfig(name=name)
    rule = size_rule(config)
    with torch.device("meta"):
        network = NETWORKS[name].build(config.width).eval()
    for side in sorted({1, rule.least - 1, rule.least, rule.least + 1, 33, 48, 63, 64, 101} - {0}):
        images = torch.empty(1, 3, side, side, device="meta")
        try:
            mask, depth, _ = network(images, images)
        except RuntimeError:
            assert not rule.allows(side)
        else:
            found = {tuple(part.shape[2:]) for part in (mask, depth) if part is not None}
            assert (found == {(side, side)}) == rule.allows(side)


@pytest.mark.parametrize("name", NETWORKS)
def test_images_that_break_the_rule_are_refused_by_the_network_itself(name: str) -> None:
    """Also by those that would answer: `unet` at 1 px with 2, `001-resnet18` at 63 px with 64."""
    config = NetworkConfig(name=name)
    rule = size_rule(config)
    good = rule.nearest(1)[0]
    with torch.device("meta"):
        network = build_network(config).eval()
    for height, width in ((1, 1), (63, 63), (good, good + 1), (good - 1, good)):
        images = torch.empty(1, 3, height, width, device="meta")
        if rule.allows(height) and rule.allows(width):
            network(background=images, composite=images)
            continue
        told = f"'{name}' takes images whose side is {rule.text()}"
        with pytest.raises(ValueError, match=told):
            network(images, images)
        with pytest.raises(ValueError, match=told):
            network(background=images, composite=images)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_single_image_trains_from_the_size_that_the_rule_says(name: str) -> None:
    config = NetworkConfig(name=name)
    rule = size_rule(config)
    network = build_network(config).train()
    images = torch.rand(1, 3, rule.least_alone, rule.least_alone)
    network(images, images)
    check_size(config, rule.least_alone, batch_size=1)
    below = rule.least_alone - rule.multiple
    if rule.allows(below):
        images = torch.rand(1, 3, below, below)
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            network(images, images)
        check_size(config, below)
        check_size(config, below, batch_size=2)
        with pytest.raises(ValueError, match=f"on batches of one image.*{rule.least_alone} px, or"):
            check_size(config, below, batch_size=1)


def test_an_unknown_network_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no network is called 'vit'; there are: unet, 000-mask,"):
        NetworkConfig(name="vit")


def test_an_unknown_width_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'unet' has no width 'xl'; it has: s, m, l"):
        NetworkConfig(width="xl")


def test_a_network_without_widths_is_named_alone() -> None:
    assert NetworkConfig(name="004-masknet3").width == ""
    with pytest.raises(ValueError, match="'004-masknet3' has no width 's'; leave it out"):
        NetworkConfig(name="004-masknet3", width="s")


def test_the_default_is_written_out_where_it_is_kept() -> None:
    """Checkpoints say which width they hold, as they always did."""
    assert asdict(NetworkConfig()) == {"name": "unet", "width": "s"}
    assert NetworkConfig(width="") == NetworkConfig(width="s")


@pytest.mark.parametrize("size", [64, 96, 224])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_stages_of_the_house_recipe_fit_every_network(name: str, size: int) -> None:
    check_size(NetworkConfig(name=name), size, batch_size=1)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("unet", 100, "'unet' takes images whose side is a multiple of 32 px, not 100; use 96 or"),
        ("unet", 20, "not 20; use 32"),
        ("unet", 0, "not 0; use 32"),
        ("unet", -32, "not -32; use 32"),
        ("000-mask", 10, "'000-mask' takes images whose side is at least 16 px, not 10; use 16"),
        ("001-resnet18", 32, "is a multiple of 32 px and at least 64, not 32; use 64"),
        ("001-resnet18", 200, "not 200; use 192 or 224"),
    ],
)
def test_a_size_that_breaks_the_rule_is_refused_with_the_nearest_ones(
    name: str, size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_size(NetworkConfig(name=name), size)
