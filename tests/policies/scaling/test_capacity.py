from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling import Capacity
from policies.scaling.capacity import WIDEST

seconds = st.tuples(
    st.floats(0.0, 1e4, allow_subnormal=False),  # done
    st.floats(0.0, 50.0),  # busy
    st.integers(0, 50),  # replicas
    st.booleans(),  # all wait
)


def _after(capacity: Capacity, told: list[tuple[float, float, int, bool]]) -> float:
    for done, busy, replicas, all_wait in told:
        capacity.learn(done, busy, replicas, all_wait=all_wait)
    return capacity.value


@given(st.lists(seconds, max_size=50), st.floats(1e-3, 1e3))
def test_it_stays_within_what_can_be_believed(
    told: list[tuple[float, float, int, bool]], prior: float
) -> None:
    assert prior / WIDEST <= _after(Capacity(prior), told) <= prior * WIDEST


@given(st.lists(seconds, max_size=50), st.floats(1e-3, 1e3))
def test_the_unit_of_work_does_not_matter(
    told: list[tuple[float, float, int, bool]], unit: float
) -> None:
    plain = _after(Capacity(), told)
    scaled = [(unit * done, busy, replicas, wait) for done, busy, replicas, wait in told]
    assert _after(Capacity(unit), scaled) == pytest.approx(unit * plain)


@given(
    true=st.floats(0.02, 50.0),
    share=st.floats(0.3, 1.0),
    replicas=st.integers(1, 20),
    every=st.integers(1, 5),
)
def test_what_replicas_do_is_known_after_some_minutes(
    true: float, share: float, replicas: int, every: int
) -> None:
    busy = share * replicas
    told = [
        (every * true * busy if second % every == every - 1 else 0.0, busy, replicas, False)
        for second in range(600)
    ]
    # The prior counts for half a second of at least 45 busy ones, an answer for five of them.
    assert _after(Capacity(), told) == pytest.approx(true, rel=0.05, abs=0.02)


@given(true=st.floats(0.3, 0.9), wrong=st.floats(1.5, 5.0))
def test_replicas_that_became_slower_are_soon_known_where_requests_wait(
    true: float, wrong: float
) -> None:
    capacity = Capacity()
    assert _after(capacity, [(3 * wrong, 3.0, 3, False)] * 400) > 0.95 * wrong
    assert _after(capacity, [(3 * true, 3.0, 3, True)] * 90) == pytest.approx(true, rel=0.15)


@given(st.lists(st.tuples(st.floats(0.0, 50.0), st.integers(0, 50), st.booleans())))
def test_without_answers_nothing_is_learned(told: list[tuple[float, int, bool]]) -> None:
    assert _after(Capacity(2.0), [(0.0, *second) for second in told]) == 2.0


def test_a_long_time_without_answers_does_not_count_for_good() -> None:
    capacity = Capacity()
    _after(capacity, [(1.0, 1.0, 1, False)] * 400)
    _after(capacity, [(0.0, 1.0, 1, False)] * 3600)
    assert _after(capacity, [(1.0, 1.0, 1, False)] * 300) == pytest.approx(1.0, rel=0.15)
