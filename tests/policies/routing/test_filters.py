"""What a request must not be given it never is, whichever rule chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given, settings

from policies.routing import (
    Decision,
    Hopeless,
    NoTarget,
    Outcome,
    Request,
    RoutingTable,
    Target,
    Weights,
    choose,
)
from policies.routing.classical import RULES as CLASSICAL
from policies.routing.filters import EJECTED, RULES, SILENT, ruled_out
from policies.routing.types import OBJECTIVES, Objective
from tests.policies.routing.strategies import NOW, requests, targets

FORBIDS: Final[dict[str, Callable[[Request, Target], bool]]] = {
    "not_placed": lambda r, t: r.tiers is not None and t.tier not in r.tiers,
    "other_tier": lambda r, t: r.tier not in (None, t.tier),
    "already_tried": lambda r, t: t.name in r.excluded,
    "model_not_loaded": lambda r, t: not t.has_model,
    "zone_not_allowed": lambda r, t: r.zones is not None and t.zone not in r.zones,
    "tenant_not_served": lambda r, t: t.tenants is not None and r.tenant not in t.tenants,
    "down": lambda r, t: not t.is_up,
    "draining": lambda r, t: t.is_draining,
    "silent": lambda r, t: t.is_silent,
    "ejected": lambda r, t: t.is_ejected,
}
SOFT: Final = (SILENT, EJECTED)

HERE = Target("here", "edge", "plant-a", zone="eu")
ASKED = Request(1.0, tenant="acme")


def broken(request: Request, target: Target) -> list[str]:
    return [rule for rule in RULES if FORBIDS[rule](request, target)]


def chooser(objective: Objective) -> Callable[[Request, RoutingTable, float], Outcome]:
    return lambda request, table, now: choose(request._replace(objective=objective), table, now)


def refusing(request: Request, table: RoutingTable, now: float) -> Outcome:
    weight = Weights(budget=0.01, refuse_at=0.5)
    return choose(request, table, now, dict.fromkeys(OBJECTIVES, weight))


CHOOSERS: Final[dict[str, Callable[[Request, RoutingTable, float], Outcome]]] = {
    **{objective: chooser(objective) for objective in OBJECTIVES},
    "refusing": refusing,
    **CLASSICAL,
}


def test_a_target_that_is_well_may_serve_whoever_asks_for_nothing_special() -> None:
    assert ruled_out(ASKED, HERE) is None


@pytest.mark.parametrize(
    ("rule", "wish", "state"),
    [
        ("not_placed", {"tiers": frozenset({"cloud"})}, {}),
        ("other_tier", {"tier": "cloud"}, {}),
        ("already_tried", {"excluded": frozenset({"here"})}, {}),
        ("model_not_loaded", {}, {"has_model": False}),
        ("zone_not_allowed", {"zones": frozenset({"us"})}, {}),
        ("zone_not_allowed", {"zones": frozenset()}, {}),
        ("tenant_not_served", {}, {"tenants": frozenset({"initech"})}),
        ("tenant_not_served", {}, {"tenants": frozenset()}),
        ("down", {}, {"is_up": False}),
        ("draining", {}, {"is_draining": True}),
        ("silent", {}, {"is_silent": True}),
        ("ejected", {}, {"is_ejected": True}),
    ],
)
def test_each_rule_forbids_by_itself(
    rule: str, wish: dict[str, Any], state: dict[str, Any]
) -> None:
    assert ruled_out(ASKED._replace(**wish), HERE._replace(**state)) == rule


@pytest.mark.parametrize(
    ("wish", "state"),
    [
        ({"tiers": frozenset({"edge", "cloud"})}, {}),
        ({"tier": "edge"}, {}),
        ({"excluded": frozenset({"there"})}, {}),
        ({"zones": frozenset({"eu"})}, {}),
        ({}, {"tenants": frozenset({"acme"})}),
    ],
)
def test_a_target_that_is_what_was_asked_for_may_serve(
    wish: dict[str, Any], state: dict[str, Any]
) -> None:
    assert ruled_out(ASKED._replace(**wish), HERE._replace(**state)) is None


@settings(max_examples=200, deadline=None)
@given(requests, targets())
def test_the_first_rule_that_a_target_breaks_is_named(
    request: Request, found: list[Target]
) -> None:
    for target in found:
        assert ruled_out(request, target) == next(iter(broken(request, target)), None)


@settings(max_examples=100, deadline=None)
@given(requests, targets())
def test_no_rule_chooses_a_target_that_must_not_serve(
    request: Request, found: list[Target]
) -> None:
    for name, decide in CHOOSERS.items():
        outcome = decide(request, RoutingTable(found), NOW)
        if isinstance(outcome, Decision):
            chosen = next(target for target in found if target.name == outcome.target)
            assert set(broken(request, chosen)) <= set(SOFT), name


@settings(max_examples=40, deadline=None)
@given(requests, targets())
def test_among_very_many_none_that_must_not_serve_is_chosen(
    request: Request, found: list[Target]
) -> None:
    many = [target._replace(name=f"{target.name}-{n}") for n in range(60) for target in found]
    request = request._replace(
        excluded=frozenset(t.name for t in many if t.name.split("-")[0] in request.excluded)
    )
    for objective in OBJECTIVES:
        outcome = CHOOSERS[objective](request, RoutingTable(many), NOW)
        if isinstance(outcome, Decision):
            chosen = next(target for target in many if target.name == outcome.target)
            assert set(broken(request, chosen)) <= set(SOFT)


@settings(max_examples=100, deadline=None)
@given(requests, targets())
def test_silent_and_ejected_targets_are_the_last_resort_of_every_rule_and_said_to_be(
    request: Request, found: list[Target]
) -> None:
    able = {target.name for target in found if not broken(request, target)}
    awake = {target.name for target in found if target.name in able and not target.is_asleep}
    for name, decide in CHOOSERS.items():
        outcome = decide(request, RoutingTable(found), NOW)
        if isinstance(outcome, Decision) and (awake or not able):
            assert (outcome.target in able) == (outcome.reason != "last_resort") == bool(able), name


@settings(max_examples=100, deadline=None)
@given(requests, targets())
def test_every_rule_has_no_target_exactly_when_all_of_them_must_not_serve(
    request: Request, found: list[Target]
) -> None:
    able = any(set(broken(request, target)) <= set(SOFT) for target in found)
    for name, decide in CHOOSERS.items():
        outcome = decide(request, RoutingTable(found), NOW)
        assert isinstance(outcome, NoTarget) == (not able), name


@settings(max_examples=100, deadline=None)
@given(requests, targets())
def test_only_who_could_be_served_is_refused_as_hopeless(
    request: Request, found: list[Target]
) -> None:
    if isinstance(refusing(request, RoutingTable(found), NOW), Hopeless):
        assert any(not broken(request, target) for target in found)


@settings(max_examples=100, deadline=None)
@given(requests, targets())
def test_every_outcome_has_a_verdict_on_each_target_with_the_rule_that_it_breaks(
    request: Request, found: list[Target]
) -> None:
    expected = [(t.name, next(iter(broken(request, t)), None)) for t in found]
    for name, decide in CHOOSERS.items():
        verdicts = decide(request, RoutingTable(found), NOW).verdicts
        assert [(v.target, v.ruled_out) for v in verdicts] == expected, name
