"""The default rule weighs price, delay and lateness, and says why it chose."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing import (
    WEIGHTS,
    Decision,
    Hopeless,
    Load,
    NoTarget,
    Objective,
    Outcome,
    Request,
    RoutingTable,
    Target,
    Verdict,
    Weights,
    choose,
)
from policies.routing.delay import expected_delay, place_s, wait_s
from policies.routing.lateness import late_share
from policies.routing.types import OBJECTIVES, REASONS, SLACKS
from policies.routing.utility import MIN_RETRY_S
from tests.policies.routing.strategies import (
    NOW,
    changed,
    dollars,
    free_requests,
    requests,
    seconds,
    targets,
    usable_targets,
)

CHEAP = Target("cheap", "edge", "plant-a", service_s=0.25, usd=0.0)
DEAR = Target("dear", "cloud", "cloud", service_s=0.125, usd=1.0)
EAGER = {name: replace(weight, refuse_at=4.0) for name, weight in WEIGHTS.items()}
AHEAD = (0.25,) * len(SLACKS)
ASKED = Request(1.0)


def decided(
    found: Sequence[Target] | RoutingTable,
    request: Request = ASKED,
    objective: Objective | None = None,
    weight: Weights | None = None,
    now: float = NOW,
) -> Decision:
    if objective is not None:
        request = request._replace(objective=objective)
    weights = EAGER if weight is None else dict.fromkeys(OBJECTIVES, weight)
    table = found if isinstance(found, RoutingTable) else RoutingTable(found)
    outcome = choose(request, table, now, weights)
    assert isinstance(outcome, Decision)
    return outcome


def verdict_on(outcome: Outcome, name: str) -> Verdict:
    return next(verdict for verdict in outcome.verdicts if verdict.target == name)


def costs(outcome: Decision, request: Request, table: RoutingTable) -> dict[str, float]:
    """Return what each candidate costs, term by term as the module's docstring has them.

    For requests with a deadline to speak of.
    """
    weight, risk = WEIGHTS[request.objective], table.risk_price(request.objective)
    able = [verdict for verdict in outcome.verdicts if verdict.ruled_out is None]
    cheapest, dearest = min(v.usd for v in able), max(v.usd for v in able)
    difference = max(dearest - cheapest, 1e-12)
    time_s = min(max(request.slack_s, 0.001), 1.0)
    found: dict[str, float] = {}
    for v in able:
        target = table[v.target]
        terms = {
            "price": v.usd - cheapest,
            "scarcity": weight.scarcity * (dearest - v.usd) * target.busy**2,
            "risk": risk * difference * v.late,
            "overdue": weight.overdue
            * risk
            * difference
            * max(0.0, v.expected_s - request.slack_s),
            "haste": weight.haste * difference * v.expected_s / time_s,
            "away": weight.away * difference * (target.site != request.origin_site),
        }
        found[v.target] = sum(terms.values())
    return found


def is_dearer(name: str, other: str, found: dict[str, float]) -> bool:
    """Tell whether it costs more than another by more than rounding."""
    return found[name] - found[other] > 1e-6 * max(abs(cost) for cost in found.values())


def taught(target: Target, errors: tuple[float, ...]) -> Target:
    """Return a target that has answered with these errors."""
    table = RoutingTable([target])
    for error in errors:
        sent = table.sent(target.name, ASKED, NOW)
        taken_s = sent.rtt_s + error * (sent.place_s + sent.service_s) - sent.service_s
        table.answered(sent, NOW + taken_s, None, NOW)
    return table[target.name]


# What is found of each target.


@settings(max_examples=80, deadline=None)
@given(requests, targets())
def test_a_verdict_has_the_expected_delay_of_each_target(
    request: Request, found: list[Target]
) -> None:
    for verdict, target in zip(
        choose(request, RoutingTable(found), NOW).verdicts, found, strict=True
    ):
        assert verdict.expected_s == pytest.approx(expected_delay(target, request, NOW))


@settings(max_examples=80, deadline=None)
@given(requests, targets())
def test_a_verdict_has_the_late_share_by_the_errors_of_each_target(
    request: Request, found: list[Target]
) -> None:
    outcome = choose(request, RoutingTable(found), NOW)
    for verdict, target in zip(outcome.verdicts, found, strict=True):
        slack_s = request.slack_s - target.rtt_s
        there_s = place_s(target, request.bucket, slack_s, NOW)
        late = late_share(target.errors, there_s, target.service_s, slack_s)
        assert verdict.late == late


@settings(max_examples=80, deadline=None)
@given(requests, targets())
def test_a_verdict_has_the_price_of_the_work_and_of_moving_the_data_from_another_site(
    request: Request, found: list[Target]
) -> None:
    outcome = choose(request, RoutingTable(found), NOW)
    for verdict, target in zip(outcome.verdicts, found, strict=True):
        size = target.sizes[request.bucket] if target.sizes else 1.0
        moved = request.moved_bytes if target.site != request.origin_site else 0
        usd = target.usd + target.usd_per_s * target.service_s * size + target.usd_per_byte * moved
        assert verdict.usd == pytest.approx(usd)


@settings(max_examples=80, deadline=None)
@given(free_requests, usable_targets())
def test_a_decision_has_what_was_found_of_its_target(request: Request, found: list[Target]) -> None:
    outcome = decided(found, request)
    verdict = verdict_on(outcome, outcome.target)
    assert (outcome.expected_s, outcome.late, outcome.usd) == (
        verdict.expected_s,
        verdict.late,
        verdict.usd,
    )


# The same for everybody who knows the same.


@settings(max_examples=80, deadline=None)
@given(requests, targets())
def test_the_same_knowledge_and_the_same_request_give_the_same_outcome(
    request: Request, found: list[Target]
) -> None:
    once, again = RoutingTable(found), RoutingTable(found)
    assert choose(request, once, NOW) == choose(request, again, NOW)
    assert once.targets == found


@settings(max_examples=80, deadline=None)
@given(requests, targets(), st.data())
def test_the_order_of_the_targets_does_not_matter(
    request: Request, found: list[Target], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(found))
    match choose(request, RoutingTable(found), NOW), choose(request, RoutingTable(shuffled), NOW):
        case Decision() as one, Decision() as other:
            assert (one.target, one.reason, one.spent) == (other.target, other.reason, other.spent)
        case one, other:
            assert type(one) is type(other)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("names", ["abc", "cab", "bca"])
def test_equal_scores_are_settled_by_name(objective: Objective, names: str) -> None:
    found = [CHEAP._replace(name=name) for name in names]
    assert decided(found, objective=objective).target == "a"


def test_the_last_resort_is_the_fastest_of_them_and_equals_are_settled_by_name() -> None:
    found = [
        CHEAP._replace(name="slow", is_silent=True),
        DEAR._replace(name="b", is_silent=True),
        DEAR._replace(name="a", is_ejected=True),
    ]
    outcome = decided(found)
    assert (outcome.target, outcome.reason) == ("a", "last_resort")


# `latency`


@settings(max_examples=80, deadline=None)
@given(free_requests, usable_targets())
def test_for_latency_predictions_that_were_right_so_far_are_followed(
    request: Request, found: list[Target]
) -> None:
    plain = [target._replace(bias=Target("", "", "").bias) for target in found]
    outcome = decided(plain, request, "latency")
    fastest_s = min(expected_delay(target, request, NOW) for target in plain)
    assert outcome.expected_s == pytest.approx(fastest_s)


@settings(max_examples=80, deadline=None)
@given(free_requests, usable_targets(min_size=2), st.integers(0, 4), seconds(2.0))
def test_work_ahead_never_makes_latency_choose_a_target(
    request: Request, found: list[Target], index: int, more_s: float
) -> None:
    index %= len(found)
    ahead_s = tuple(work_s + more_s for work_s in found[index].ahead_s)
    busier = changed(found, index, ahead_s=ahead_s)
    if decided(found, request, "latency").target != found[index].name:
        assert decided(busier, request, "latency").target != found[index].name


@settings(max_examples=80, deadline=None)
@given(free_requests, usable_targets(), st.integers(0, 4), seconds(2.0))
def test_work_ahead_never_makes_a_request_less_late_or_faster(
    request: Request, found: list[Target], index: int, more_s: float
) -> None:
    index %= len(found)
    name = found[index].name
    ahead_s = tuple(work_s + more_s for work_s in found[index].ahead_s)
    before = verdict_on(choose(request, RoutingTable(found), NOW), name)
    after = verdict_on(choose(request, changed(found, index, ahead_s=ahead_s), NOW), name)
    assert after.late >= before.late
    assert after.expected_s >= before.expected_s


@settings(max_examples=100, deadline=None)
@given(free_requests, usable_targets(min_size=2), st.lists(dollars, min_size=5, max_size=5))
def test_for_latency_no_price_matters(
    request: Request, found: list[Target], prices: list[float]
) -> None:
    others = [target._replace(usd=usd) for target, usd in zip(found, prices, strict=False)]
    assert decided(found, request, "latency").target == decided(others, request, "latency").target


def test_for_latency_half_of_a_correction_counts_so_that_a_misjudged_place_is_asked_again() -> None:
    """It took three times as long; corrected in full it would be the slower one."""
    slow = tuple(3.0 for _ in range(30))
    misjudged = taught(CHEAP._replace(name="misjudged", service_s=0.125), slow)
    other = CHEAP._replace(name="other", service_s=0.4375)
    outcome = decided([other, misjudged], objective="latency")
    assert verdict_on(outcome, "misjudged").expected_s > 0.4375
    assert outcome.target == "misjudged"


# `balanced` and `cost`


@settings(max_examples=160, deadline=None)
@given(
    free_requests,
    usable_targets(min_size=2),
    st.sampled_from(["balanced", "cost"]),
    st.lists(st.sampled_from([0.0, 20.0]), max_size=40),
)
def test_the_choice_has_the_least_cost_term_by_term(
    request: Request, found: list[Target], objective: Objective, spends: list[float]
) -> None:
    request = request._replace(slack_s=min(request.slack_s, 5.0), objective=objective)
    table = RoutingTable(found)
    for spent in spends:
        table.decided(Decision("t0", "least_cost", 0.0, (), spent=spent), objective)
    outcome = decided(table, request)
    reference = costs(outcome, request, table)
    assert not any(is_dearer(outcome.target, other, reference) for other in reference)


@settings(max_examples=160, deadline=None)
@given(
    free_requests,
    usable_targets(min_size=2),
    st.integers(0, 4),
    st.sampled_from(["usd", "usd_per_s", "usd_per_byte"]),
    dollars,
)
def test_a_higher_price_never_makes_balanced_choose_a_target(
    request: Request, found: list[Target], index: int, price: str, more: float
) -> None:
    index %= len(found)
    name = found[index].name
    request = request._replace(slack_s=min(request.slack_s, 5.0), objective="balanced")
    before_table = RoutingTable(found)
    before = decided(before_table, request)
    after = decided(changed(found, index, **{price: getattr(found[index], price) + more}), request)
    if before.target != name:
        was = costs(before, request, before_table)
        assert after.target != name or not is_dearer(name, before.target, was)


@pytest.mark.parametrize("objective", ["balanced", "cost"])
def test_a_lower_price_is_taken_while_it_is_in_time(objective: Objective) -> None:
    outcome = decided([CHEAP, DEAR], objective=objective)
    assert (outcome.target, outcome.reason) == ("cheap", "least_cost")


@pytest.mark.parametrize("objective", ["balanced", "cost"])
def test_a_lower_price_is_not_worth_being_late_half_of_the_time(objective: Objective) -> None:
    risky = taught(CHEAP, (1.0, 3.0) * 15)
    outcome = decided([risky, DEAR], ASKED, objective)
    assert outcome.target == "dear"


@pytest.mark.parametrize("objective", ["balanced", "cost"])
def test_decisions_spend_about_the_budget_in_the_long_run(objective: Objective) -> None:
    """The cheap place is late one time in thirty, so it may be taken once in a while."""
    table = RoutingTable([taught(CHEAP, ((1.0,) * 29 + (3.0,))), DEAR])
    spent = []
    for _ in range(4000):
        outcome = decided(table, ASKED, objective)
        table.decided(outcome, objective)
        assert outcome.spent is not None
        spent.append(outcome.spent)
    settled = spent[1000:]
    assert sum(settled) / len(settled) == pytest.approx(1.0, rel=0.1)


def test_what_is_spent_is_the_lateness_above_the_safest_in_budgets() -> None:
    table = RoutingTable([taught(CHEAP, ((1.0,) * 9 + (3.0,)) * 3), DEAR])
    for _ in range(400):
        table.decided(Decision("", "", 0.0, (), spent=0.0), "cost")
    outcome = decided(table, ASKED, "cost")
    assert outcome.target == "cheap"
    assert outcome.spent == pytest.approx(0.1 / WEIGHTS["cost"].budget)


def test_lateness_that_no_target_can_spare_is_not_spent() -> None:
    safest = taught(DEAR, ((1.0,) * 9 + (9.0,)) * 3)
    outcome = decided([taught(CHEAP, ((1.0,) * 8 + (9.0,) * 2) * 3), safest], objective="cost")
    lates = [verdict.late for verdict in outcome.verdicts]
    assert lates == pytest.approx([0.2, 0.1])
    assert outcome.spent == pytest.approx((outcome.late - 0.1) / WEIGHTS["cost"].budget)


def test_latency_spends_nothing_since_it_has_no_budget() -> None:
    assert decided([CHEAP, DEAR], objective="latency").spent is None


def test_where_there_is_no_choice_nothing_is_spent() -> None:
    assert decided([CHEAP], objective="balanced").spent is None


def test_a_busy_cheap_place_is_left_to_those_who_have_nowhere_else_to_go() -> None:
    found = [CHEAP._replace(busy=1.0), DEAR]
    for scarcity, expected in ((0.0, "cheap"), (0.9, "dear")):
        weight = Weights(budget=0.005, scarcity=scarcity, haste=1.0)
        assert decided(found, weight=weight).target == expected


def test_a_place_that_is_half_busy_is_a_quarter_as_scarce() -> None:
    """By half of 0.9 $ it would be left alone."""
    weight = Weights(budget=0.005, scarcity=0.9, haste=1.0)
    found = [CHEAP._replace(busy=0.5, service_s=0.75), DEAR]
    assert decided(found, weight=weight).target == "cheap"


def test_the_price_of_a_place_that_is_not_busy_is_all_that_it_costs() -> None:
    weight = Weights(budget=0.005, scarcity=0.9, haste=1.0)
    assert decided([CHEAP, DEAR], weight=weight).target == "cheap"


def test_who_is_late_anyway_is_not_sent_to_the_cheapest_and_slowest_place() -> None:
    found = [
        CHEAP._replace(service_s=2.75, ahead_s=AHEAD, ahead_at=NOW),
        DEAR._replace(service_s=1.25, ahead_s=AHEAD, ahead_at=NOW),
    ]
    outcome = decided(found, objective="cost")
    assert (outcome.target, outcome.reason) == ("dear", "least_late")


def test_of_equal_prices_the_site_of_the_caller_is_preferred_to_a_little_speed() -> None:
    near = CHEAP._replace(name="near", service_s=0.125)
    away = CHEAP._replace(name="away", site="plant-b", service_s=0.12)
    assert decided([near, away], ASKED._replace(origin_site="plant-a")).target == "near"
    assert decided([near, away], ASKED).target == "away"


def test_moving_many_bytes_is_dearer_than_staying() -> None:
    stays = CHEAP._replace(usd=0.5)
    moves = DEAR._replace(usd=0.0, usd_per_byte=0.001)
    for moved, expected in ((0, "dear"), (2000, "cheap")):
        request = Request(1.0, moved_bytes=moved, origin_site="plant-a")
        assert decided([stays, moves], request).target == expected


@pytest.mark.parametrize(("slack_s", "expected"), [(10.0, "cheap"), (60.0, "dear")])
def test_a_deadline_that_only_bounds_the_wait_does_not_make_slowness_free(
    slack_s: float, expected: str
) -> None:
    found = [CHEAP._replace(service_s=0.5), DEAR._replace(service_s=0.05)]
    assert decided(found, Request(slack_s)).target == expected


# Without prices.


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=2, max_size=5, unique=True),
    st.sampled_from(OBJECTIVES),
    st.sampled_from([1.0, 5.0]),
)
def test_where_nothing_costs_anything_the_fastest_is_chosen(
    services: list[int], objective: Objective, slack_s: float
) -> None:
    """Any two differ by more than leaving the caller's site counts."""
    found = [
        CHEAP._replace(name=f"t{i}", site=f"plant-{i}", service_s=service / 16)
        for i, service in enumerate(services)
    ]
    request = Request(slack_s, origin_site="plant-0")
    outcome = decided(found, request, objective)
    assert outcome.expected_s == min(services) / 16


