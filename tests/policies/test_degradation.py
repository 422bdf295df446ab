"""A part that failed comes back soon when it is well, and never so often that it is a nuisance."""

from __future__ import annotations

from itertools import pairwise
from math import inf, isfinite

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.degradation import (
    CAREFUL_C,
    FAST_RUNS,
    FLAP_S,
    HOLD_S,
    MAX_HOLD_S,
    MAX_RESTART_S,
    MAX_SET_ASIDE_S,
    PROBE_EVERY_S,
    QUIET_S,
    RECENT_S,
    REST_C,
    RESUME_C,
    SET_ASIDE_S,
    SLACK_S,
    SLOW_FACTOR,
    SLOW_HOLD_S,
    SLOW_RUNS,
    SPOILED_LOADS,
    UNUSUAL_FACTOR,
    Breaker,
    Heat,
    Pace,
    fell,
    felt,
    hold_s,
    is_healthy,
    is_in_pace,
    may_try,
    ran,
    restart_after_s,
    set_aside_s,
)

# A part's life: pauses, each followed by a failure or by a sign of health.

pauses = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 2.0, 60.0]), st.floats(0.0, 90.0))
lives = st.lists(st.tuples(pauses, st.booleans()), max_size=60)


def test_a_part_serves_with_its_first_sign_of_health() -> None:
    assert Breaker().is_open
    assert not is_healthy(Breaker(), 5.0).is_open


@settings(max_examples=300)
@given(lives, st.floats(-1e6, 1e6))
@example([(0.0, True), (10.0, False), *[(0.25, True)] * 40], 0.0)
def test_it_never_serves_before_health_has_lasted_and_never_while_it_must_not(
    life: list[tuple[float, bool]], start: float
) -> None:
    breaker, now = Breaker(), start
    well_since: float | None = None
    for pause_s, is_well in life:
        now += pause_s
        if not is_well:
            breaker, well_since = fell(breaker, now), None
            assert breaker.is_open
            continue
        well_since = now if well_since is None else well_since
        before, breaker = breaker, is_healthy(breaker, now)
        if before.is_open and not breaker.is_open:
            assert now - well_since >= hold_s(before, now)
            assert now >= before.not_before


@settings(max_examples=300)
@given(lives, st.sampled_from([0.05, 0.25, 0.3]))
def test_it_serves_when_health_has_lasted_for_the_longest_hold_unless_it_flapped(
    life: list[tuple[float, bool]], every_s: float
) -> None:
    breaker, now = Breaker(), 0.0
    for pause_s, is_well in life:
        now += pause_s
        breaker = is_healthy(breaker, now) if is_well else fell(breaker, now)
    well_since = now
    limit = max(breaker.not_before, well_since + MAX_HOLD_S) + 2 * every_s
    while breaker.is_open:
        now += every_s
        breaker = is_healthy(breaker, now)
        assert now <= limit
    assert breaker.not_before <= max(well_since, 0.0) + QUIET_S


@settings(max_examples=200)
@given(lives)
@example([*[(0.25, True)] * 3, (5.0, False), *[(0.5, True)] * 3, (1.0, False)] * 3)
@example([(0.0, True), (9.0, False), (400.0, True), (0.6, True), (1.0, False)] * 4)
def test_it_flaps_once_a_minute_at_most(life: list[tuple[float, bool]]) -> None:
    """A flap is a return to service that does not last."""
    breaker, now = Breaker(), 0.0
    has_fallen, returned_at = False, -inf
    flaps: list[float] = []
    for pause_s, is_well in [*life, *[(0.5, True), (1.0, False)] * 90]:
        now += pause_s
        before, breaker = breaker, is_healthy(breaker, now) if is_well else fell(breaker, now)
        if has_fallen and before.is_open and not breaker.is_open:
            returned_at = now
        if breaker.is_open and not before.is_open:
            has_fallen = True
            if now - returned_at < FLAP_S:
                flaps.append(now)
    assert all(after - first >= QUIET_S for first, after in pairwise(flaps))


@given(st.lists(st.floats(0.0, RECENT_S / 2), max_size=40))
def test_the_more_often_it_fell_the_longer_it_has_to_be_well(ages: list[float]) -> None:
    now = 100.0
    holds = [hold_s(Breaker(falls=tuple(now - a for a in ages[:n])), now) for n in range(len(ages))]
    assert holds == sorted(holds)
    assert all(hold in (0.0, HOLD_S) or HOLD_S < hold <= MAX_HOLD_S for hold in holds)
    assert holds[:3] == [0.0, HOLD_S, 2 * HOLD_S][: len(holds)]


