"""Sizes fall into powers of two, and each place learns what they cost it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing.sizes import BUCKETS, SizeModel, bucket
from tests.policies.routing.strategies import ratios

buckets = st.integers(0, BUCKETS - 1)
sights = st.lists(st.tuples(buckets, ratios), min_size=1, max_size=60)


def learned(seen: list[tuple[int, float]]) -> tuple[float, ...]:
    model = SizeModel()
    found: tuple[float, ...] = ()
    for where, relative in seen:
        found = model.saw(where, relative)
    return found


def slow_means(seen: list[tuple[int, float]]) -> dict[int, float]:
    """Return the moving mean of each bucket that was seen."""
    means: dict[int, float] = {}
    for where, relative in seen:
        means[where] = 0.9 * means.get(where, relative) + 0.1 * relative
    return means


@pytest.mark.parametrize(
    ("size", "where"), [(0, 0), (0.9, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1024, 11), (-5, 0)]
)
def test_a_bucket_holds_sizes_up_to_the_next_power_of_two(size: float, where: int) -> None:
    assert bucket(size) == where


@settings(max_examples=200, deadline=None)
@given(st.floats(0.0, 1e15), st.floats(1.0, 1e3))
def test_a_larger_size_is_never_in_a_smaller_bucket(size: float, factor: float) -> None:
    assert 0 <= bucket(size) <= bucket(size * factor) < BUCKETS


def test_the_last_bucket_holds_whatever_is_larger() -> None:
    assert bucket(2 ** (BUCKETS - 2)) == bucket(10**30) == BUCKETS - 1


def test_the_first_request_seen_stands_for_all_sizes() -> None:
    assert learned([(5, 3.0)]) == (3.0,) * BUCKETS


def test_a_size_that_was_not_seen_is_judged_by_the_nearest_that_was_the_smaller_of_two() -> None:
    found = learned([(4, 1.0), (8, 16.0)])
    assert found[:7] == (1.0,) * 7
    assert found[7:] == (16.0,) * (BUCKETS - 7)


@settings(max_examples=200, deadline=None)
@given(sights)
def test_each_size_is_within_a_hundredth_of_its_own_moving_mean(
    seen: list[tuple[int, float]],
) -> None:
    found = learned(seen)
    for where, mean in slow_means(seen).items():
        assert found[where] == pytest.approx(mean, rel=0.0101)


@settings(max_examples=200, deadline=None)
@given(sights)
def test_there_is_a_work_for_each_size_and_none_is_out_of_what_was_seen(
    seen: list[tuple[int, float]],
) -> None:
    found = learned(seen)
    least, most = min(work for _, work in seen), max(work for _, work in seen)
    assert len(found) == BUCKETS
    assert all(least - 1e-9 <= work <= most + 1e-9 for work in found)


def test_what_nobody_would_notice_leaves_the_works_as_they_are() -> None:
    model = SizeModel()
    before = model.saw(3, 1.0)
    assert model.saw(3, 1.05) is before


def test_many_changes_that_nobody_would_notice_are_noticed_together() -> None:
    assert learned([(3, 1.0), *[(3, 1.05)] * 40])[3] == pytest.approx(1.05, rel=0.011)