@pytest.mark.parametrize("objective", ["balanced", "cost"])
def test_where_nothing_costs_anything_and_all_are_as_fast_the_callers_site_is_chosen(
    objective: Objective,
) -> None:
    found = [CHEAP._replace(name=f"t{i}", site=f"plant-{i}") for i in range(4)]
    outcome = decided(found, Request(1.0, origin_site="plant-2"), objective)
    assert (outcome.target, outcome.reason) == ("t2", "origin_site")


# Reasons.


@settings(max_examples=100, deadline=None)
@given(requests, targets())
def test_every_reason_is_a_known_one(request: Request, found: list[Target]) -> None:
    outcome = choose(request, RoutingTable(found), NOW)
    if isinstance(outcome, Decision):
        assert outcome.reason in REASONS


CASES: list[tuple[str, list[Target], Request]] = [
    ("only_candidate", [CHEAP, DEAR._replace(is_up=False)], ASKED),
    ("tier_requested", [CHEAP, DEAR], ASKED._replace(tier="cloud")),
    ("least_expected", [CHEAP, DEAR], ASKED._replace(objective="latency")),
    ("least_expected", [CHEAP._replace(service_s=0.0625), DEAR], ASKED),
    ("least_cost", [CHEAP, DEAR], ASKED),
    ("origin_site", [CHEAP, DEAR], ASKED._replace(origin_site="plant-a")),
    ("least_late", [CHEAP, DEAR], ASKED._replace(slack_s=0.0625)),
    ("last_resort", [CHEAP._replace(is_silent=True)], ASKED),
    ("last_resort", [CHEAP._replace(is_ejected=True)], ASKED._replace(tier="edge")),
]


