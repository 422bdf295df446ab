"""The latest values and their quantiles, beside a slow way to the same."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing.window import Window

few_values = st.integers(0, 9).map(float)  # so that many are equal


@settings(max_examples=100, deadline=None)
@given(st.lists(few_values, max_size=60), st.integers(1, 20))
def test_it_keeps_the_latest_in_order(added: list[float], size: int) -> None:
    fast, slow = Window(size), deque[float](maxlen=size)
    for at, value in enumerate(added):
        fast.add(value, float(at))
        slow.append(value)
        assert fast.frozen() == tuple(sorted(slow))
        assert (len(fast), fast.added_at) == (len(slow), at)


@settings(max_examples=200, deadline=None)
@given(st.lists(few_values, min_size=1, max_size=40), st.integers(0, 100))
def test_a_quantile_is_the_least_value_that_the_share_does_not_exceed(
    added: list[float], percent: int
) -> None:
    window = Window(40)
    for value in added:
        window.add(value, 0.0)
    found = window.quantile(percent / 100)
    assert found in added
    assert 100 * sum(value <= found for value in added) >= percent * len(added)
    assert 100 * sum(value < found for value in added) < max(1, percent * len(added))


def test_there_is_no_quantile_of_nothing() -> None:
    window = Window(3)
    window.add(1.0, 0.0)
    window.clear()
    with pytest.raises(ValueError, match="nothing"):
        window.quantile(0.5)
