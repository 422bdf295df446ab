from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing import Decision, NoTarget, Request, Target, choose
from policies.routing.choose import (
    HALF_LIFE_S,
    REASONS,
    SITE_FACTOR,
    SITE_MARGIN_S,
    expected_delay,
)

SITES = ("plant-a", "plant-b", "cloud")
TIERS = ("colocated", "cloud", "edge")
STATES: tuple[dict[str, Any], ...] = (
    *[{}] * 5,
    {"is_up": False},
    {"is_silent": True},
    {"is_draining": True},
    {"has_model": False},
)
seconds = st.integers(0, 500).map(lambda hundredths: hundredths / 100)
requests = st.builds(
    Request,
    slack_s=st.sampled_from([0.0, 1.0, 5.0, 20.0, 1000.0, 1000.0]),
    tier=st.sampled_from([None, None, *TIERS]),
    origin_site=st.sampled_from([None, *SITES]),
    excluded=st.sampled_from([frozenset[str](), frozenset({"t0"}), frozenset({"t1", "t2"})]),
)


@st.composite
def target_tables(draw: st.DrawFn) -> list[Target]:
    one = st.builds(
        Target,
        name=st.just(""),
        tier=st.sampled_from(TIERS),
        site=st.sampled_from(SITES),
        rtt_s=seconds,
        wait_s=seconds,
        service_s=seconds,
        report_age_s=st.sampled_from([-1.0, 0.0, 0.5, 60.0]),
        outstanding=st.integers(0, 5),
    )
    found = draw(st.lists(st.tuples(one, st.sampled_from(STATES)), max_size=5))
    return [replace(target, name=f"t{i}", **state) for i, (target, state) in enumerate(found)]


def usable(request: Request, target: Target) -> bool:
    return (
        request.tier in (None, target.tier)
        and target.name not in request.excluded
        and target.has_model
        and target.is_up
        and not target.is_draining
    )


def choice(request: Request, targets: list[Target]) -> Decision:
    found = choose(request, targets)
    assert isinstance(found, Decision)
    return found


CLOUD = Target("cloud", "cloud", "cloud", rtt_s=0.040, service_s=0.002)
EDGE = Target("edge", "edge", "plant-a", rtt_s=0.002, service_s=0.010)
HERE = Request(slack_s=1.0, origin_site="plant-a")
AWAY = Request(slack_s=1.0, origin_site="plant-z")


@settings(max_examples=80, deadline=None)
@given(requests, target_tables(), st.integers(0, 2**32))
def test_the_order_of_the_targets_does_not_matter(
    request: Request, targets: list[Target], seed: int
) -> None:
    shuffled = targets[:]
    random.Random(seed).shuffle(shuffled)
    first, second = choose(request, targets), choose(request, shuffled)
    assert type(first) is type(second)
    if isinstance(first, Decision) and isinstance(second, Decision):
        assert (first.target, first.reason, first.expected_s) == (
            second.target,
            second.reason,
            second.expected_s,
        )


@settings(max_examples=80, deadline=None)
@given(requests, target_tables())
def test_the_choice_is_one_that_may_serve_with_a_known_reason_and_a_verdict_for_each_target(
    request: Request, targets: list[Target]
) -> None:
    found = choose(request, targets)
    assert [verdict.target for verdict in found.verdicts] == [t.name for t in targets]
    for verdict, target in zip(found.verdicts, targets, strict=True):
        assert (verdict.ruled_out is None) == (usable(request, target) and not target.is_silent)
    match found:
        case Decision(name, reason, expected_s):
            chosen = next(target for target in targets if target.name == name)
            assert usable(request, chosen)
            assert reason in REASONS
            assert expected_s == expected_delay(chosen)
            assert chosen.is_silent == (reason == "last_resort")
        case NoTarget():
            assert not any(usable(request, target) for target in targets)


