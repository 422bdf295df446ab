"""Second copies: after how long, where to, how many, and what becomes of the loser."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing import Decision, Outcome, Request, RoutingTable, Target, choose
from policies.routing.hedging import Hedger, HedgeRules, Race, still_to_wait
from policies.routing.table import Sent
from tests.policies.routing.strategies import NOW, errors, seconds, usable_targets

REQUEST = Request(60.0, objective="latency")
FEW = HedgeRules(fewest=10)


def taught(delays: list[float], rules: HedgeRules = FEW, requests: int = 0) -> Hedger:
    hedger = Hedger(rules)
    for delay_s in delays:
        hedger.answered(delay_s, NOW)
    for _ in range(requests):
        hedger.sent()
    return hedger


def two(second_s: float = 0.1) -> tuple[RoutingTable, Sent]:
    """Return a table of two places and a request that was sent to the first of them."""
    table = RoutingTable(
        [
            Target("first", "edge", "a", service_s=0.1, heard_at=NOW),
            Target("second", "cloud", "b", service_s=second_s, heard_at=NOW),
        ]
    )
    return table, table.sent("first", REQUEST, NOW)


def copied(
    hedger: Hedger, table: RoutingTable, sent: Sent, at: float, request: Request = REQUEST
) -> str | None:
    decision = hedger.copy(request, sent, table, NOW + at, choose)
    return decision.target if decision else None


# After how long.


def test_a_copy_is_asked_for_after_a_high_quantile_of_recent_delays() -> None:
    hedger = taught([0.01 * n for n in range(1, 101)])
    assert hedger.sent() == pytest.approx(0.95)
    for _ in range(1000):
        hedger.answered(2.0, NOW)
    assert hedger.sent() == 2.0


def test_there_is_no_copy_before_enough_delays_are_known() -> None:
    assert taught([0.1] * 9).sent() is None
    assert taught([0.1] * 10).sent() == 0.1


# Where to, and whether.


def test_a_request_that_waits_for_long_gets_a_copy_elsewhere() -> None:
    table, sent = two()
    assert copied(taught([], requests=40), table, sent, 0.5) == "second"


def test_there_is_no_copy_where_another_place_is_not_clearly_sooner() -> None:
    table, sent = two(second_s=0.41)
    assert copied(taught([], requests=40), table, sent, 0.5) is None
    assert copied(taught([], requests=40), table, sent, 0.52) == "second"


def test_there_is_no_copy_where_nobody_else_may_serve_or_only_the_last_resort() -> None:
    table, sent = two()
    elsewhere = REQUEST._replace(tiers=frozenset({"edge"}))
    assert copied(taught([], requests=40), table, sent, 0.5, elsewhere) is None
    table.change("second", is_silent=True)
    assert copied(taught([], requests=40), table, sent, 0.5) is None


def test_a_place_that_was_tried_before_gets_no_copy() -> None:
    table, sent = two()
    tried = REQUEST._replace(excluded=frozenset({"second"}))
    assert copied(taught([], requests=40), table, sent, 0.5, tried) is None


def test_a_copy_is_chosen_for_the_time_that_is_left_and_not_where_the_first_one_is() -> None:
    asked: list[Request] = []

    def rule(request: Request, table: RoutingTable, now: float) -> Outcome:
        asked.append(request)
        return choose(request, table, now)

    table, sent = two()
    taught([], requests=40).copy(REQUEST, sent, table, NOW + 0.5, rule)
    assert asked == [REQUEST._replace(slack_s=59.5, excluded=frozenset({"first"}))]


@settings(max_examples=150, deadline=None)
@given(usable_targets(min_size=2), seconds(4.0), st.sampled_from([0.0, 0.2, 0.5]))
def test_a_copy_goes_to_another_place_that_is_sooner_by_the_margin(
    found: list[Target], waited_s: float, margin: float
) -> None:
    table = RoutingTable(found)
    sent = table.sent("t0", REQUEST, NOW)
    hedger = taught([], HedgeRules(margin=margin), requests=40)
    decision = hedger.copy(REQUEST, sent, table, NOW + waited_s, choose)
    left_s = still_to_wait(table["t0"].errors, sent.rtt_s, sent.place_s, sent.service_s, waited_s)
    others = table.targets[1:]
    asked = choose(
        REQUEST._replace(slack_s=60.0 - waited_s, excluded=frozenset({"t0"})),
        table,
        NOW + waited_s,
    )
    assert isinstance(asked, Decision)
    if decision is None:
        assert asked.expected_s > (1 - margin) * left_s
    else:
        assert decision.target in {target.name for target in others}
        assert decision.expected_s <= (1 - margin) * left_s


# How much longer the first one takes.


@settings(max_examples=150, deadline=None)
@given(errors, seconds(1.0), seconds(1.0), seconds(1.0), seconds(8.0))
def test_what_is_left_is_the_mean_of_what_happened_to_those_who_waited_as_long(
    found: tuple[float, ...], rtt_s: float, place_s: float, service_s: float, waited_s: float
) -> None:
    left_s = still_to_wait(found, rtt_s, place_s, service_s, waited_s)
    whole_s = place_s + service_s
    longer = [s for e in found if (s := rtt_s + e * whole_s - service_s) > waited_s and whole_s]
    if longer:
        assert left_s == pytest.approx(sum(longer) / len(longer) - waited_s, abs=1e-9)
    elif found and whole_s:
        assert left_s == pytest.approx(waited_s, abs=1e-9)
    assert left_s >= 0.0


def test_without_errors_what_was_predicted_is_left_then_as_long_again() -> None:
    assert still_to_wait((), 0.1, 0.4, 0.2, 0.2) == pytest.approx(0.3)
    assert still_to_wait((), 0.1, 0.4, 0.2, 0.7) == 0.7


# How many.


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.3]), st.integers(1, 8))
def test_there_are_never_more_copies_than_the_share_of_requests_that_is_allowed(
    seed: int, share: float, burst: int
) -> None:
    draws = random.Random(seed)
    table, sent = two()
    hedger = Hedger(HedgeRules(share=share, burst=burst))
    in_a_row = 0
    for _ in range(300):
        if draws.random() < 0.6:
            hedger.sent()
        elif copied(hedger, table, sent, 0.5):
            in_a_row += 1
            assert in_a_row <= burst + share * hedger.requests
        assert hedger.copies <= share * hedger.requests + 1e-9


def test_what_was_not_spent_is_saved_up_to_a_burst() -> None:
    table, sent = two()
    hedger = taught([], HedgeRules(burst=3.0), requests=10_000)
    assert [copied(hedger, table, sent, 0.5) for _ in range(5)] == ["second"] * 3 + [None] * 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantile": 1.1},
        {"share": -0.1},
        {"margin": 2.0},
        {"burst": 0.5},
        {"fewest": 0},
        {"fewest": 5000},
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HedgeRules(**wrong)  # type: ignore[arg-type]


# The race.


@settings(max_examples=100, deadline=None)
@given(st.permutations(range(4)), st.lists(st.booleans(), min_size=4, max_size=4))
def test_the_first_answer_wins_the_others_are_cancelled_and_a_request_fails_with_its_last_copy(
    order: list[int], answers: list[bool]
) -> None:
    race = Race(0)
    for copy in range(1, 4):
        race.joined(copy)
    running, is_over = set(range(4)), False
    for copy in order:
        if answers[copy]:
            losers = race.answered(copy)
            assert set(losers) == (set() if is_over else running - {copy})
            is_over = True
        else:
            assert race.failed(copy) == (not is_over and running == {copy})
            is_over = is_over or running == {copy}
        running.discard(copy)
        assert race.is_over == is_over


def test_delays_of_before_give_way_to_those_of_now() -> None:
    hedger = taught([1.0] * 1000)
    waits = []
    for _ in range(5):
        for _ in range(200):
            hedger.answered(0.1, NOW)
        waits.append(hedger.sent())
    assert waits[-1] == 0.1
    assert all(a is not None and b is not None and a >= b for a, b in pairwise(waits))
