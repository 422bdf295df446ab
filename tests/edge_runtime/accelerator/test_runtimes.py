from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.accelerator.runtimes import (
    FIRST_LIMIT_S,
    LIMIT_FACTOR,
    MIN_LIMIT_S,
    SAMPLES,
    RunTimes,
)

rows = st.integers(1, 64)


def test_a_first_run_has_long_because_it_also_sets_the_device_up() -> None:
    assert RunTimes().limit_s(1) == FIRST_LIMIT_S
    assert RunTimes().typical_s(1) == 0.0


@given(st.lists(rows, min_size=1, max_size=300), rows, st.floats(0.0, 1.0), st.floats(1e-6, 1.0))
def test_no_size_of_batch_comes_near_its_limit_at_the_pace_that_was_seen(
    seen: list[int], batch: int, fixed_s: float, row_s: float
) -> None:
    times = RunTimes()
    for count in seen:
        times.saw(count, fixed_s + row_s * count)
    seconds = fixed_s + row_s * batch
    assert times.typical_s(batch) >= 0.999 * seconds
    assert times.limit_s(batch) >= max(MIN_LIMIT_S, 0.999 * LIMIT_FACTOR * seconds)


def test_a_hang_of_a_quick_model_is_found_in_a_fifth_of_a_second() -> None:
    times = RunTimes()
    for _ in range(50):
        times.saw(4, 0.004)
    assert times.limit_s(1) == times.limit_s(8) == MIN_LIMIT_S
    assert times.typical_s(4) == pytest.approx(0.004)


def test_one_slow_run_in_a_hundred_does_not_move_the_limit_for_long() -> None:
    times = RunTimes()
    for _ in range(SAMPLES):
        times.saw(1, 0.1)
    times.saw(1, 5.0)
    for _ in range(20):
        times.saw(1, 0.1)
    assert times.limit_s(1) == pytest.approx(LIMIT_FACTOR * 0.1)


def test_a_few_slow_runs_do_not_move_what_is_usual_and_many_do() -> None:
    times = RunTimes()
    assert times.usual_s(1) == 0.0
    for _ in range(SAMPLES):
        times.saw(1, 0.1)
    for _ in range(SAMPLES // 3):
        times.saw(1, 2.0)
    assert times.usual_s(1) == pytest.approx(0.1)
    for _ in range(SAMPLES // 3):
        times.saw(1, 2.0)
    assert times.usual_s(1) == pytest.approx(2.0)


def test_a_device_that_has_become_slower_is_given_more_time() -> None:
    times = RunTimes()
    for _ in range(SAMPLES):
        times.saw(1, 0.1)
    for _ in range(40):
        times.saw(1, 0.25)
    assert times.limit_s(1) == pytest.approx(LIMIT_FACTOR * 0.25)


def test_a_device_that_was_slow_for_a_moment_is_not_given_seconds_before_it_hangs() -> None:
    times = RunTimes()
    for _ in range(SAMPLES // 8):
        for batch in range(1, 9):
            times.saw(batch, 0.004 * batch)
    before = times.limit_s(8)
    for _ in range(SAMPLES // 3):
        times.saw(8, 0.64)
    assert times.limit_s(8) == before
    for _ in range(SAMPLES // 2):
        times.saw(8, 0.64)
    assert times.limit_s(8) == pytest.approx(LIMIT_FACTOR * 0.64)  # it has become slow
