"""Work ahead drains while nobody looks, and grows by what is sent."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing import Request, Target
from policies.routing.delay import (
    STALE_S,
    expected_delay,
    place_s,
    relative_size,
    wait_s,
    with_work,
)
from policies.routing.types import NO_WORK, SLACKS
from tests.policies.routing.strategies import NOW, a_target, aheads, requests, seconds, slacks

FLAT = (0.5,) * len(SLACKS)
HEARD = Target("here", "edge", "plant-a", ahead_at=NOW, heard_at=NOW, ahead_s=FLAT)


def slow_wait_s(target: Target, slack_s: float, now: float) -> float:
    """Return it as one would by hand."""
    since_s = now + target.rtt_s / 2 - target.ahead_at
    ahead_s = next(
        work_s
        for limit_s, work_s in zip(SLACKS, target.ahead_s, strict=True)
        if slack_s + since_s <= limit_s
    )
    found = [0.0, ahead_s - since_s]
    if now - target.heard_at > STALE_S:
        found.append(target.outstanding * target.row_s)
    return max(found)


def test_without_known_sizes_every_request_is_a_usual_one() -> None:
    assert relative_size(HEARD, 7) == 1.0


def test_the_work_of_a_request_is_that_of_its_size() -> None:
    assert relative_size(HEARD._replace(sizes=(1.0, 2.0, 4.0)), 2) == 4.0


@settings(max_examples=200, deadline=None)
@given(a_target(), slacks)
def test_the_wait_is_the_work_ahead_at_arrival_less_what_has_drained(
    target: Target, slack_s: float
) -> None:
    assert wait_s(target, slack_s, NOW) == slow_wait_s(target, slack_s, NOW)


@settings(max_examples=100, deadline=None)
@given(seconds(STALE_S))
def test_work_that_was_reported_drains_by_a_second_a_second(passed_s: float) -> None:
    assert wait_s(HEARD, 1.0, NOW + passed_s) == max(0.0, 0.5 - passed_s)


def test_work_drains_while_the_request_is_on_its_way_there() -> None:
    assert wait_s(HEARD._replace(rtt_s=0.25), 1.0, NOW) == 0.375


def test_whoever_has_little_time_passes_those_who_have_more() -> None:
    target = HEARD._replace(ahead_s=(0.0, *FLAT[1:]))
    assert wait_s(target, SLACKS[0], NOW) == 0.0
    assert wait_s(target, SLACKS[1], NOW) == 0.5


def test_a_report_that_is_too_old_is_replaced_by_what_was_sent_there_and_not_answered() -> None:
    target = HEARD._replace(outstanding=3, row_s=0.25)
    assert wait_s(target, 1.0, NOW + STALE_S) == 0.0
    assert wait_s(target, 1.0, NOW + STALE_S + 0.25) == 0.75


def test_an_old_report_of_more_work_than_was_sent_from_here_is_still_believed() -> None:
    target = HEARD._replace(ahead_s=(9.0,) * len(SLACKS), outstanding=1, row_s=0.25)
    assert wait_s(target, 1.0, NOW + 4.0) == 5.0


@settings(max_examples=100, deadline=None)
@given(a_target(), requests)
def test_the_time_at_the_place_is_the_wait_and_the_own_work(
    target: Target, request: Request
) -> None:
    own_s = target.service_s * (target.sizes[request.bucket] if target.sizes else 1.0)
    found = place_s(target, request.bucket, request.slack_s, NOW)
    assert found == slow_wait_s(target, request.slack_s, NOW) + own_s


@pytest.mark.parametrize(("bias", "expected_s"), [(1.0, 0.875), (2.0, 1.75), (0.5, 0.4375)])
def test_the_expected_delay_is_the_way_and_the_time_there_with_the_usual_error(
    bias: float, expected_s: float
) -> None:
    """There: 0.375 s of wait and 0.25 s of work; the error is of these and of a lone request."""
    target = HEARD._replace(rtt_s=0.25, service_s=0.25, bias=bias)
    assert expected_delay(target, Request(1.0), NOW) == expected_s


def test_the_way_is_never_corrected_away() -> None:
    target = HEARD._replace(rtt_s=0.25, service_s=0.25, bias=0.01)
    assert expected_delay(target, Request(1.0), NOW) == 0.25


@settings(max_examples=200, deadline=None)
@given(a_target(), requests, seconds(2.0))
def test_more_work_ahead_never_lowers_the_expected_delay(
    target: Target, request: Request, more_s: float
) -> None:
    busier = target._replace(ahead_s=tuple(work_s + more_s for work_s in target.ahead_s))
    assert expected_delay(busier, request, NOW) >= expected_delay(target, request, NOW)


@settings(max_examples=200, deadline=None)
@given(aheads(), seconds(2.0), slacks, seconds(1.0))
def test_one_more_request_comes_behind_whoever_has_less_time(
    ahead_s: tuple[float, ...], gone_s: float, slack_s: float, work_s: float
) -> None:
    found = with_work(ahead_s, gone_s, slack_s, work_s)
    for limit_s, before_s, after_s in zip(SLACKS, ahead_s, found, strict=True):
        left_s = max(before_s - gone_s, 0.0)
        comes_behind = limit_s >= slack_s + gone_s
        assert max(after_s - gone_s, 0.0) == pytest.approx(left_s + comes_behind * work_s)


@settings(max_examples=300, deadline=None)
@given(
    aheads(),
    st.lists(st.tuples(seconds(0.3), slacks, seconds(0.3)), min_size=1, max_size=6),
    slacks,
)
def test_a_send_never_lowers_the_wait_of_anybody_then_or_later(
    ahead_s: tuple[float, ...], sends: list[tuple[float, float, float]], slack_s: float
) -> None:
    gone_s = 0.0
    found = ahead_s
    for later_s, sent_slack_s, work_s in sends:
        gone_s += later_s
        before, found = found, with_work(found, gone_s, sent_slack_s, work_s)
        for at in (gone_s, gone_s + 0.1, gone_s + 1.0):
            waits = [
                wait_s(HEARD._replace(ahead_s=each, ahead_at=NOW - at, heard_at=NOW), slack_s, NOW)
                for each in (before, found)
            ]
            assert waits[0] <= waits[1]


@settings(max_examples=200, deadline=None)
@given(aheads(), seconds(2.0), slacks, seconds(1.0))
def test_who_has_more_time_never_has_less_work_ahead(
    ahead_s: tuple[float, ...], gone_s: float, slack_s: float, work_s: float
) -> None:
    found = with_work(ahead_s, gone_s, slack_s, work_s)
    assert list(found) == sorted(found)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(slacks, seconds(1.0)), max_size=8))
def test_the_work_ahead_of_who_has_all_time_is_all_that_was_sent(
    sends: list[tuple[float, float]],
) -> None:
    ahead_s: tuple[float, ...] = NO_WORK
    for slack_s, work_s in sends:
        ahead_s = with_work(ahead_s, 0.0, slack_s, work_s)
    assert ahead_s[-1] == sum(work_s for _, work_s in sends)