@pytest.mark.parametrize(("reason", "found", "asked"), CASES)
def test_the_reason_says_why(reason: str, found: list[Target], asked: Request) -> None:
    assert decided(found, asked).reason == reason


def test_every_reason_that_is_documented_is_given_in_some_case() -> None:
    others = {"session", "by_rule", "learned"}  # test_sessions.py and so on
    assert {reason for reason, _, _ in CASES} == set(REASONS) - others


# Refusals.


@settings(max_examples=100, deadline=None)
@given(requests, targets(), st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5]))
def test_a_request_is_hopeless_exactly_when_all_are_as_late_as_that_and_have_work_ahead(
    request: Request, found: list[Target], refuse_at: float
) -> None:
    weights = dict.fromkeys(OBJECTIVES, Weights(budget=0.005, refuse_at=refuse_at))
    outcome = choose(request, RoutingTable(found), NOW, weights)
    able = [verdict for verdict in outcome.verdicts if verdict.ruled_out is None]
    safest = min([verdict.late for verdict in able], default=-1.0)
    by_name = {target.name: target for target in found}
    waits = [
        wait_s(by_name[v.target], request.slack_s - by_name[v.target].rtt_s, NOW) for v in able
    ]
    alone_s = min([by_name[v.target].rtt_s + by_name[v.target].service_s for v in able], default=0)
    limit = refuse_at * min(1.0, max(1.0 / 3.0, 4.0 * alone_s / max(request.slack_s, 1e-9)))
    is_late = safest >= limit and min(waits) > 0.0
    # Who is slow is asked rather than who has to be started first.
    is_spared = all(by_name[v.target].is_asleep for v in able) and any(
        v.ruled_out in ("silent", "ejected") for v in outcome.verdicts
    )
    assert isinstance(outcome, Hopeless) == (is_late and not is_spared)


