"""Which tier, how much of it, and why not another: worked out by hand."""

import pytest

from pipeline.cache.memory_plan import CHOICES, MemoryPlan, Need, Room, plan_cache

GB = 10**9
H200 = Room(device=113 * GB, host=100 * GB, file=None)


def need(samples: int = 400_000, size: int = 64, passes: float = 4) -> Need:
    return Need(samples=samples, size=size, passes=passes)


@pytest.mark.parametrize(("size", "gigabytes"), [(64, 8.192), (96, 18.432), (224, 100.352)])
def test_what_400_000_samples_need_is_what_the_design_says(size: int, gigabytes: float) -> None:
    assert need(size=size).bytes == gigabytes * GB


@pytest.mark.parametrize(
    ("room", "tier", "cached"),
    [
        (H200, "device", 400_000),
        (Room(device=8 * GB, host=9 * GB, file=None), "host", 400_000),
        (Room(device=8 * GB, host=7 * GB, file=20 * GB), "file", 400_000),
        (Room(device=None, host=9 * GB, file=20 * GB), "host", 400_000),
        (Room(device=2 * GB, host=4 * GB, file=None), "host", 195_312),  # 4e9 // 20,480
        (Room(device=4 * GB, host=4 * GB, file=4 * GB), "device", 195_312),
        (Room(device=None, host=0, file=None), "off", 0),
        (Room(device=None, host=-GB, file=None), "off", 0),
        (Room(device=None, host=GB, file=None), "off", 0),  # an eighth, 3 passes of 4: 9 % saved
    ],
)
def test_auto_takes_the_first_tier_that_holds_all_else_the_one_that_holds_most(
    room: Room, tier: str, cached: int
) -> None:
    plan = plan_cache("auto", need(), room)
    assert (plan.tier, plan.num_cached) == (tier, cached)
    assert plan.bytes <= (room.of(tier) or 0 if tier != "off" else 0)


@pytest.mark.parametrize("passes", [0.3, 1, 1.05])
def test_auto_keeps_nothing_that_is_hardly_read_again(passes: float) -> None:
    assert plan_cache("auto", need(passes=passes), H200).tier == "off"
    assert plan_cache("host", need(passes=passes), H200).tier == "host"


@pytest.mark.parametrize("wish", ["device", "host", "file"])
def test_a_tier_that_is_asked_for_is_taken_as_far_as_it_goes(wish: str) -> None:
    room = Room(device=20_480, host=20_480, file=20_480)
    assert (plan_cache(wish, need(), room).tier, plan_cache(wish, need(), room).num_cached) == (
        wish, 1,
    )  # fmt: skip
    nothing = plan_cache(wish, need(), Room(device=None, host=0, file=None))
    assert nothing.tier == "off"
    assert nothing.declined


def test_off_is_off() -> None:
    assert plan_cache("off", need(), H200).tier == "off"


@pytest.mark.parametrize(
    ("cached", "passes", "saved"), [(400_000, 4, 0.75), (100_000, 4, 0.1875), (400_000, 1, 0)]
)
def test_the_effect_is_the_share_of_decoding_that_is_saved(
    cached: int, passes: float, saved: float
) -> None:
    assert need(passes=passes).saved(cached) == saved


def test_the_text_says_what_where_what_for_and_why_not_elsewhere() -> None:
    text = plan_cache("auto", need(), Room(device=4 * GB, host=12 * GB, file=None)).text()
    assert text.splitlines() == [
        "cache 64 px, 400,000 training samples: all in host memory, 8.2 GB of 12.0 GB free",
        "  effect: 4 passes decode 25% of what streaming would, and gather the rest",
        "  not device memory: 8.2 GB needed, 4.0 GB free",
    ]
    text = plan_cache("auto", need(), Room(device=None, host=4 * GB, file=None)).text()
    assert text.splitlines() == [
        "cache 64 px, 400,000 training samples: 195,312 in host memory, 4.0 GB of 4.0 GB free",
        "  effect: 4 passes decode 63% of what streaming would, and gather the rest",
        "  not device memory: there is no GPU",
        "  not a file: no --cache-dir was given",
    ]
    text = plan_cache("auto", need(passes=1), H200).text()
    assert text.splitlines() == [
        "cache 64 px, 400,000 training samples: off, every pass decodes",
        "  not cached: no sample is read again (1 passes)",
    ]


@pytest.mark.parametrize("wish", CHOICES)
def test_every_choice_has_a_plan_that_can_be_told(wish: str) -> None:
    for room in (H200, Room(device=None, host=0, file=0)):
        for passes in (0.5, 3):
            plan = plan_cache(wish, need(passes=passes), room)
            assert isinstance(plan, MemoryPlan)
            assert plan.text().startswith("cache 64 px, 400,000 training samples: ")


def test_no_samples_need_nothing() -> None:
    assert plan_cache("auto", need(samples=0), H200).tier == "off"