def test_falls_of_more_than_a_minute_ago_do_not_count() -> None:
    assert hold_s(Breaker(falls=(0.0, 1.0, 2.0)), 2.0 + RECENT_S) == 0.0


def test_a_part_that_falls_again_and_again_for_hours_keeps_a_history_of_a_minute() -> None:
    breaker, now, longest = Breaker(), 0.0, 0
    while now < 4 * 3600.0:
        now += 0.5
        breaker = is_healthy(breaker, now)
        if not breaker.is_open and now - breaker.returned_at >= FLAP_S:
            breaker = fell(breaker, now)
        longest = max(longest, len(breaker.falls))
    assert 5 < longest < RECENT_S / FLAP_S


def test_a_part_that_is_away_for_a_day_forgets_its_falls() -> None:
    breaker = fell(is_healthy(Breaker(), 0.0), 10.0)
    for second in range(0, 86_400, 4):
        breaker = fell(breaker, 10.0 + second)
    assert breaker.falls == ()


# Pauses.


@given(st.integers(0, 10**9))
@example(1100)
def test_pauses_between_attempts_grow_and_are_bounded(failures: int) -> None:
    pauses = [restart_after_s(failures), restart_after_s(failures + 1)]
    assert pauses == sorted(pauses)
    assert all(0.0 <= pause <= MAX_RESTART_S for pause in pauses)
    asides = [set_aside_s(failures), set_aside_s(failures + 1)]
    assert asides == sorted(asides)
    assert all(pause == 0.0 or SET_ASIDE_S <= pause <= MAX_SET_ASIDE_S for pause in asides)


def test_the_first_start_after_one_that_served_waits_for_nothing() -> None:
    assert [restart_after_s(n) for n in range(7)] == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 4.0]


def test_a_model_is_set_aside_when_it_has_failed_several_times() -> None:
    assert [set_aside_s(n) for n in range(SPOILED_LOADS)] == [0.0] * SPOILED_LOADS
    assert set_aside_s(SPOILED_LOADS) == SET_ASIDE_S


# Pace.

seconds = st.floats(1e-6, 10.0)
counts = st.integers(1, 64)


@given(seconds, counts, st.lists(st.tuples(st.floats(0.5, 1.4), seconds), max_size=60))
def test_a_rung_is_never_out_while_it_is_in_its_usual_pace(
    usual_s: float, rows: int, runs: list[tuple[float, float]]
) -> None:
    """However quick the next rung is, and although one run is not like the other."""
    pace = Pace()
    for factor, next_s in runs:
        pace = ran(pace, rows, usual_s * factor, next_s)
        assert not pace.is_out


@given(seconds, seconds, st.lists(st.tuples(counts, seconds), max_size=60))
def test_a_rung_is_never_out_because_its_batches_differ_in_size(
    base_s: float, row_s: float, runs: list[tuple[int, float]]
) -> None:
    pace = Pace()
    for rows, next_s in runs:
        pace = ran(pace, rows, base_s + row_s * rows, next_s)
        assert not pace.is_out


@given(st.lists(st.tuples(counts, seconds, st.floats(0.7, 100.0)), max_size=60))
def test_a_rung_is_never_out_while_the_next_one_is_slower_or_unknown(
    runs: list[tuple[int, float, float]],
) -> None:
    pace = unknown = Pace()
    for rows, taken_s, factor in runs:
        pace = ran(pace, rows, taken_s, taken_s * factor)
        unknown = ran(unknown, rows, taken_s, 0.0)
        assert not pace.is_out
        assert not unknown.is_out


@given(seconds, st.lists(st.tuples(st.floats(0.0, SLACK_S), seconds), max_size=60))
def test_a_rung_is_never_out_for_what_a_busy_processor_adds(
    usual_s: float, runs: list[tuple[float, float]]
) -> None:
    pace = ran(Pace(), 1, usual_s, 0.0)
    for added_s, next_s in runs:
        pace = ran(pace, 1, usual_s + added_s, next_s)
        assert not pace.is_out