@settings(max_examples=80, deadline=None)
@given(requests, target_tables())
def test_a_silent_target_is_taken_only_when_no_other_may_serve(
    request: Request, targets: list[Target]
) -> None:
    found = choose(request, targets)
    if isinstance(found, Decision) and found.reason == "last_resort":
        assert not any(usable(request, target) and not target.is_silent for target in targets)


@settings(max_examples=80, deadline=None)
@given(requests, target_tables())
def test_a_target_that_misses_the_deadline_is_taken_only_if_all_do_or_it_is_alone(
    request: Request, targets: list[Target]
) -> None:
    found = choose(request, targets)
    candidates = [t for t in targets if usable(request, t) and not t.is_silent]
    if len(candidates) > 1 and isinstance(found, Decision):
        can_be_met = any(expected_delay(target) <= request.slack_s for target in candidates)
        assert (found.expected_s <= request.slack_s) == can_be_met
        assert (found.reason == "least_late") == (not can_be_met)


@settings(max_examples=80, deadline=None)
@given(requests, target_tables())
def test_without_a_site_of_its_own_a_request_goes_where_the_delay_is_shortest(
    request: Request, targets: list[Target]
) -> None:
    found = choose(replace(request, origin_site=None), targets)
    candidates = [t for t in targets if usable(request, t) and not t.is_silent]
    if candidates:
        assert isinstance(found, Decision)
        assert found.expected_s == min(expected_delay(target) for target in candidates)


@settings(max_examples=80, deadline=None)
@given(requests, target_tables(), st.data())
def test_making_a_target_that_is_not_chosen_worse_never_makes_it_chosen(
    request: Request, targets: list[Target], data: st.DataObject
) -> None:
    before = choose(request, targets)
    if not isinstance(before, Decision) or len(targets) == 1:
        return
    other = data.draw(st.sampled_from([t for t in targets if t.name != before.target]))
    worse = data.draw(
        st.sampled_from(
            [
                replace(other, rtt_s=other.rtt_s + 1.0),
                replace(other, wait_s=other.wait_s + 1.0),
                replace(other, service_s=other.service_s + 1.0),
                replace(other, outstanding=other.outstanding + 1),
                replace(other, is_up=False),
                replace(other, is_silent=True),
                replace(other, is_draining=True),
                replace(other, has_model=False),
            ]
        )
    )
    after = choose(request, [worse if t is other else t for t in targets])
    assert not isinstance(after, Decision) or after.target != other.name


@settings(max_examples=80, deadline=None)
@given(requests, target_tables())
def test_taking_away_a_target_that_is_not_chosen_keeps_the_choice(
    request: Request, targets: list[Target]
) -> None:
    before = choose(request, targets)
    if not isinstance(before, Decision) or before.reason == "origin_site":
        return
    for target in targets:
        if target.name != before.target:
            after = choose(request, [t for t in targets if t is not target])
            assert isinstance(after, Decision)
            assert after.target == before.target


@settings(max_examples=80, deadline=None)
@given(target_tables().filter(bool))
def test_an_old_report_counts_less_but_never_less_than_what_is_outstanding(
    targets: list[Target],
) -> None:
    target = targets[0]
    older = replace(target, report_age_s=max(0.0, target.report_age_s) + 1.0)
    floor_s = target.rtt_s + (target.outstanding + 1) * target.service_s
    assert expected_delay(older) <= expected_delay(target)
    assert expected_delay(older) >= floor_s * (1 - 1e-12)


def test_a_reported_wait_fades_by_half_in_its_half_life() -> None:
    fresh = Target("t", "cloud", "cloud", rtt_s=0.1, wait_s=0.8, service_s=0.2)
    assert expected_delay(fresh) == pytest.approx(1.1)
    assert expected_delay(replace(fresh, report_age_s=HALF_LIFE_S)) == pytest.approx(0.7)
    assert expected_delay(replace(fresh, report_age_s=-5.0)) == pytest.approx(1.1)
    assert expected_delay(replace(fresh, outstanding=10)) == pytest.approx(2.3)