@pytest.mark.parametrize(
    ("slack_s", "is_refused"), [(1.0, False), (2.0, True), (20.0, True)], ids=str
)
def test_who_has_much_time_is_refused_sooner(slack_s: float, is_refused: bool) -> None:
    weights = dict.fromkeys(OBJECTIVES, Weights(refuse_at=1.0))
    waits_s = 0.9 * slack_s
    # Half of the errors are so large that the request would be late.
    place = CHEAP._replace(
        errors=(0.5,) * 75 + (8.0,) * 75,
        ahead_s=(waits_s,) * len(SLACKS),
        ahead_at=NOW,
        heard_at=NOW,
    )
    outcome = choose(Request(slack_s), RoutingTable([place]), NOW, weights)
    if isinstance(outcome, Hopeless):
        assert outcome.late == pytest.approx(0.5, abs=0.01)
    assert isinstance(outcome, Hopeless) == is_refused


def test_an_idle_place_is_tried_however_late_it_was_before() -> None:
    bad = CHEAP._replace(errors=(50.0,) * 150, bias=50.0)
    assert decided([bad]).late == 1.0
    busy = bad._replace(ahead_s=AHEAD, ahead_at=NOW)
    assert isinstance(choose(ASKED, RoutingTable([busy]), NOW), Hopeless)


