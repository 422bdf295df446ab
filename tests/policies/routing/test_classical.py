"""The rules that others use do what their names say."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing import Decision, Request, RoutingTable, Target
from policies.routing.classical import BY_RULE, RULES
from policies.routing.delay import expected_delay
from policies.routing.table import PEAK_S
from tests.policies.routing.strategies import (
    NOW,
    changed,
    free_requests,
    requests,
    seconds,
    targets,
    usable_targets,
)

some_rule = st.sampled_from(sorted(RULES))
UNKNOWN_PRIOR_S = 1e-3
FAST = Target("fast", "edge", "plant-a", prior_s=0.01)
SLOW = Target("slow", "cloud", "cloud", prior_s=0.04)
ALIKE = [Target(name, "edge", "plant-a", prior_s=0.01) for name in "abcd"]


def chosen(name: str, found: list[Target], request: Request) -> Target:
    outcome = RULES[name](request, RoutingTable(found), NOW)
    assert isinstance(outcome, Decision)
    return next(target for target in found if target.name == outcome.target)


def shares(name: str, found: list[Target], wanted: list[Request]) -> dict[str, float]:
    counts = Counter(chosen(name, found, request).name for request in wanted)
    return {target.name: counts[target.name] / len(wanted) for target in found}


def drawn(count: int, seed: int = 7) -> list[Request]:
    bits_of = random.Random(seed)
    return [Request(1.0, draw=bits_of.getrandbits(64)) for _ in range(count)]


def turns(start: int, count: int) -> list[Request]:
    return [Request(1.0, turn=turn) for turn in range(start, start + count)]


def prior_s(target: Target) -> float:
    return target.prior_s or UNKNOWN_PRIOR_S


# What all of them have in common.


@settings(max_examples=100, deadline=None)
@given(some_rule, requests, targets())
def test_the_same_knowledge_and_the_same_request_give_the_same_outcome(
    name: str, request: Request, found: list[Target]
) -> None:
    once, again = RoutingTable(found), RoutingTable(found)
    assert RULES[name](request, once, NOW) == RULES[name](request, again, NOW)
    assert once.targets == found


@settings(max_examples=100, deadline=None)
@given(some_rule, free_requests, usable_targets())
def test_a_decision_says_what_delay_is_expected_of_each_target(
    name: str, request: Request, found: list[Target]
) -> None:
    outcome = RULES[name](request, RoutingTable(found), NOW)
    assert isinstance(outcome, Decision)
    expected = {target.name: expected_delay(target, request, NOW) for target in found}
    assert {verdict.target: verdict.expected_s for verdict in outcome.verdicts} == expected
    assert outcome.expected_s == expected[outcome.target]


@pytest.mark.parametrize("name", RULES)
def test_a_choice_asks_for_no_price_and_no_deadline_and_says_so(name: str) -> None:
    outcome = RULES[name](Request(-1.0), RoutingTable([FAST]), NOW)
    assert isinstance(outcome, Decision)
    assert (outcome.target, outcome.reason) == ("fast", BY_RULE)
    assert (outcome.late, outcome.usd, outcome.spent) == (0.0, 0.0, None)


# random, round_robin


@pytest.mark.parametrize(("name", "share"), [("random", 0.5), ("weighted_random", 0.8)])
def test_random_draws_give_each_target_its_share(name: str, share: float) -> None:
    assert shares(name, [SLOW, FAST], drawn(4000))["fast"] == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(("name", "share"), [("round_robin", 0.5), ("weighted_round_robin", 0.8)])
def test_turns_give_each_target_its_share(name: str, share: float) -> None:
    assert shares(name, [SLOW, FAST], turns(0, 2000))["fast"] == pytest.approx(share, abs=0.005)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=4),
    st.integers(0, 2**32),
)
def test_turns_give_each_target_its_share_of_any_row_of_them(priors: list[int], start: int) -> None:
    found = [FAST._replace(name=f"t{i}", prior_s=n / 64) for i, n in enumerate(priors)]
    total = sum(1.0 / target.prior_s for target in found)
    counted = shares("weighted_round_robin", found, turns(start, 200))
    for target in found:
        assert counted[target.name] == pytest.approx(1.0 / target.prior_s / total, abs=0.03)


def test_a_place_that_nobody_has_told_anything_of_is_taken_for_quick() -> None:
    unknown = SLOW._replace(prior_s=0.0)
    assert shares("weighted_random", [FAST, unknown], drawn(1000))["slow"] > 0.85


# least_outstanding


@settings(max_examples=80, deadline=None)
@given(free_requests, usable_targets())
def test_least_outstanding_has_the_fewest_requests(request: Request, found: list[Target]) -> None:
    least = min(target.outstanding for target in found)
    assert chosen("least_outstanding", found, request).outstanding == least


@settings(max_examples=80, deadline=None)
@given(free_requests, usable_targets())
def test_weighted_least_outstanding_has_the_fewest_for_its_speed(
    request: Request, found: list[Target]
) -> None:
    def cost(target: Target) -> float:
        return (target.outstanding + 1) * prior_s(target)

    name = "weighted_least_outstanding"
    assert cost(chosen(name, found, request)) == min(cost(target) for target in found)


@pytest.mark.parametrize("name", ["least_outstanding", "peak_ewma", "shortest_delay"])
def test_equals_are_drawn_evenly(name: str) -> None:
    for share in shares(name, ALIKE, drawn(2000)).values():
        assert share == pytest.approx(0.25, abs=0.04)


# two_choices


@settings(max_examples=80, deadline=None)
@given(free_requests, usable_targets(min_size=2, max_size=2))
def test_two_choices_take_the_better_of_the_two(request: Request, found: list[Target]) -> None:
    least = min(target.outstanding for target in found)
    assert chosen("two_choices", found, request).outstanding == least


@settings(max_examples=80, deadline=None)
@given(free_requests, usable_targets(min_size=2, max_size=2))
def test_weighted_two_choices_take_the_better_for_its_speed(
    request: Request, found: list[Target]
) -> None:
    def cost(target: Target) -> float:
        return (target.outstanding + 1) * prior_s(target)

    name = "weighted_two_choices"
    assert cost(chosen(name, found, request)) == min(cost(target) for target in found)


@settings(max_examples=80, deadline=None)
@given(free_requests, usable_targets(min_size=2), st.integers(0, 4))
def test_two_choices_never_take_the_worst_of_all(
    request: Request, found: list[Target], index: int
) -> None:
    worst = index % len(found)
    found[worst] = found[worst]._replace(outstanding=10)
    assert chosen("two_choices", found, request) != found[worst]


def test_two_choices_take_each_target_that_is_better_than_another() -> None:
    found = [target._replace(outstanding=n) for n, target in enumerate(ALIKE)]
    counted = shares("two_choices", found, drawn(3000))
    # Of six pairs, the best is in three, the next is the better one of two, and so on.
    assert [counted[name] for name in "abcd"] == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0], abs=0.03)


@pytest.mark.parametrize("name", ["two_choices", "weighted_two_choices"])
def test_where_there_is_one_target_two_choices_take_it(name: str) -> None:
    assert chosen(name, [FAST], Request(1.0)) == FAST


# peak_ewma


def test_a_place_that_was_slow_once_is_avoided_until_that_has_faded() -> None:
    good = FAST._replace(peak_s=0.05, peak_at=NOW + 8.0 * PEAK_S)
    table = RoutingTable([good, SLOW._replace(peak_s=1.0, peak_at=NOW)])
    outcomes = [RULES["peak_ewma"](Request(1.0), table, NOW + n * PEAK_S) for n in (0.0, 2.0, 8.0)]
    assert [isinstance(o, Decision) and o.target for o in outcomes] == ["fast", "fast", "slow"]


def test_each_request_that_waits_makes_a_peak_count_once_more() -> None:
    found = [
        FAST._replace(peak_s=0.1, peak_at=NOW, outstanding=3),
        SLOW._replace(peak_s=0.3, peak_at=NOW),
    ]
    assert chosen("peak_ewma", found, Request(1.0)).name == "slow"


def test_a_place_that_was_never_asked_is_asked_first_unless_its_prior_is_known() -> None:
    found = [FAST._replace(peak_s=0.01, peak_at=NOW), SLOW]
    assert chosen("peak_ewma", found, Request(1.0)).name == "slow"
    assert chosen("weighted_peak_ewma", found, Request(1.0)).name == "fast"


def test_peak_ewma_asks_a_place_that_never_answered_once_at_a_time() -> None:
    table = RoutingTable(
        [
            Target("new", "edge", "plant-a"),
            Target("known", "edge", "plant-a", peak_s=0.5, peak_at=NOW),
        ]
    )
    picked = []
    for draw in range(4):
        outcome = RULES["peak_ewma"](Request(1.0, draw=draw), table, NOW)
        assert isinstance(outcome, Decision)
        picked.append(outcome.target)
        table.sent(outcome.target, Request(1.0), NOW)
    assert picked == ["new", "known", "known", "known"]


def test_weighted_peak_ewma_takes_no_place_for_quicker_than_its_way_and_its_prior() -> None:
    found = [FAST._replace(rtt_s=0.1), SLOW]
    assert chosen("weighted_peak_ewma", found, Request(1.0)).name == "slow"


# shortest_delay


@settings(max_examples=80, deadline=None)
@given(free_requests, usable_targets())
def test_shortest_delay_is_expected_to_answer_first(request: Request, found: list[Target]) -> None:
    least_s = min(expected_delay(target, request, NOW) for target in found)
    assert expected_delay(chosen("shortest_delay", found, request), request, NOW) == least_s


@settings(max_examples=80, deadline=None)
@given(free_requests, usable_targets(min_size=2), st.integers(0, 4), seconds(2.0))
def test_work_ahead_never_makes_shortest_delay_choose_a_target(
    request: Request, found: list[Target], index: int, more_s: float
) -> None:
    index %= len(found)
    name = found[index].name
    ahead_s = tuple(work_s + more_s for work_s in found[index].ahead_s)
    busier = changed(found, index, ahead_s=ahead_s)
    if chosen("shortest_delay", found, request).name != name:
        assert chosen("shortest_delay", busier.targets, request).name != name


# nearest

HOME = Target("home", "edge", "plant-a", rtt_s=0.001)
NEIGHBOUR = Target("neighbour", "edge", "plant-b", rtt_s=0.02)
FAR = Target("far", "edge", "plant-c", rtt_s=0.05)
CLOUD = Target("cloud", "cloud", "cloud", rtt_s=0.01)
ASKED = Request(1.0, origin_site="plant-a")
FULL = 4


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([CLOUD, NEIGHBOUR, HOME], "home"),
        ([CLOUD, FAR, NEIGHBOUR], "neighbour"),
        ([CLOUD, FAR, HOME._replace(outstanding=FULL - 1)], "home"),
        ([CLOUD, FAR, HOME._replace(outstanding=FULL)], "far"),
        ([CLOUD, HOME._replace(outstanding=FULL)], "cloud"),
        ([CLOUD._replace(outstanding=99), HOME._replace(outstanding=FULL)], "cloud"),
        ([NEIGHBOUR._replace(outstanding=FULL), HOME._replace(outstanding=FULL)], "home"),
        ([HOME._replace(outstanding=1), HOME._replace(name="idle")], "idle"),
    ],
)
def test_nearest_is_the_callers_site_else_the_edge_and_the_cloud_when_these_are_full(
    found: list[Target], expected: str
) -> None:
    assert chosen("nearest", found, ASKED).name == expected
