"""A budget counts every dollar once, holds nobody up before it is spent, and turns."""

from __future__ import annotations

from calendar import timegm
from dataclasses import replace
from time import gmtime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.cost import Budget, Period, Spending, Spent
from policies.cost.budget import ACTIONS, PERIODS, window

T0 = 1_790_000_000.0  # in September 2026
HOUR_S, DAY_S = 3600.0, 86_400.0
TENANTS, MODELS = ("a", "b"), ("m", "n")
times = st.floats(0.0, 4e9)
budgets = st.lists(
    st.builds(
        Budget,
        st.sampled_from(("one", "two", "three")),
        st.integers(1, 12),
        st.sampled_from(PERIODS),
        st.sampled_from(ACTIONS),
        st.sampled_from((None, *TENANTS)),
        st.sampled_from((None, *MODELS)),
    ),
    unique_by=lambda budget: budget.name,
    max_size=3,
)
# Whole dollars, so that sums are exact: which gateway, whose request, what it cost, the time since.
charges = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(TENANTS),
        st.sampled_from(MODELS),
        st.integers(0, 4),
        st.sampled_from((0.0, 600.0, HOUR_S, DAY_S, 20 * DAY_S)),
    ),
    max_size=20,
)


def begins(period: Period, now: float) -> int:
    """A slow way to the begin of a window."""
    at = gmtime(now)
    day, hour = (at.tm_mday, at.tm_hour)
    if period != "hour":
        hour = 0
    if period == "month":
        day = 1
    return timegm((at.tm_year, at.tm_mon, day, hour, 0, 0))


@given(st.sampled_from(PERIODS), times)
def test_windows_follow_each_other_without_a_gap(period: Period, now: float) -> None:
    begin, end = window(period, now)
    assert begin <= now < end
    assert begin == begins(period, now)
    assert window(period, end)[0] == end


@given(budgets, charges)
def test_a_budget_is_exceeded_when_what_all_gateways_spent_in_its_window_reaches_it(
    chosen: list[Budget], spent: list[tuple[int, str, str, int, float]]
) -> None:
    gateways = [Spending(chosen), Spending(chosen)]
    past: list[tuple[float, str, str, int]] = []
    now = T0
    for which, tenant, model, usd, later_s in spent:
        now += later_s
        gateways[which].charge(tenant, model, usd, now)
        past.append((now, tenant, model, usd))
        for _ in range(2):  # to be told twice is no news
            gateways[0].learn([gateways[1].own(now)], now)
            gateways[1].learn([gateways[0].own(now)], now)
        for gateway in gateways:
            for budget in chosen:
                begin = begins(budget.period, now)
                true_usd = sum(
                    amount for at, who, what, amount in past
                    if at >= begin and budget.covers(who, what)
                )  # fmt: skip
                total = {t.budget.name: t.spent_usd for t in gateway.totals(now)}[budget.name]
                assert total == true_usd
                exceeded = Spending([budget])
                exceeded.learn([{budget.name: Spent(budget.period, begin, total)}], now)
                asked = exceeded.exceeded(tenant, model, now)
                is_meant = budget.covers(tenant, model) and true_usd >= budget.usd
                assert set(asked) == ({budget.action} if is_meant else set())


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_budgets_that_refuse_the_one_that_turns_last_is_named(order: int) -> None:
    refusing = [Budget("h", 1.0, "hour", "refuse"), Budget("d", 1.0, "day", "refuse")][::order]
    spending = Spending([*refusing, Budget("m", 1.0, "month")])
    spending.charge("a", "m", 2.0, T0)
    found = spending.exceeded("a", "m", T0)
    assert found["refuse"].budget.name == "d"
    assert found["refuse"].turns_in_s == window("day", T0)[1] - T0
    assert found["alert"].spent_usd == 2.0
    assert set(spending.exceeded("a", "m", T0 + DAY_S)) == {"alert"}


def test_what_was_spent_before_a_restart_counts_and_is_not_reported_again() -> None:
    budget = Budget("all", 10.0, "day")
    before = Spending([budget])
    before.charge("a", "m", 5.0, T0)
    assert [reached.share for reached in before.reached(T0)] == [0.5]
    before.charge("a", "m", 4.0, T0)
    assert [reached.share for reached in before.reached(T0)] == [0.8]
    after = Spending([budget])
    after.restore(before.own(T0), T0 + 60.0)
    assert after.reached(T0 + 60.0) == []
    after.charge("a", "m", 1.0, T0 + 60.0)
    assert [reached.share for reached in after.reached(T0 + 60.0)] == [1.0]
    assert after.reached(T0 + 61.0) == []


def test_what_is_of_another_window_or_another_period_is_not_taken_up() -> None:
    spending = Spending([Budget("all", 10.0, "day")])
    begin, _ = window("day", T0)
    for said in (Spent("day", begin - DAY_S, 5.0), Spent("month", begin, 5.0)):
        spending.restore({"all": said}, T0)
        spending.learn([{"all": said}, {}], T0)
    assert spending.own(T0) == {"all": Spent("day", begin, 0.0)}
    assert spending.totals(T0)[0].spent_usd == 0.0


def test_shares_are_reported_anew_when_the_window_has_turned() -> None:
    spending = Spending([Budget("all", 1.0, "hour")])
    for hour in (0.0, HOUR_S):
        spending.charge("a", "m", 1.0, T0 + hour)
        assert [r.share for r in spending.reached(T0 + hour)] == [1.0]


def test_what_is_told_late_counts_in_the_window_that_has_begun_and_empties_none() -> None:
    _, turn = window("hour", T0)
    spending = Spending([Budget("all", 10.0, "hour")])
    spending.charge("a", "m", 1.0, turn)
    spending.charge("a", "m", 2.0, turn - 0.5)
    assert spending.own(turn)["all"] == Spent("hour", turn, 3.0)
    # A clock that was an hour ahead, and was put right.
    assert spending.own(turn - HOUR_S)["all"].usd == 0.0


def test_two_budgets_of_one_name_cannot_be_told_apart() -> None:
    budget = Budget("all", 1.0, "hour")
    with pytest.raises(ValueError, match="two budgets 'all'"):
        Spending([budget, replace(budget, usd=2.0)])
    assert not Spending([])
    assert Spending([budget])