def test_a_refusal_says_how_late_it_would_be_and_when_to_come_again() -> None:
    weights = MappingProxyType(dict.fromkeys(OBJECTIVES, Weights(refuse_at=0.9)))
    found = [
        CHEAP._replace(service_s=2.75, ahead_s=AHEAD, ahead_at=NOW),
        DEAR._replace(service_s=1.25, ahead_s=AHEAD, ahead_at=NOW),
    ]
    outcome = choose(ASKED, RoutingTable(found), NOW, weights)
    assert isinstance(outcome, Hopeless)
    assert (outcome.late, outcome.retry_after_s) == (1.0, 0.5)


def test_nobody_is_told_to_come_again_at_once() -> None:
    weights = dict.fromkeys(OBJECTIVES, Weights(refuse_at=0.9))
    found = [CHEAP._replace(service_s=0.0, ahead_s=AHEAD, ahead_at=NOW)]
    outcome = choose(Request(0.2), RoutingTable(found), NOW, weights)
    assert isinstance(outcome, Hopeless)
    assert outcome.retry_after_s == MIN_RETRY_S


def test_a_silent_target_is_asked_rather_than_a_request_called_hopeless() -> None:
    weight = Weights(refuse_at=0.0)
    assert decided([CHEAP._replace(is_silent=True)], weight=weight).reason == "last_resort"


