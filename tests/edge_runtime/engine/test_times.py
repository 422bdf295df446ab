from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.engine.times import INLINE_S, LEARN_EVERY, ServiceTimes


def test_nothing_is_expected_before_anything_was_seen() -> None:
    assert ServiceTimes(has_fixed_rows=True).estimate(4) == 0.0


def test_an_unseen_size_is_judged_by_the_nearest_that_was_seen() -> None:
    times = ServiceTimes(has_fixed_rows=True)
    times.saw(4, 0.4)
    assert times.estimate(4) == times.estimate(1) == 0.4
    assert times.estimate(16) == pytest.approx(1.6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 64), st.floats(1e-6, 10.0)), min_size=1, max_size=30))
def test_an_estimate_stays_within_what_was_seen_of_that_size(
    runs: list[tuple[int, float]],
) -> None:
    times = ServiceTimes(has_fixed_rows=True)
    for rows, seconds in runs:
        times.saw(rows, seconds)
    for rows, _ in runs:
        alike = [s for r, s in runs if r.bit_length() == rows.bit_length()]
        assert min(alike) * (1 - 1e-9) <= times.estimate(rows) <= max(alike) * (1 + 1e-9)
    per_row = [seconds / rows for rows, seconds in runs]
    assert min(per_row) * (1 - 1e-9) <= times.row_s <= max(per_row) * (1 + 1e-9)


def test_an_estimate_follows_a_model_that_has_become_slower() -> None:
    times = ServiceTimes(has_fixed_rows=True)
    times.saw(1, 0.001)
    for _ in range(30):
        times.saw(1, 0.1)
    assert times.estimate(1) == pytest.approx(0.1, rel=0.01)


def test_the_least_time_outlives_disturbances_and_is_forgotten_in_the_end() -> None:
    times = ServiceTimes(has_fixed_rows=True)
    assert times.least(1) == 0.0
    times.saw(1, 0.001)
    for _ in range(20):
        times.saw(1, 0.1)
    assert 0.001 <= times.least(1) < 0.002
    for _ in range(1000):
        times.saw(1, 0.1)
    assert times.least(1) == pytest.approx(0.1)


RUNS = st.lists(st.tuples(st.integers(1, 16), st.floats(1e-6, 4 * INLINE_S)), max_size=20)


@settings(max_examples=100, deadline=None)
@given(RUNS, st.integers(1, 16), st.integers(1, 16))
def test_the_largest_quick_batch_is_quick_and_not_larger_than_wanted(
    runs: list[tuple[int, float]], least: int, most: int
) -> None:
    times = ServiceTimes(has_fixed_rows=True)
    for rows, seconds in runs:
        times.saw(rows, seconds)
    found = times.quick_rows(least, most)
    if found:
        assert times.is_quick(found)
        assert least <= found <= max(least, most)
    else:
        assert not times.is_quick(least)


def test_the_smallest_batch_is_quick_whatever_a_larger_one_of_its_size_takes() -> None:
    times = ServiceTimes(has_fixed_rows=True)
    times.saw(3, 0.6 * INLINE_S)
    times.saw(4, 1.2 * INLINE_S)
    assert times.quick_rows(3, 8) == 3


def test_rows_of_unequal_work_are_never_quick() -> None:
    times = ServiceTimes(has_fixed_rows=False)
    times.saw(1, 1e-6)
    assert not times.is_quick(1)
    assert times.quick_rows(1, 8) == 0
    for _ in range(2 * LEARN_EVERY):
        times.saw(8, 1e-6)
    assert not times.is_single_due()


def test_nothing_is_quick_before_anything_was_seen() -> None:
    assert ServiceTimes(has_fixed_rows=True).quick_rows(1, 8) == 0
    assert not ServiceTimes(has_fixed_rows=True).is_single_due()


def test_a_lone_row_is_due_after_as_many_batches_and_then_no_more() -> None:
    times = ServiceTimes(has_fixed_rows=True)
    times.saw(1, 1e-5)
    for _ in range(LEARN_EVERY):
        assert not times.is_single_due()
        times.saw(8, 0.01)
    assert times.is_single_due()
    times.saw(1, 1e-5)
    assert not times.is_single_due()
