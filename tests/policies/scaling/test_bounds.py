from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling import Bounds, Observed, left_for_cloud
from policies.scaling.bounds import GUARD_S, HOUR_S, bounded
from policies.scaling.types import REASONS


@given(
    st.lists(st.integers(0, 50), min_size=20, max_size=200),
    st.floats(5.0, GUARD_S),
    st.integers(0, 3),
    st.floats(1.0, 12.0),
)
def test_no_hour_costs_more_than_its_budget(
    wishes: list[int], step_s: float, minimum: int, average: float
) -> None:
    budget = HOUR_S * max(average, minimum)
    bounds = Bounds(minimum, 40, budget)
    spans: list[tuple[float, int]] = []
    target = minimum
    for index, wish in enumerate(wishes):
        now = index * step_s
        begin = now - HOUR_S
        extra = sum(
            max(0, each - bounds.paid) * (min(at + step_s, now) - max(at, begin))
            for at, each in spans
            if at + step_s > begin
        )
        seen = Observed(now, target=target, running=target, extra_spent=extra)
        target = bounded(wish, "load", "test", seen, bounds).target
        assert minimum <= target <= 40
        spans.append((now, target))
        end = now + step_s
        spent = sum(
            each * (min(at + step_s, end) - max(at, end - HOUR_S))
            for at, each in spans
            if at + step_s > end - HOUR_S
        )
        assert spent <= budget + 1e-6


def test_a_budget_lets_a_burst_have_what_calm_minutes_saved() -> None:
    bounds = Bounds(1, 40, 4 * HOUR_S)
    seen = Observed(0.0, target=1, running=1)
    assert bounded(30, "burst", "test", seen, bounds).target == 30
    late = Observed(0.0, target=1, running=1, extra_spent=3 * HOUR_S - 10 * GUARD_S)
    decision = bounded(30, "burst", "test", late, bounds)
    assert (decision.target, decision.wanted, decision.reason) == (11, 30, "budget")


def test_a_spent_budget_leaves_the_replica_that_was_woken() -> None:
    bounds = Bounds(0, 40, HOUR_S)
    seen = Observed(0.0, extra_spent=HOUR_S)
    assert bounded(1, "wake", "test", seen, bounds).target == 1
    assert bounded(2, "burst", "test", seen, bounds).target == 1


@given(st.integers(-5, 60), st.integers(0, 4), st.integers(0, 20), st.integers(0, 30))
def test_a_decision_is_within_the_bounds_and_says_why(
    wish: int, minimum: int, more: int, target: int
) -> None:
    bounds = Bounds(minimum, max(1, minimum + more))
    decision = bounded(wish, "load", "test", Observed(0.0, target=target), bounds)
    assert bounds.minimum <= decision.target <= bounds.maximum
    assert decision.reason in REASONS
    if wish > bounds.maximum:
        assert decision.reason == "maximum"


@pytest.mark.parametrize(
    ("minimum", "maximum", "budget"),
    [(3, 2, None), (-1, 2, None), (0, 0, None), (2, 4, 3600.0), (0, 4, 3599.0)],
)
def test_bounds_that_contradict_each_other_are_refused(
    minimum: int, maximum: int, budget: float | None
) -> None:
    with pytest.raises(ValueError, match=r"minimum"):
        Bounds(minimum, maximum, budget)


@given(st.floats(0, 100), st.lists(st.floats(0, 50), max_size=5).map(tuple))
def test_edge_nodes_take_their_share_first(work: float, capacity: tuple[float, ...]) -> None:
    rest = left_for_cloud(work, capacity, spare_largest=False)
    assert rest == pytest.approx(max(0.0, work - sum(capacity)))
    spared = left_for_cloud(work, capacity, spare_largest=True)
    assert rest <= spared <= work
    without = sorted(capacity)[:-1]
    assert spared == pytest.approx(left_for_cloud(work, tuple(without), spare_largest=False))