def test_where_there_is_no_target_there_is_none() -> None:
    assert choose(ASKED, RoutingTable([]), NOW) == NoTarget(())


# Among very many.


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_among_very_many_equals_the_first_by_name_is_chosen(objective: Objective) -> None:
    found = [CHEAP._replace(name=f"t{n * 37 % 100:02}") for n in range(100)]
    assert decided(found, objective=objective).target == "t00"


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_place_that_came_last_is_found_among_very_many(objective: Objective) -> None:
    table = RoutingTable(CHEAP._replace(name=f"t{n}") for n in range(50))
    for n in range(50, 200):
        table.add(CHEAP._replace(name=f"t{n}", service_s=0.125 if n == 199 else 0.25))
    assert decided(table, objective=objective).target == "t199"


def test_among_very_many_with_old_reports_the_one_with_the_fewest_requests_is_chosen() -> None:
    found = [
        CHEAP._replace(name=f"t{n}", heard_at=NOW - 60.0, row_s=0.1, outstanding=1 + n * 37 % 100)
        for n in range(100)
    ]
    outcome = decided(found, objective="latency")
    assert next(t.outstanding for t in found if t.name == outcome.target) == 1


def test_among_very_many_a_request_is_hopeless_when_the_safest_is_as_late_as_that() -> None:
    weights = dict.fromkeys(OBJECTIVES, Weights(refuse_at=0.9))
    found = [
        CHEAP._replace(name=f"t{n}", service_s=1.25 + n, ahead_s=AHEAD, ahead_at=NOW)
        for n in range(100)
    ]
    outcome = choose(ASKED, RoutingTable(found), NOW, weights)
    assert isinstance(outcome, Hopeless)
    assert (outcome.late, outcome.retry_after_s) == (1.0, 0.5)


