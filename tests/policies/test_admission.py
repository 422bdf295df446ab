from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.admission import MIN_RETRY_S, Admitted, QueueState, Refused, admit

seconds = st.floats(0.0, 1e6)
states = st.builds(
    QueueState,
    queued=st.integers(0, 50),
    capacity=st.integers(1, 50),
    work_ahead_s=seconds,
    workers=st.integers(0, 64),
)
EMPTY = QueueState(queued=0, capacity=10, work_ahead_s=0.0, workers=2)


def test_an_empty_queue_admits_without_a_wait() -> None:
    assert admit(EMPTY, service_s=0.1, slack_s=1.0, max_wait_s=1.0) == Admitted(0.0)


def test_the_wait_is_the_work_ahead_shared_by_the_workers() -> None:
    state = replace(EMPTY, work_ahead_s=3.0)
    assert admit(state, 0.0, slack_s=10.0, max_wait_s=10.0) == Admitted(1.5)
    assert admit(replace(state, workers=0), 0.0, 10.0, 10.0) == Admitted(3.0)


@pytest.mark.parametrize(
    ("state", "slack_s", "max_wait_s", "expected"),
    [
        (replace(EMPTY, queued=10), 9.0, 9.0, Refused("queue_full", MIN_RETRY_S)),
        (replace(EMPTY, queued=10, work_ahead_s=4.0), 9.0, 1.0, Refused("queue_full", 2.0)),
        (replace(EMPTY, work_ahead_s=4.0), 9.0, 1.5, Refused("queue_wait", 0.5)),
        (replace(EMPTY, work_ahead_s=4.0), 2.5, 9.0, Refused("deadline", 2.0)),
        (EMPTY, 0.5, 9.0, Refused("deadline", MIN_RETRY_S)),
    ],
)
def test_each_limit_refuses_with_its_reason(
    state: QueueState, slack_s: float, max_wait_s: float, expected: Refused
) -> None:
    assert admit(state, 1.0, slack_s, max_wait_s) == expected


def test_a_deadline_is_judged_by_those_who_go_first_and_the_longest_wait_by_all() -> None:
    state = replace(EMPTY, queued=5, work_ahead_s=8.0, before_s=2.0)
    assert admit(state, 1.0, slack_s=2.0, max_wait_s=9.0) == Admitted(1.0)
    assert admit(state, 1.0, slack_s=1.5, max_wait_s=9.0) == Refused("deadline", 1.0)
    assert admit(state, 1.0, slack_s=9.0, max_wait_s=3.0) == Refused("queue_wait", 2.0)


def test_what_just_fits_is_admitted() -> None:
    state = replace(EMPTY, queued=9, work_ahead_s=2.0)
    assert admit(state, service_s=0.5, slack_s=1.5, max_wait_s=1.5) == Admitted(1.0)


def test_the_batch_counts_against_the_longest_wait_only_where_others_queue() -> None:
    running = replace(EMPTY, work_ahead_s=2.0)
    assert admit(running, service_s=9.0, slack_s=60.0, max_wait_s=1.0) == Admitted(1.0)
    queued = replace(running, queued=1)
    assert isinstance(admit(queued, service_s=9.0, slack_s=60.0, max_wait_s=1.0), Refused)


@settings(max_examples=60, deadline=None)
@given(states, seconds, seconds, seconds)
def test_an_admitted_request_respects_every_limit(
    state: QueueState, service_s: float, slack_s: float, max_wait_s: float
) -> None:
    match admit(state, service_s, slack_s, max_wait_s):
        case Admitted(wait_s):
            assert state.queued < state.capacity
            assert wait_s + (service_s if state.queued else 0.0) <= max_wait_s
            assert wait_s + service_s <= slack_s
        case Refused(reason, retry_after_s):
            assert reason in {"queue_full", "queue_wait", "deadline"}
            assert retry_after_s >= MIN_RETRY_S


@settings(max_examples=60, deadline=None)
@given(states, seconds, seconds, seconds, st.integers(0, 10), seconds, seconds)
def test_what_is_refused_stays_refused_under_more_load_or_with_less_time(
    state: QueueState,
    service_s: float,
    slack_s: float,
    max_wait_s: float,
    more_queued: int,
    more_work_s: float,
    less_s: float,
) -> None:
    if isinstance(admit(state, service_s, slack_s, max_wait_s), Refused):
        worse = replace(
            state, queued=state.queued + more_queued, work_ahead_s=state.work_ahead_s + more_work_s
        )
        assert isinstance(admit(worse, service_s, slack_s - less_s, max_wait_s), Refused)


@settings(max_examples=60, deadline=None)
@given(states, seconds, seconds)
def test_an_idle_model_with_room_refuses_only_for_the_deadline(
    state: QueueState, service_s: float, slack_s: float
) -> None:
    idle = replace(state, queued=0, work_ahead_s=0.0)
    verdict = admit(idle, service_s, slack_s, max_wait_s=0.0)
    assert isinstance(verdict, Admitted) == (service_s <= slack_s)