def test_the_only_target_is_taken_and_the_reason_says_whether_the_caller_insisted() -> None:
    assert choice(AWAY, [CLOUD]).reason == "only_candidate"
    insisting = replace(HERE, tier="cloud")
    found = choice(insisting, [CLOUD, EDGE])
    assert (found.target, found.reason) == ("cloud", "tier_requested")


def test_the_only_target_is_taken_although_it_is_late() -> None:
    assert choice(replace(AWAY, slack_s=0.0), [CLOUD]).reason == "only_candidate"


def test_a_request_stays_at_its_site_although_the_cloud_is_somewhat_faster() -> None:
    near = replace(CLOUD, rtt_s=0.001)
    assert expected_delay(near) < expected_delay(EDGE)
    found = choice(HERE, [near, EDGE])
    assert (found.target, found.reason) == ("edge", "origin_site")
    assert choice(AWAY, [near, EDGE]).reason == "least_expected"


def test_a_request_leaves_its_site_when_that_is_much_slower() -> None:
    bound_s = SITE_FACTOR * expected_delay(CLOUD) + SITE_MARGIN_S
    just = replace(EDGE, rtt_s=bound_s - EDGE.service_s - 1e-9)
    too_slow = replace(EDGE, rtt_s=bound_s - EDGE.service_s + 1e-6)
    assert choice(HERE, [CLOUD, just]).target == "edge"
    found = choice(HERE, [CLOUD, too_slow])
    assert (found.target, found.reason) == ("cloud", "least_expected")


def test_a_request_leaves_its_site_when_it_would_be_late_there() -> None:
    hurried = replace(HERE, slack_s=0.045)
    busy = replace(EDGE, outstanding=5)
    assert expected_delay(busy) > hurried.slack_s > expected_delay(CLOUD)
    assert choice(hurried, [CLOUD, busy]).target == "cloud"


def test_when_all_are_late_the_least_late_is_taken_whatever_its_site() -> None:
    found = choice(replace(HERE, slack_s=0.0), [CLOUD, replace(EDGE, outstanding=9)])
    assert (found.target, found.reason) == ("cloud", "least_late")


def test_equal_targets_are_settled_by_name() -> None:
    twins = [replace(CLOUD, name=name) for name in "ba"]
    assert choice(AWAY, twins).target == "a"


def test_a_silent_target_is_avoided_and_not_abandoned() -> None:
    silent = replace(EDGE, is_silent=True)
    assert choice(HERE, [silent, CLOUD]).target == "cloud"
    found = choice(HERE, [silent, replace(CLOUD, is_up=False)])
    assert (found.target, found.reason) == ("edge", "last_resort")


def test_a_silent_target_that_was_tried_or_drains_is_no_resort() -> None:
    silent = replace(EDGE, is_silent=True)
    assert isinstance(choose(replace(HERE, excluded=frozenset({"edge"})), [silent]), NoTarget)
    assert isinstance(choose(HERE, [replace(silent, is_draining=True)]), NoTarget)


@pytest.mark.parametrize(
    ("request_", "target", "rule"),
    [
        (replace(HERE, tier="cloud"), EDGE, "other_tier"),
        (replace(HERE, excluded=frozenset({"edge"})), EDGE, "already_tried"),
        (HERE, replace(EDGE, has_model=False), "model_not_loaded"),
        (HERE, replace(EDGE, is_up=False), "down"),
        (HERE, replace(EDGE, is_draining=True), "draining"),
    ],
)
def test_a_refusal_says_which_rule_ruled_out_which_target(
    request_: Request, target: Target, rule: str
) -> None:
    found = choose(request_, [target])
    assert isinstance(found, NoTarget)
    assert [(v.target, v.ruled_out) for v in found.verdicts] == [("edge", rule)]


def test_without_targets_there_is_no_target() -> None:
    assert choose(HERE, []) == NoTarget(())
