import pytest
import torch

from models.listing import Row, describe, facts, gmac, list_networks
from models.registry import NETWORKS, NetworkConfig, build_network


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str], Row]:
    return {(row.name, row.width): row for row in list_networks()}


def test_there_is_a_row_for_every_network_and_width(rows: dict[tuple[str, str], Row]) -> None:
    assert list(rows) == [(name, width) for name, kind in NETWORKS.items() for width in kind.widths]


@pytest.mark.parametrize(
    ("name", "at_64", "at_224"),
    [
        ("000-mask", 0.63, 7.72),
        ("000-depth", 0.32, 3.96),
        ("000-both", 0.91, 11.13),
        ("001-unet", 2.51, 30.70),
        ("001-resnet18", 0.27, 3.27),
        ("002-dual-unet", 0.31, 3.74),
        ("003-untied", 0.87, 10.69),  # the tied one as published: its decoder runs twice
        ("004-masknet3", 0.31, 3.79),
        ("004-depthmasknet8", 0.27, 3.26),
    ],
)
def test_costs_are_those_derived_for_the_published_networks(
    name: str, at_64: float, at_224: float, rows: dict[tuple[str, str], Row]
) -> None:
    found = rows[name, ""].gmac
    assert found[64] == pytest.approx(at_64, rel=0.02)
    assert found[224] == pytest.approx(at_224, rel=0.002)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_measurement_at_every_size_gives_the_same_cost(
    name: str, rows: dict[tuple[str, str], Row]
) -> None:
    config = NetworkConfig(name=name)
    with torch.device("meta"):
        network = build_network(config)
    for size, cost in rows[name, config.width].gmac.items():
        assert cost == pytest.approx(gmac(network, size), abs=1e-4)


def test_a_cost_is_counted_as_by_hand(rows: dict[tuple[str, str], Row]) -> None:
    """MaskNet3 is all convolutions at full resolution."""
    per_pixel = 2 * 9 * 3 * 32 + 2 * 9 * 64 * 64 + 64
    assert rows["004-masknet3", ""].gmac[96] == round(96 * 96 * per_pixel / 1e9, 4)


def test_what_a_source_lists_is_told_where_it_counts_executions(
    rows: dict[tuple[str, str], Row],
) -> None:
    tied = rows["003-tied", ""]
    assert (tied.parameters, tied.listed_parameters) == (2_963_300, 4_753_252)
    assert "2,963,300*" in "\n".join(describe([tied]))
    assert describe([tied])[-1].startswith("* 003-tied: its source lists 4,753,252")
    others = [row for key, row in rows.items() if key != ("003-tied", "")]
    assert all(row.parameters == row.listed_parameters for row in others)
    assert "*" not in "\n".join(describe(others))


def test_a_size_that_is_not_allowed_has_a_dash_for_its_cost() -> None:
    row = Row(
        name="net", width="s", source="here", parameters=1, listed_parameters=1, inputs="composite",
        outputs="mask", sizes="at least 96 px", gmac={64: None, 96: 0.5, 224: 1.0},
    )  # fmt: skip
    assert describe([row])[1].split()[-3:] == ["-", "0.50", "1.00"]
    assert facts([row])[0]["gmac"] == {64: None, 96: 0.5, 224: 1.0}


def test_outputs_tell_channels_and_scales(rows: dict[tuple[str, str], Row]) -> None:
    assert rows["003-tied", ""].outputs == "mask, depth (3 channels)"
    assert rows["001-resnet18", ""].outputs == "depth at 1, 1/2, 1/4, 1/8"
    assert rows["001-unet", ""].outputs == "mask"
