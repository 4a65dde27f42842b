import pytest
import torch

from models.prediction import Prediction
from models.registry import (
    NETWORKS,
    NetworkConfig,
    build_network,
    check_size,
    needs_background,
    size_rule,
)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_answers_at_its_smallest_size_in_every_width(name: str) -> None:
    for width in NETWORKS[name].widths:
        config = NetworkConfig(name=name, width=width)
        side = size_rule(config)
        images = torch.rand(2, 3, side, side)
        check_size(config, side)
        prediction = build_network(config)(images if needs_background(config) else None, images)
        assert isinstance(prediction, Prediction)
        for logits in prediction[:2]:
            assert logits is None or logits.shape == (2, 1, side, side)


def test_an_unknown_network_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no network is called 'vit'; there are: unet"):
        NetworkConfig(name="vit")


def test_an_unknown_width_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'unet' has no width 'xl'; it has: s, m, l"):
        NetworkConfig(width="xl")


@pytest.mark.parametrize("size", [64, 96, 224])
def test_the_stages_of_the_house_recipe_fit_the_house_network(size: int) -> None:
    check_size(NetworkConfig(), size)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (100, "multiple of 32 px, not 100; use 96 or 128"),
        (20, "not 20; use 32"),
        (0, "not 0; use 32"),
        (-32, "not -32; use 32"),
    ],
)
def test_a_size_that_breaks_the_rule_is_refused_with_the_nearest_ones(
    size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_size(NetworkConfig(), size)
