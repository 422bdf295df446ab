"""Figures of a request at a place: bounded, and each says what its name says."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing import Request, Target
from policies.routing.context import MOST, NAMES, context
from policies.routing.reliability import IDENTITY
from policies.routing.types import NO_WORK
from policies.routing.utility import look
from tests.policies.routing.strategies import NOW, a_target, free_requests

anything = st.floats(allow_nan=True, allow_infinity=True)
PLAIN = Target(
    "t0", "edge", "plant-a", rtt_s=0.01, ahead_at=NOW, heard_at=NOW, service_s=0.1, prior_s=0.1
)


def figures(request: Request, target: Target) -> dict[str, float]:
    return dict(zip(NAMES, context(request, target, IDENTITY, NOW).figures, strict=True))


@settings(max_examples=300, deadline=None)
@given(free_requests, a_target())
def test_the_plain_estimate_in_it_is_that_of_the_safe_rule(
    request: Request, target: Target
) -> None:
    found = context(request, target, IDENTITY, NOW)
    verdict, _ = look(request, target, IDENTITY, NOW)
    assert found.late == verdict.late
    assert found.way_s + found.place_s == pytest.approx(verdict.expected_s)


@settings(max_examples=300, deadline=None)
@given(
    free_requests,
    a_target(),
    st.dictionaries(
        st.sampled_from(
            ["rtt_s", "service_s", "row_s", "busy", "bias", "prior_s", "heard_at", "peak_at"]
        ),
        anything,
    ),
    anything,
)
def test_figures_are_bounded_whatever_a_place_says(
    request: Request, target: Target, lies: dict[str, Any], slack_s: float
) -> None:
    found = figures(request._replace(slack_s=slack_s), target._replace(**lies))
    assert all(math.isfinite(value) and abs(value) <= MOST for value in found.values())
    assert found["one"] == 1.0


@pytest.mark.parametrize(
    ("name", "less", "more"),
    [
        ("margin", PLAIN._replace(service_s=0.2), PLAIN),
        ("is_tight", PLAIN, PLAIN._replace(service_s=2.0)),
        ("late", PLAIN, PLAIN._replace(errors=(1.0, 9.0), bias=9.0)),
        ("waiting", PLAIN, PLAIN._replace(ahead_s=(0.2,) * len(NO_WORK))),
        ("way", PLAIN, PLAIN._replace(rtt_s=0.3)),
        ("busy", PLAIN, PLAIN._replace(busy=0.5)),
        ("age", PLAIN, PLAIN._replace(heard_at=NOW - 1.0)),
        ("outstanding", PLAIN, PLAIN._replace(outstanding=3)),
        ("size", PLAIN, PLAIN._replace(sizes=(2.0,) * 32)),
        ("slower", PLAIN, PLAIN._replace(service_s=0.3)),
        ("bias", PLAIN, PLAIN._replace(bias=1.5)),
        ("unasked", PLAIN._replace(peak_at=NOW - 1.0), PLAIN._replace(peak_at=NOW - 5.0)),
        ("is_far", PLAIN, PLAIN._replace(tier="cloud")),
    ],
)
def test_a_figure_says_what_its_name_says(name: str, less: Target, more: Target) -> None:
    asked = Request(slack_s=1.0)
    assert figures(asked, less)[name] < figures(asked, more)[name]


def test_who_has_more_time_is_in_less_of_a_hurry_and_a_chance_of_a_half_is_least_sure() -> None:
    assert figures(Request(-1.0), PLAIN)["hurry"] == -MOST
    assert figures(Request(0.1), PLAIN)["hurry"] < figures(Request(2.0), PLAIN)["hurry"]
    half = PLAIN._replace(errors=(1.0, 99.0), bias=1.0)
    assert figures(Request(1.0), half)["is_sure"] < figures(Request(1.0), PLAIN)["is_sure"]