def test_what_predictions_were_worth_counts_among_very_many_as_it_does_among_few() -> None:
    """One in four was predicted to be late, and all of them were."""
    late = []
    for others in (0, 100):
        table = RoutingTable([taught(CHEAP, (1.0, 1.0, 1.0, 9.0)), DEAR])
        for n in range(others):
            table.add(DEAR._replace(name=f"t{n}", is_up=False))
        for _ in range(64):
            before = table["cheap"]
            table.late(table.sent("cheap", ASKED, NOW), NOW, 2.0)
            table.change("cheap", errors=before.errors, bias=before.bias)
        late.append(verdict_on(choose(ASKED, table, NOW), "cheap").late)
    assert late[0] > 0.5
    assert late[1] == pytest.approx(late[0])


@settings(max_examples=25, deadline=None)
@given(free_requests, usable_targets(), st.randoms(use_true_random=False))
def test_the_order_of_very_many_targets_does_not_matter(
    request: Request, found: list[Target], order: random.Random
) -> None:
    many = [target._replace(name=f"{target.name}-{n}") for n in range(60) for target in found]
    shuffled = many[:]
    order.shuffle(shuffled)
    assert decided(many, request).target == decided(shuffled, request).target


def chosen_of(found: object) -> str:
    assert isinstance(found, Decision)
    return found.target


def test_an_answer_that_came_before_its_way_was_over_does_not_break_the_choice() -> None:
    table = RoutingTable(Target(name, "edge", "s", rtt_s=0.1) for name in "ab")
    table.heard("a", Load(ahead_s=(0.1,) * len(SLACKS)), 1.0)
    table.answered(table.sent("a", Request(1.0, objective="latency"), 1.0), 1.05, None, 1.05)
    assert table["a"].bias == 0.0
    assert isinstance(choose(Request(1.0, objective="latency"), table, 1.1), Decision)


def test_a_place_that_was_faster_than_predicted_is_not_avoided_for_it() -> None:
    found = [Target("a", "edge", "s", service_s=0.1), Target("b", "edge", "s", service_s=0.12)]
    table = RoutingTable(found)
    table.heard("a", Load(ahead_s=(1.0,) * len(SLACKS), service_s=0.1), 1.0)
    table.answered(
        table.sent("a", Request(1.0, objective="latency"), 1.0), 1.02, Load(service_s=0.1), 1.02
    )
    assert chosen_of(choose(Request(1.0, objective="latency"), table, 1.1)) == "a"


def test_latency_never_gives_prices_as_its_reason() -> None:
    found = [
        Target("x", "edge", "s", service_s=0.1),
        Target("y", "edge", "s", service_s=0.1, rtt_s=0.01, bias=0.91, errors=(0.91,)),
    ]
    outcome = choose(Request(1.0, objective="latency"), RoutingTable(found), 0.0)
    assert isinstance(outcome, Decision)
    assert outcome.reason != "least_cost"


def test_equal_prices_leave_the_faster_one() -> None:
    found = [Target(n, "edge", "s", usd=1.0, service_s=s) for n, s in (("a", 0.02), ("b", 0.0199))]
    assert chosen_of(choose(Request(1.0), RoutingTable(found), 0.0)) == "b"


def test_no_more_than_eight_are_shown_of_very_many() -> None:
    found = [Target(f"t{100 - n:03}", "edge", "s", service_s=0.1) for n in range(100)]
    assert len(choose(Request(1.0), RoutingTable(found), 0.0).verdicts) <= 8