@given(seconds, counts, st.floats(1.01, 1000.0), st.lists(st.booleans(), max_size=40))
def test_it_is_out_after_several_slow_runs_in_a_row_and_back_after_some_quick_ones(
    usual_s: float, rows: int, factor: float, pattern: list[bool]
) -> None:
    slow_s = usual_s * UNUSUAL_FACTOR * factor * 1.5 + SLACK_S
    next_s = (slow_s - SLACK_S) / SLOW_FACTOR / 1.01
    pace = ran(Pace(), rows, usual_s, next_s)
    recent: list[bool] = [False]
    is_out = False
    for is_slow in pattern:
        pace = ran(pace, rows, slow_s if is_slow else usual_s, next_s)
        recent.append(is_slow)
        if all(recent[-SLOW_RUNS:]) and len(recent) >= SLOW_RUNS:
            is_out = True
        if not any(recent[-FAST_RUNS:]) and len(recent) >= FAST_RUNS:
            is_out = False
        assert pace.is_out == is_out
    for _ in range(FAST_RUNS):
        pace = ran(pace, rows, usual_s, next_s)
    assert not pace.is_out


def test_one_that_is_slow_has_to_be_well_for_longer() -> None:
    fallen = fell(is_healthy(Breaker(), 0.0), 10.0)
    slow = is_healthy(fallen, 11.0, in_pace=False)
    slow = is_healthy(slow, 11.0 + HOLD_S + SLOW_HOLD_S - 0.01, in_pace=False)
    assert slow.is_open
    assert not is_healthy(slow, 11.0 + HOLD_S + SLOW_HOLD_S, in_pace=False).is_open
    assert not is_healthy(slow, 11.0 + HOLD_S).is_open  # it is in pace again


@given(st.floats(1e-6, 1e3), st.floats(0.0, 1e3))
def test_a_run_is_in_pace_up_to_a_multiple_of_the_usual(usual_s: float, seconds: float) -> None:
    assert is_in_pace(seconds, usual_s) == (seconds - SLACK_S <= UNUSUAL_FACTOR * usual_s)
    assert is_in_pace(seconds, 0.0)  # what is usual is not known


def test_slow_runs_do_not_become_the_usual_ones() -> None:
    pace = ran(Pace(), 1, 0.001, 0.002)
    for _ in range(1000):
        pace = ran(pace, 1, 0.1, 0.002)
    assert pace.is_out
    assert pace.usual_s(1) == 0.001


def test_the_usual_pace_follows_a_device_that_changes_by_little() -> None:
    pace = Pace()
    for step in range(200):
        pace = ran(pace, 1, 0.1 * 1.01**step, 1e-5)
        assert not pace.is_out
    assert 0.3 < pace.usual_s(1) < 0.1 * 1.01**200


@given(st.lists(st.tuples(counts, seconds, st.floats(0.0, 10.0)), max_size=100))
def test_a_pace_stays_a_number(runs: list[tuple[int, float, float]]) -> None:
    pace = Pace()
    for rows, taken_s, next_s in runs:
        pace = ran(pace, rows, taken_s, next_s)
        assert isfinite(pace.run_s)
        assert isfinite(pace.row_s)
        assert min(s for _, s, _ in runs) <= pace.run_s <= max(s for _, s, _ in runs)
        assert pace.row_s <= max(s / r for r, s, _ in runs)


def test_a_rung_that_is_out_is_tried_once_in_a_while() -> None:
    out = Pace(is_out=True, probed_at=10.0)
    assert may_try(Pace(), 10.0)
    assert not may_try(out, 10.0 + PROBE_EVERY_S - 0.01)
    assert may_try(out, 10.0 + PROBE_EVERY_S)


# Heat.

degrees = st.one_of(st.sampled_from([RESUME_C, CAREFUL_C, REST_C]), st.floats(-40.0, 150.0))


@given(st.lists(degrees, max_size=60), st.booleans())
def test_it_rests_from_the_limit_until_it_is_much_cooler(
    readings: list[float], is_throttled: bool
) -> None:
    heat, rests = Heat(), False
    for temperature_c in readings:
        heat = felt(heat, temperature_c, is_throttled=is_throttled)
        if temperature_c >= REST_C:
            rests = True
        elif temperature_c < RESUME_C:
            rests = False
        assert heat.is_resting == rests
        assert heat.is_careful == (is_throttled or temperature_c >= CAREFUL_C)


def test_a_temperature_between_the_limits_changes_nothing() -> None:
    between = (RESUME_C + REST_C) / 2
    assert not felt(Heat(), between, is_throttled=False).is_resting
    assert felt(Heat(is_resting=True), between, is_throttled=False).is_resting


@pytest.mark.parametrize("is_throttled", [False, True])
def test_without_a_sensor_only_throttling_counts(is_throttled: bool) -> None:
    heat = felt(Heat(is_resting=True), None, is_throttled=is_throttled)
    assert heat == Heat(is_resting=False, is_careful=is_throttled)
