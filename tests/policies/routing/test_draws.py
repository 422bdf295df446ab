"""Draws are even, repeatable by a request's bits, and independent of each other by their salt."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing.draws import uniform

bits = st.integers(0, 2**64 - 1)


@settings(max_examples=160, deadline=None)
@given(bits, st.integers(0, 1000))
def test_a_draw_is_at_least_zero_and_less_than_one(draw: int, salt: int) -> None:
    assert 0.0 <= uniform(draw, salt) < 1.0


@settings(max_examples=100, deadline=None)
@given(bits, st.integers(0, 1000), st.integers(1, 1000))
def test_a_draw_with_another_salt_is_another_number(draw: int, salt: int, more: int) -> None:
    assert uniform(draw, salt) != uniform(draw, salt + more)


def test_draws_from_bits_that_are_alike_are_spread_evenly() -> None:
    tenths = Counter(int(10 * uniform(draw)) for draw in range(10_000))
    assert set(tenths) == set(range(10))
    assert all(900 < count < 1100 for count in tenths.values())


def test_draws_of_one_request_do_not_depend_on_each_other() -> None:
    both = sum(uniform(d, 0) < 0.5 and uniform(d, 1) < 0.5 for d in range(10_000))
    assert 2300 < both < 2700
