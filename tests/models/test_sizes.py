import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sizes import SizeRule

RULES = st.builds(
    lambda multiple, steps: SizeRule(
        least=multiple * steps, multiple=multiple, least_alone=multiple * steps
    ),
    st.sampled_from([1, 2, 16, 32]),
    st.integers(1, 40),
)


@given(RULES, st.integers(-100, 2000))
def test_the_nearest_sizes_are_allowed_and_nothing_between_them_is(
    rule: SizeRule, size: int
) -> None:
    if rule.allows(size):
        return
    nearest = rule.nearest(size)
    assert all(rule.allows(side) for side in nearest)
    if len(nearest) == 1:
        assert size < nearest[0] == rule.least
    else:
        below, above = nearest
        assert below < size < above
        assert not any(rule.allows(side) for side in range(below + 1, above))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (SizeRule(least=16, least_alone=32), "at least 16 px"),
        (SizeRule(least=32, multiple=32, least_alone=64), "a multiple of 32 px"),
        (SizeRule(least=64, multiple=32, least_alone=64), "a multiple of 32 px and at least 64"),
    ],
)
def test_a_rule_is_told_in_a_few_words(rule: SizeRule, text: str) -> None:
    assert rule.text() == text
