"""The share of late requests is counted, not assumed."""

from __future__ import annotations

from collections import deque
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from policies.routing.lateness import (
    MOST,
    WINDOW,
    Errors,
    LatestErrors,
    corrected,
    error,
    late_share,
)
from tests.policies.routing.strategies import errors, ratios, seconds, slacks

some_errors = errors.filter(bool)
few_values = st.integers(0, 5).map(float)  # so that many are equal


def slow_late_share(found: Errors, place_s: float, service_s: float, slack_s: float) -> float:
    """Count those that take longer than the time that is left, in exact arithmetic."""
    there, alone, slack = Fraction(place_s), Fraction(service_s), Fraction(slack_s)
    late = sum(Fraction(one) * (there + alone) - alone > slack for one in found)
    return late / len(found)


def test_a_prediction_that_came_true_has_error_one() -> None:
    assert error(0.75, 0.75, 0.25) == 1.0


def test_a_prediction_of_half_the_time_has_an_error_of_nearly_two() -> None:
    assert error(1.0, 0.5, 0.25) == pytest.approx(1.67, abs=0.01)


def test_a_short_wait_that_doubled_is_a_smaller_error_than_a_long_one() -> None:
    assert error(0.02, 0.01, 0.25) < error(2.0, 1.0, 0.25)


def test_an_answer_that_came_faster_than_its_way_took_no_time_there() -> None:
    assert error(-0.5, 0.75, 0.25) == error(0.0, 0.75, 0.25) == 0.25


@settings(max_examples=300, deadline=None)
@given(seconds(2.0), seconds(2.0).filter(bool), seconds(1.0))
def test_an_error_says_what_a_prediction_would_have_to_be_corrected_by(
    actual_s: float, place_s: float, service_s: float
) -> None:
    bias = error(actual_s, place_s, service_s)
    assert corrected(bias, place_s, service_s) == pytest.approx(actual_s, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(ratios, seconds(2.0), seconds(1.0))
def test_no_correction_makes_a_time_negative(bias: float, place_s: float, service_s: float) -> None:
    assert corrected(bias, place_s, service_s) >= 0.0


@settings(max_examples=400, deadline=None)
@given(
    some_errors,
    seconds(2.0).filter(bool),
    seconds(1.0),
    seconds(4.0).filter(bool),
)
def test_the_late_share_is_that_of_the_errors_with_which_the_time_does_not_suffice(
    found: Errors, place_s: float, service_s: float, slack_s: float
) -> None:
    ratio = (Fraction(slack_s) + Fraction(service_s)) / (Fraction(place_s) + Fraction(service_s))
    assume(float(ratio) == ratio or float(ratio) not in found)  # which rounding would settle
    counted = slow_late_share(found, place_s, service_s, slack_s)
    assert late_share(found, place_s, service_s, slack_s) == counted


def test_who_is_exactly_in_time_is_not_late() -> None:
    assert late_share((0.5, 1.0, 2.0, 4.0), 0.5, 0.5, 1.5) == 0.25


@settings(max_examples=300, deadline=None)
@given(errors, seconds(2.0), seconds(1.0), slacks, seconds(1.0))
def test_more_time_never_makes_anybody_later(
    found: Errors, place_s: float, service_s: float, slack_s: float, more_s: float
) -> None:
    before = late_share(found, place_s, service_s, slack_s)
    assert late_share(found, place_s, service_s, slack_s + more_s) <= before


@settings(max_examples=300, deadline=None)
@given(errors, seconds(2.0), seconds(1.0), slacks, seconds(1.0))
def test_a_longer_time_at_the_place_never_makes_anybody_less_late(
    found: Errors, place_s: float, service_s: float, slack_s: float, more_s: float
) -> None:
    before = late_share(found, place_s, service_s, slack_s)
    assert late_share(found, place_s + more_s, service_s, slack_s) >= before


@pytest.mark.parametrize("slack_s", [0.0, -1.0])
@pytest.mark.parametrize("found", [(), (0.5,)])
def test_who_has_no_time_left_is_late_whatever_was_seen(found: Errors, slack_s: float) -> None:
    assert late_share(found, 0.0, 0.0, slack_s) == 1.0


def test_before_any_error_was_seen_the_prediction_is_believed() -> None:
    assert late_share((), 0.5, 0.25, 0.5) == 0.0
    assert late_share((), 0.5, 0.25, 0.49) == 1.0


def test_what_takes_no_time_is_in_time_with_any_error() -> None:
    assert late_share((1.0, MOST), 0.0, 0.0, 0.01) == 0.0


@settings(max_examples=100, deadline=None)
@given(st.lists(few_values, min_size=1, max_size=40), st.integers(-20, 60))
def test_the_latest_errors_are_kept_and_handed_out_in_order(
    pattern: list[float], more: int
) -> None:
    added = (pattern * (2 * WINDOW))[: WINDOW + more]
    fast, slow = LatestErrors(), deque[float](maxlen=WINDOW)
    for one in added:
        fast.add(one, 0.0)
        slow.append(one)
    assert len(fast) == len(slow)
    assert fast.frozen() == tuple(sorted(slow))


def test_they_are_in_order_after_each_that_was_added() -> None:
    fast, slow = LatestErrors(), deque[float](maxlen=WINDOW)
    for number in range(3 * WINDOW):
        fast.add(float(number * number % 37), 0.0)
        slow.append(float(number * number % 37))
        assert fast.frozen() == tuple(sorted(slow))


@settings(max_examples=100, deadline=None)
@given(st.lists(few_values, min_size=1, max_size=60))
def test_half_of_the_errors_are_no_more_than_the_median_and_half_no_less(
    added: list[float],
) -> None:
    fast = LatestErrors()
    for one in added:
        fast.add(one, 0.0)
    assert 2 * sum(one <= fast.median for one in added) >= len(added)
    assert 2 * sum(one >= fast.median for one in added) >= len(added)


def test_before_any_error_the_median_corrects_nothing() -> None:
    assert LatestErrors().median == 1.0


def test_an_error_beyond_all_measure_counts_as_the_largest() -> None:
    fast = LatestErrors()
    fast.add(1e9, 0.0)
    assert fast.frozen() == (MOST,)


def test_it_remembers_when_the_last_error_came() -> None:
    fast = LatestErrors()
    fast.add(1.0, 3.0)
    fast.add(1.0, 5.0)
    assert fast.added_at == 5.0


def test_what_was_cleared_is_gone_and_does_not_come_back() -> None:
    fast = LatestErrors()
    for _ in range(WINDOW):
        fast.add(2.0, 0.0)
    fast.clear()
    fast.add(3.0, 1.0)
    assert fast.frozen() == (3.0,)
