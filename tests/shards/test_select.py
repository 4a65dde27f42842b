from collections import Counter
from types import SimpleNamespace

import pytest

from shards.error import ShardError
from shards.members import Member, MemberTable
from shards.select import select
from shards.triplet import Members, Triplet


def plain_member(name: str) -> Member:
    return Member(name, 1, 0, 0, 1, 0, False)


def sources(*archives: tuple[str, list[str]]) -> Members:
    return Members([
        SimpleNamespace(name=name, members=MemberTable.of(map(plain_member, names)))
        for name, names in archives
    ])  # type: ignore[list-item]  # fmt: skip


def triplets(count: int, backgrounds: int) -> list[Triplet]:
    return [Triplet(f"key{n:03d}", n, n, n, f"bg{n % backgrounds}", None, None)
            for n in range(count)]  # fmt: skip


ZIPS = sources(("part10.zip", ["x"] * 40), ("part2.zip", ["x"] * 40))


def choose(found: list[Triplet], members: Members = ZIPS, **options: object) -> list[Triplet]:
    settings = {"sets": (), "per_background": None, "limit": None, "seed": 0} | options
    return select(found, members, **settings)  # type: ignore[arg-type]


def test_nothing_asked_keeps_everything() -> None:
    assert choose(triplets(80, 4)) == triplets(80, 4)


def test_sets_are_counted_in_natural_order() -> None:
    assert {t.composite for t in choose(triplets(80, 4), sets=(1,))} == set(range(40, 80))
    assert len(choose(triplets(80, 4), sets=(1, 2))) == 80


def test_loose_files_are_sets_by_their_topmost_folder() -> None:
    members = sources((".", [f"data_{1 + n // 5}/Fg-Bg/fg-bg{n}.jpg" for n in range(10)]))
    assert [t.composite for t in choose(triplets(10, 2), members, sets=(2,))] == [5, 6, 7, 8, 9]


def test_a_set_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ShardError, match=r"no set 3; the sources hold 1: part2\.zip, 2: part10"):
        choose(triplets(80, 4), sets=(3,))


def test_per_background_and_limit_choose_fairly_and_independently_of_order() -> None:
    chosen = choose(triplets(80, 4), per_background=5)
    assert Counter(t.background for t in chosen) == {f"bg{n}": 5 for n in range(4)}
    assert set(choose(triplets(80, 4)[::-1], per_background=5)) == set(chosen)
    limited = choose(triplets(80, 4), limit=20)
    assert len(limited) == 20
    assert len({t.composite // 20 for t in limited}) == 4, "not the first ones"
    assert set(choose(triplets(80, 4), limit=10)) < set(limited)
    assert set(choose(triplets(80, 4), limit=20, seed=1)) != set(limited)
