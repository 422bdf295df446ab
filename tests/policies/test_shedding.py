"""A burst passes, a standing queue is cut, and shedding ends when the delay has gone."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.shedding import INTERVAL_S, NO_BACKLOG, shed

TARGET_S = 0.05
LATE_S = 2 * TARGET_S
STEP_S = INTERVAL_S / 500  # a thousand requests a second
delays = st.floats(0.0, 10 * TARGET_S)
steps = st.floats(0.0, 2 * INTERVAL_S)


def run(requests: Iterable[tuple[float, float]]) -> list[bool]:
    """Tell for each (now, delay) whether it was refused."""
    backlog = NO_BACKLOG
    refused = []
    for now, delay_s in requests:
        backlog, is_refused = shed(backlog, delay_s, now, TARGET_S)
        refused.append(is_refused)
    return refused


def row(start: int, count: int, delay_s: float) -> list[tuple[float, float]]:
    """Return as many requests, one a step."""
    return [(i * STEP_S, delay_s) for i in range(start, start + count)]


def test_a_burst_shorter_than_the_interval_passes() -> None:
    assert not any(run(row(0, 490, LATE_S)))


def test_a_standing_queue_is_cut_after_an_interval() -> None:
    refused = run(row(0, 2000, LATE_S))
    assert not any(refused[:500])
    assert all(refused[800:])


def test_somebody_in_time_among_many_late_ones_does_not_hide_the_queue() -> None:
    requests = [(i * STEP_S, 0.0 if i % 4 == 3 else 2 * LATE_S) for i in range(2000)]
    refused = run(requests)
    assert not any(refused[:500])
    assert [not is_refused for is_refused in refused[800:]] == [
        i % 4 == 3 for i in range(800, 2000)
    ]


def test_shedding_ends_when_the_delay_was_well_for_an_interval() -> None:
    refused = run([*row(0, 1000, LATE_S), *row(1000, 700, 0.0), *row(1700, 400, LATE_S)])
    assert any(refused[:1000])
    assert not any(refused[1000:])


def test_few_requests_that_wait_are_left_alone_however_late_they_are() -> None:
    step_s = INTERVAL_S / 10  # twenty a second
    assert not any(run((i * step_s, 6 * LATE_S) for i in range(200)))
    assert any(run((i * step_s, 20 * LATE_S) for i in range(200)))


def test_after_a_silence_everything_begins_anew() -> None:
    assert not any(run([*row(0, 1000, LATE_S), *row(1650, 400, LATE_S)])[1000:])
    assert not any(run((i * (INTERVAL_S + LATE_S), LATE_S) for i in range(50)))


def test_a_pause_of_the_server_is_no_silence() -> None:
    """Who comes while it stands still waits all the longer."""
    pause_s = 1.2 * INTERVAL_S
    after = [(now + pause_s, delay_s + pause_s) for now, delay_s in row(1000, 100, LATE_S)]
    refused = run([*row(0, 1000, LATE_S), *after])
    assert all(refused[900:])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 0.1), delays), max_size=100), st.floats(1e-5, 1.0))
def test_nobody_in_time_is_refused_and_nobody_before_an_interval_has_passed(
    requests: list[tuple[float, float]], scale: float
) -> None:
    began = now = 0.0
    backlog = NO_BACKLOG
    for step_s, delay_s in requests:
        before, now = now, now + step_s * scale
        if now - delay_s - before >= INTERVAL_S:
            began = now
        backlog, is_refused = shed(backlog, delay_s, now, TARGET_S)
        assert backlog.delay_s <= max(d for _, d in requests) + 1e-9
        if is_refused:
            assert delay_s > TARGET_S
            assert now - began >= INTERVAL_S
