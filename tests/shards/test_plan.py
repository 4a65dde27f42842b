from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.error import ShardError
from shards.plan import Plan, make_plan
from shards.triplet import Triplet


def triplets(backgrounds: int, foregrounds: int, positions: int = 3) -> list[Triplet]:
    return [
        Triplet(f"bg{b}_fg{f}_{p}", 0, 0, 0, f"bg{b}", f"fg{f}", mirrored=False)
        for b in range(backgrounds)
        for f in range(foregrounds)
        for p in range(positions)
    ]


def plan(found: list[Triplet], rule: str = "foreground", **options: float) -> Plan:
    settings = {"val": 0.1, "seed": 0, "samples_per_shard": 16, "statistics_samples": 10} | options
    return make_plan(found, rule=rule, **settings)  # type: ignore[arg-type]


def by_split(made: Plan) -> dict[str, list[Triplet]]:
    found: dict[str, list[Triplet]] = {"train": [], "val": [], "mixed": []}
    for shard in made.shards:
        found[shard.split].extend(shard.triplets)
    return found


@given(st.permutations(triplets(3, 5, 1)), st.integers(0, 2**64 - 1))
def test_the_order_of_the_sources_changes_nothing(shuffled: list[Triplet], seed: int) -> None:
    assert plan(shuffled, seed=seed) == plan(triplets(3, 5, 1), seed=seed)


@pytest.mark.parametrize(
    ("rule", "sees"), [("foreground", "foreground"), ("background", "background")]
)
def test_what_is_held_out_is_never_trained_on(rule: str, sees: str) -> None:
    split = by_split(plan(triplets(10, 20), rule, val=0.2))
    trained = {getattr(triplet, sees) for triplet in split["train"]}
    held_out = {getattr(triplet, sees) for triplet in split["val"]}
    assert trained.isdisjoint(held_out)
    assert len(held_out) == round(0.2 * len(trained | held_out))
    assert not split["mixed"]


def test_both_keeps_the_pairs_that_belong_to_neither_apart() -> None:
    split = by_split(plan(triplets(10, 20), "both", val=0.2))
    for sees in ("foreground", "background"):
        trained = {getattr(triplet, sees) for triplet in split["train"]}
        assert trained.isdisjoint(getattr(triplet, sees) for triplet in split["val"])
    assert {name: len(found) for name, found in split.items()} == {
        "train": 8 * 16 * 3, "val": 2 * 4 * 3, "mixed": (2 * 16 + 8 * 4) * 3
    }  # fmt: skip


def test_a_random_split_takes_its_share_and_every_object_is_in_both() -> None:
    split = by_split(plan(triplets(20, 20, 10), "random"))
    assert 0.08 < len(split["val"]) / 4_000 < 0.12
    assert len({triplet.foreground for triplet in split["val"]}) == 20


@pytest.mark.parametrize(
    ("found", "asked", "applied"),
    [
        ([t._replace(foreground=None) for t in triplets(10, 20)], "foreground", "background"),
        ([t._replace(foreground=None) for t in triplets(10, 20)], "both", "background"),
        ([t._replace(background=None) for t in triplets(10, 20)], "both", "foreground"),
        (
            [t._replace(background=None, foreground=None) for t in triplets(10, 20)],
            "foreground",
            "random",
        ),
        (triplets(1, 1, 40), "foreground", "random"),
    ],
)
def test_a_split_that_cannot_be_made_falls_back_and_says_so(
    found: list[Triplet], asked: str, applied: str
) -> None:
    made = plan(found, asked)
    assert made.split["rule"] == applied
    assert f"asked for {asked}" in made.split["note"]
    assert by_split(made)["val"]


def test_shards_are_equal_in_size_and_hold_each_triplet_once() -> None:
    found = triplets(10, 20)
    made = plan(found)
    assert Counter(key for shard in made.shards for key in (t.key for t in shard.triplets)) == (
        Counter(triplet.key for triplet in found)
    )
    for split in ("train", "val"):
        *full, last = [len(shard.triplets) for shard in made.shards if shard.split == split]
        assert set(full) <= {16}
        assert 0 < last <= 16
    assert sum(len(shard.counted) for shard in made.shards) == 10


def test_what_enters_the_statistics_is_spread_over_all_shards() -> None:
    """So that no process has to decode them all."""
    made = plan(triplets(10, 20), val=0)
    counts = [len(shard.counted) for shard in made.shards]
    assert max(counts) - min(counts) <= 1
    for shard in made.shards:
        assert all(0 <= position < len(shard.triplets) for position in shard.counted)


def test_neighbours_in_a_shard_are_unrelated() -> None:
    """A global shuffle: a shard of 16 of 600 shows many backgrounds and objects."""
    first = plan(triplets(10, 20)).shards[0].triplets
    assert len({triplet.background for triplet in first}) >= 5
    assert len({triplet.foreground for triplet in first}) >= 8


def test_another_seed_gives_another_order_and_another_split() -> None:
    one, other = plan(triplets(10, 20), seed=0), plan(triplets(10, 20), seed=1)
    assert one.shards[0].triplets != other.shards[0].triplets
    assert one.split["held_out_foregrounds"] != other.split["held_out_foregrounds"]


def test_no_validation_is_a_valid_wish() -> None:
    assert {shard.split for shard in plan(triplets(4, 4), val=0).shards} == {"train"}


def test_two_triplets_of_one_name_are_refused() -> None:
    with pytest.raises(ShardError, match="two triplets are called 'bg0_fg0_"):
        plan(triplets(2, 2) + triplets(1, 1))
