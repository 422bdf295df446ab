"""A place that sleeps is behind its start; it is woken for those whom that helps."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing import (
    RULES,
    Decision,
    Hopeless,
    Load,
    NoTarget,
    Request,
    RoutingTable,
    Target,
    choose,
    decide,
)
from policies.routing.delay import wait_s
from policies.routing.filters import ruled_out
from policies.routing.table import LOOP
from policies.routing.waking import OVERDUE, WAKE_AT, StartTimes, to_wake
from tests.policies.routing.strategies import NOW, requests, seconds, targets
from tests.policies.routing.test_columns import both

EDGE = Target("edge", "edge", "plant-a", service_s=0.05)
CLOUD = Target("cloud", "cloud", "cloud", rtt_s=0.02, service_s=0.01, usd=0.5)
START_S = 8.0
SOON, PATIENT = Request(0.15), Request(30.0)


def asleep(*found: Target, start_s: float = START_S) -> RoutingTable:
    """Return a table of these, with a cloud that sleeps."""
    table = RoutingTable((*found, CLOUD))
    table.asleep("cloud", start_s, NOW)
    return table


def busy(wait_s: float) -> RoutingTable:
    """Return a table with so much work at the edge, and a cloud that sleeps."""
    table = asleep(EDGE)
    table.heard("edge", Load(ahead_s=(wait_s,) * 8, service_s=0.05, row_s=0.05), NOW)
    return table


# How long it takes.


def test_a_start_takes_what_was_set_until_one_was_measured() -> None:
    starts = StartTimes(10.0)
    assert starts.expected_s == 10.0
    starts.took(4.0)
    assert starts.expected_s == 4.0


@given(st.lists(seconds(60.0), min_size=1))
def test_the_longest_of_the_last_five_starts_counts(took: list[float]) -> None:
    starts = StartTimes(10.0)
    for each in took:
        starts.took(each)
    assert starts.expected_s == max(took[-5:])


@given(seconds(60.0), seconds(600.0), seconds(60.0))
def test_what_is_left_of_a_start_shrinks_until_it_is_overdue(
    start_s: float, passed_s: float, more_s: float
) -> None:
    starts = StartTimes(start_s)
    assert starts.left_s(0.0) == start_s
    left_s = starts.left_s(passed_s)
    assert left_s >= max(0.0, start_s - passed_s, OVERDUE * passed_s)
    # Whoever asks later is never told an earlier end.
    assert passed_s + left_s <= passed_s + more_s + starts.left_s(passed_s + more_s) + 1e-9


# What routing makes of it.


def test_who_has_no_time_goes_to_a_place_that_is_awake() -> None:
    for request in (SOON, PATIENT):
        for objective in ("latency", "balanced", "cost"):
            outcome = choose(request._replace(objective=objective), asleep(EDGE), NOW)
            assert isinstance(outcome, Decision)
            assert outcome.target == "edge"


def test_who_has_time_waits_for_the_only_place() -> None:
    outcome = choose(PATIENT, asleep(), NOW)
    assert isinstance(outcome, Decision)
    assert outcome.target == "cloud"
    assert outcome.expected_s == pytest.approx(START_S + 0.02, abs=0.02)
    assert outcome.late == 0.0


def test_who_has_time_waits_where_the_queue_is_longer_than_a_start() -> None:
    outcome = choose(PATIENT._replace(objective="latency"), busy(20.0), NOW)
    assert isinstance(outcome, Decision)
    assert outcome.target == "cloud"


def test_who_has_no_time_is_told_when_the_only_place_will_be_awake() -> None:
    outcome = choose(SOON, asleep(), NOW)
    assert isinstance(outcome, Hopeless)
    assert outcome.retry_after_s == pytest.approx(START_S - 0.13, abs=0.02)


def test_a_silent_place_is_better_than_a_start_that_is_too_late() -> None:
    silent = EDGE._replace(is_silent=True)
    many = [CLOUD._replace(name=f"c{n}", is_asleep=True) for n in range(LOOP)]
    for others in ([], many):
        table = asleep(silent, *others)
        for other in others:
            table.asleep(other.name, START_S, NOW)
        outcome = choose(SOON, table, NOW)
        assert isinstance(outcome, Decision)
        assert (outcome.target, outcome.reason) == ("edge", "last_resort")


def test_those_who_wait_for_a_start_are_ahead_of_those_who_come() -> None:
    table = asleep()
    table.change("cloud", row_s=0.5)
    waiting = [table.sent("cloud", PATIENT, NOW) for _ in range(4)]
    assert wait_s(table["cloud"], 30.0, NOW) == pytest.approx(START_S + 4 * 0.5, abs=0.02)
    table.asleep("cloud", START_S - 1.0, NOW + 1.0)  # a second later
    assert wait_s(table["cloud"], 30.0, NOW + 1.0) == pytest.approx(9.0, abs=0.02)
    for sent in waiting:
        table.ended(sent)
    table.asleep("cloud", START_S - 2.0, NOW + 2.0)
    assert wait_s(table["cloud"], 30.0, NOW + 2.0) == pytest.approx(6.0, abs=0.02)
    assert table["cloud"].errors == ()


def test_what_was_wrong_of_milliseconds_makes_no_start_longer() -> None:
    table = RoutingTable((CLOUD,))
    for _ in range(30):  # a burst: each takes far longer than was expected of it
        sent = table.sent("cloud", PATIENT, NOW)
        table.answered(sent, NOW + 2.0, Load(service_s=0.01, row_s=0.0), NOW + 2.0)
    assert table["cloud"].bias > 10.0
    table.asleep("cloud", START_S, NOW + 3.0)
    outcome = choose(PATIENT, table, NOW + 3.0)
    assert isinstance(outcome, Decision)
    assert outcome.expected_s == pytest.approx(START_S, abs=1.0)
    table.change("cloud", is_asleep=False)
    table.heard("cloud", Load(service_s=0.01, row_s=0.0), NOW + 11.0)
    assert table["cloud"].bias > 10.0  # what was learned of it awake is there again


def test_a_place_that_is_awake_again_is_what_it_says() -> None:
    table = asleep()
    table.change("cloud", is_asleep=False)
    table.heard("cloud", Load(service_s=0.01, row_s=0.01), NOW + 9.0)
    outcome = choose(SOON, table, NOW + 9.0)
    assert isinstance(outcome, Decision)
    assert outcome.expected_s == pytest.approx(0.03, abs=0.01)


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"utility", "learned"}))
def test_no_classical_rule_waits_for_a_start_while_another_place_is_awake(rule: str) -> None:
    for draw in range(20):
        request = PATIENT._replace(draw=draw << 50, turn=draw)
        outcome = decide(request, asleep(EDGE), NOW, RULES[rule])
        assert isinstance(outcome, Decision)
        assert outcome.target == "edge"
    only = decide(PATIENT, asleep(), NOW, RULES[rule])
    assert isinstance(only, Decision)
    assert only.target == "cloud"


# Whom it wakes.


def woken(request: Request, table: RoutingTable) -> str | None:
    return to_wake(request, choose(request, table, NOW), table)


def test_whoever_is_sent_to_a_place_that_sleeps_wakes_it() -> None:
    assert woken(PATIENT, asleep()) == "cloud"


def test_who_is_refused_wakes_it_for_those_who_come() -> None:
    assert woken(SOON, asleep()) == "cloud"
    assert woken(Request(0.001), asleep()) == "cloud"
    assert isinstance(choose(SOON, busy(2.0), NOW), Hopeless)
    assert woken(SOON, busy(2.0)) == "cloud"


def test_who_is_served_in_time_elsewhere_wakes_nobody() -> None:
    assert woken(SOON, asleep(EDGE)) is None
    assert woken(PATIENT, asleep(EDGE)) is None


def test_who_is_likely_late_elsewhere_wakes_it() -> None:
    table = asleep(EDGE)
    table.change("edge", errors=(0.5, 1.0, 4.0), bias=1.0)
    outcome = choose(SOON, table, NOW)
    assert isinstance(outcome, Decision)
    assert outcome.target == "edge"
    assert outcome.late >= WAKE_AT
    assert to_wake(SOON, outcome, table) == "cloud"


def test_who_would_be_late_there_too_wakes_nobody_while_another_place_is_awake() -> None:
    table = busy(2.0)
    table.change("cloud", rtt_s=0.2)
    assert woken(SOON, table) is None


def test_who_is_left_to_a_silent_place_wakes_another() -> None:
    assert woken(SOON, asleep(EDGE._replace(is_silent=True))) == "cloud"


def test_of_several_the_nearest_is_woken() -> None:
    table = asleep(CLOUD._replace(name="near", rtt_s=0.01), CLOUD._replace(name="a", rtt_s=0.01))
    for name in ("near", "a"):
        table.asleep(name, START_S, NOW)
    assert woken(SOON, table) == "a"


@settings(max_examples=300, deadline=None)
@given(requests, targets(), st.sampled_from(sorted(RULES)))
def test_only_a_place_that_sleeps_and_may_serve_is_woken_and_always_the_same(
    request: Request, found: list[Target], rule: str
) -> None:
    table = RoutingTable(found)
    outcome = RULES[rule](request, table, NOW)
    name = to_wake(request, outcome, table)
    other = RoutingTable(sorted(found, key=lambda target: target.name, reverse=True))
    assert to_wake(request, outcome, other) == name
    if name is not None:
        assert table[name].is_asleep
        assert ruled_out(request, table[name]) in (None, "silent", "ejected")
        assert not isinstance(outcome, NoTarget)
    elif isinstance(outcome, Decision):
        assert not table[outcome.target].is_asleep


@settings(max_examples=200, deadline=None)
@given(requests, targets(), seconds(60.0))
def test_however_long_a_start_takes_no_filter_is_broken(
    request: Request, found: list[Target], start_s: float
) -> None:
    table = RoutingTable(found)
    for target in found:
        if target.is_asleep:
            table.asleep(target.name, start_s, NOW)
    outcome = choose(request, table, NOW)
    if isinstance(outcome, Decision):
        assert ruled_out(request, table[outcome.target]) in (None, "silent", "ejected")
    assert choose(request, table, NOW) == outcome


@settings(max_examples=100, deadline=None)
@given(requests, targets(max_size=12), seconds(20.0))
def test_arrays_know_of_starts_what_the_loop_knows(
    request: Request, found: list[Target], start_s: float
) -> None:
    looped, arrays = both(found)
    for table in (looped, arrays):
        for target in found:
            if target.is_asleep:
                table.asleep(target.name, start_s, NOW)
                table.sent(target.name, request, NOW)
    expected, outcome = choose(request, looped, NOW), choose(request, arrays, NOW)
    assert type(outcome) is type(expected)
    if isinstance(expected, Decision) and isinstance(outcome, Decision):
        assert outcome.expected_s == pytest.approx(expected.expected_s)
