"""A regression that learns, forgets, and stays finite whatever it is told."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing.ridge import EVERY, Ridge

bounded = st.floats(-3.0, 3.0)


def taught(rows: Sequence[Sequence[float]], outcomes: Sequence[float], memory: float) -> Ridge:
    found = Ridge(len(rows[0]), 1, memory, penalty=1.0)
    for row, outcome in zip(rows, outcomes, strict=True):
        found.saw(row, (outcome,))
    return found


def drawn(count: int, seed: int) -> list[tuple[float, float, float]]:
    rng = Random(seed)
    return [(1.0, rng.gauss(0.5, 1.0), 10.0 * rng.gauss(0.0, 0.1)) for _ in range(count)]


@settings(max_examples=50, deadline=None)
@given(bounded, bounded, bounded)
def test_it_finds_a_linear_law(base: float, first: float, second: float) -> None:
    rows = drawn(20 * EVERY, 1)
    found = taught(rows, [base + first * a + second * b for _, a, b in rows], memory=1e5)
    predicted = found.predict([(1.0, 0.0, 0.0), (1.0, 1.0, -1.0)])
    assert predicted[0][0] == pytest.approx(base, abs=0.1)
    assert predicted[1][0] == pytest.approx(base + first - second, abs=0.1)


def test_it_is_the_ridge_regression_over_standardised_figures() -> None:
    rows = drawn(4 * EVERY, 2)
    outcomes = [3.0 * a - b for _, a, b in rows]
    found = taught(rows, outcomes, memory=1e12)
    raw = np.array(rows)
    spread = raw[:, 1:].std(axis=0)
    x = np.column_stack((np.ones(len(raw)), raw[:, 1:] / spread))
    w = np.linalg.solve(x.T @ x + np.eye(3), x.T @ np.array(outcomes))
    probe = np.array((0.3, -2.0))
    expected = w[0] + (probe / spread) @ w[1:]
    assert found.predict([(1.0, *probe)])[0][0] == pytest.approx(float(expected), rel=1e-6)


def test_it_follows_a_law_that_changes() -> None:
    rows = drawn(100 * EVERY, 3)
    half = len(rows) // 2
    outcomes = [a if i < half else -a for i, (_, a, _) in enumerate(rows)]
    assert taught(rows, outcomes, 100.0).predict([(1.0, 1.0, 0.0)])[0][0] < -0.8
    assert abs(taught(rows, outcomes, 1e6).predict([(1.0, 1.0, 0.0)])[0][0]) < 0.2


def test_what_it_has_seen_it_knows_better() -> None:
    found = Ridge(2, 1, 1e3, 1.0)
    before = found.spread([(1.0, 1.0)])[0]
    for index in range(2 * EVERY):
        found.saw((1.0, float(index % 2)), (0.0,))
    seen, unseen = found.spread([(1.0, 1.0), (1.0, 3.0)])
    assert seen < unseen
    assert seen < before


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(bounded, bounded, bounded), min_size=1, max_size=8), st.integers(1, 60))
def test_it_stays_finite_however_often_the_same_comes(
    rows: list[tuple[float, float, float]], times: int
) -> None:
    found = Ridge(3, 1, 50.0, 1.0)
    for _ in range(times):
        for a, b, outcome in rows:
            found.saw((1.0, a, b), (outcome,))
    assert np.isfinite(found.weights).all()
    assert np.isfinite(found.spread([(1.0, 3.0, -3.0)])).all()
    assert abs(found.predict([(1.0, 0.0, 0.0)])[0][0]) < 1e4
