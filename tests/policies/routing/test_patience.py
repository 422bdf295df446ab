"""How long a request stays with a place that says nothing."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from policies.routing import Decision, Verdict
from policies.routing.patience import LONGER, patience_s
from tests.policies.routing.strategies import seconds

HERE, ELSEWHERE = "edge/lab", "cloud"


def chosen(here_s: float, *others: Verdict) -> Decision:
    return Decision(HERE, "origin_site", here_s, (Verdict(HERE, here_s), *others))


def test_a_request_stays_half_of_its_time() -> None:
    assert patience_s(chosen(0.02, Verdict(ELSEWHERE, 0.05)), 0.4) == 0.2


def test_one_that_was_to_take_long_stays_longer() -> None:
    assert patience_s(chosen(0.15, Verdict(ELSEWHERE, 0.05)), 0.4) == 0.3


def test_one_that_would_be_late_elsewhere_stays() -> None:
    assert patience_s(chosen(0.02, Verdict(ELSEWHERE, 0.15)), 0.4) == math.inf


def test_one_that_has_nowhere_to_go_has_no_end_of_patience() -> None:
    assert patience_s(chosen(0.02), 0.4) is None
    assert patience_s(chosen(0.02, Verdict(ELSEWHERE, 0.05, "down")), 0.4) is None


@given(seconds(1.0), seconds(2.0), st.lists(seconds(1.0), min_size=1, max_size=4))
def test_who_leaves_has_waited_and_has_time_left(
    here_s: float, slack_s: float, others_s: list[float]
) -> None:
    others = [Verdict(f"cloud-{n}", expected_s) for n, expected_s in enumerate(others_s)]
    found = patience_s(chosen(here_s, *others), slack_s)
    assert found is not None
    assert found >= LONGER * here_s
    assert found == math.inf or found + LONGER * min(others_s) <= slack_s
    assert found == patience_s(chosen(here_s, *reversed(others)), slack_s)


@given(seconds(1.0), seconds(1.0), seconds(2.0), seconds(2.0))
def test_more_time_never_makes_it_leave_sooner(
    here_s: float, other_s: float, slack_s: float, more_s: float
) -> None:
    decision = chosen(here_s, Verdict(ELSEWHERE, other_s))
    sooner, later = patience_s(decision, slack_s), patience_s(decision, slack_s + more_s)
    assert sooner is not None
    assert later is not None
    assert later >= sooner or sooner == math.inf
