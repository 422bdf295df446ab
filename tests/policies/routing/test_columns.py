"""Over very many targets the rule works on arrays; it finds what the loop over values finds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing import Decision, Hopeless, NoTarget, Request, RoutingTable, Target, Weights
from policies.routing.columns import Columns
from policies.routing.reliability import Reliability
from policies.routing.table import LOOP
from policies.routing.types import OBJECTIVES, Load
from policies.routing.utility import SHOWN, WEIGHTS, choose
from tests.policies.routing.strategies import NOW, loads, requests, targets, usable_targets

REFUSING = {
    objective: Weights(WEIGHTS[objective].budget, refuse_at=0.5) for objective in OBJECTIVES
}


def both(found: Sequence[Target]) -> tuple[RoutingTable, RoutingTable]:
    """Return a table that is looped over, and one whose arrays are used."""
    looped, arrays = RoutingTable(found), RoutingTable(found)
    looped.columns = None
    arrays.columns = Columns(arrays.targets)
    return looped, arrays


@settings(max_examples=300, deadline=None)
@given(requests, targets(max_size=12), st.booleans())
def test_arrays_and_loop_decide_alike(request: Request, found: list[Target], refuses: bool) -> None:
    looped, arrays = both(found)
    weights = REFUSING if refuses else WEIGHTS
    expected, outcome = choose(request, looped, NOW, weights), choose(request, arrays, NOW, weights)
    assert type(outcome) is type(expected)
    match expected, outcome:
        case Decision() as one, Decision() as other:
            if one.target != other.target:  # equal but for the last digits of a sum
                assert one.usd == pytest.approx(other.usd)
                assert one.expected_s == pytest.approx(other.expected_s)
            else:
                assert one.reason == other.reason
                assert one.late == pytest.approx(other.late)
                assert one.usd == pytest.approx(other.usd)
                assert one.expected_s == pytest.approx(other.expected_s)
                assert (one.spent is None) == (other.spent is None)
                assert one.spent is None or one.spent == pytest.approx(other.spent)
        case Hopeless() as one, Hopeless() as other:
            assert one.late == pytest.approx(other.late)
            assert one.retry_after_s == pytest.approx(other.retry_after_s)
        case NoTarget() as one, NoTarget() as other:
            assert one == other
        case _:
            pytest.fail("no such outcome")


@settings(max_examples=100, deadline=None)
@given(requests, usable_targets(min_size=2, max_size=12))
def test_what_is_shown_of_the_best_is_what_the_loop_found_of_them(
    request: Request, found: list[Target]
) -> None:
    looped, arrays = both(found)
    expected = {v.target: v for v in choose(request, looped, NOW).verdicts}
    shown = choose(request, arrays, NOW).verdicts
    if isinstance(choose(request, arrays, NOW), Decision) and len(shown) < len(found):
        assert len(shown) <= SHOWN
    for verdict in shown:
        other = expected[verdict.target]
        assert verdict.ruled_out == other.ruled_out
        assert verdict.expected_s == pytest.approx(other.expected_s)
        assert verdict.late == pytest.approx(other.late)
        assert verdict.usd == pytest.approx(other.usd)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 59), requests, loads, st.booleans()), max_size=40), requests
)
def test_arrays_follow_every_event_of_a_table_that_grows(
    events: list[tuple[int, Request, Load, bool]], request: Request
) -> None:
    table = RoutingTable(Target(f"t{i}", "edge", "plant-a", service_s=0.1) for i in range(30))
    assert table.columns is None
    for i in range(30, 60):
        table.add(Target(f"t{i}", "edge", "plant-b", service_s=0.2))
    assert table.columns is not None
    now = NOW
    for which, sent_request, load, is_answered in events:
        now += 0.01
        sent = table.sent(f"t{which}", sent_request, now)
        if is_answered:
            table.answered(sent, now + 0.1, load, now + 0.1)
        table.heard(f"t{59 - which}", load, now)
        table.change(f"t{which}", is_up=is_answered)
    fresh = RoutingTable(table.targets)
    open_request = request._replace(objective="latency")
    by_events, anew = choose(open_request, table, now), choose(open_request, fresh, now)
    assert type(by_events) is type(anew)
    if isinstance(by_events, Decision) and isinstance(anew, Decision):
        assert by_events.target == anew.target


@settings(max_examples=30, deadline=None)
@given(usable_targets(min_size=2, max_size=12), st.lists(st.tuples(st.floats(0, 1), st.booleans())))
def test_probabilities_are_made_true_in_the_same_way(
    found: list[Target], seen: list[tuple[float, bool]]
) -> None:
    learned = Reliability()
    for share, is_late in seen:
        learned.saw(share, is_late=is_late)
    looped, arrays = both(found)
    for table in (looped, arrays):
        table._reliability = (learned,) * 3
    request = Request(slack_s=0.75)
    expected = {v.target: v.late for v in choose(request, looped, NOW).verdicts}
    for verdict in choose(request, arrays, NOW).verdicts:
        assert verdict.late == pytest.approx(expected[verdict.target])


def test_a_table_uses_arrays_when_it_has_become_large() -> None:
    table = RoutingTable(Target(f"t{i}", "edge", "s") for i in range(LOOP))
    assert table.columns is None
    table.add(Target("one more", "edge", "s"))
    assert table.columns is not None
    assert table.columns.count == LOOP + 1
