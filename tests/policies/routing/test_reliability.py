from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.routing.reliability import IDENTITY, Reliability, corrected_share

shares = st.floats(0.0, 1.0)


def taught(seen: list[tuple[float, bool]]) -> Reliability:
    made = Reliability()
    for predicted, is_late in seen:
        made.saw(predicted, is_late=is_late)
    return made


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(shares, st.booleans()), max_size=300), shares, shares)
def test_a_greater_share_never_becomes_a_smaller_probability(
    seen: list[tuple[float, bool]], one: float, other: float
) -> None:
    line = taught(seen).line
    low, high = sorted((one, other))
    assert corrected_share(line, low) <= corrected_share(line, high) + 1e-12
    assert 0.0 <= corrected_share(line, one) <= 1.0
    assert all(a < b for a, b in pairwise(line[0]))
    assert all(a <= b + 1e-12 for a, b in pairwise(line[1]))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(shares, st.booleans()), max_size=100))
def test_what_cannot_be_and_what_must_be_stay_so(seen: list[tuple[float, bool]]) -> None:
    line = taught(seen).line
    assert corrected_share(line, 0.0) == 0.0
    assert corrected_share(line, 1.0) == 1.0


def test_nothing_is_changed_before_anything_was_seen() -> None:
    assert Reliability().line is IDENTITY
    assert corrected_share(IDENTITY, 0.3) == 0.3


@pytest.mark.parametrize("truth", [0.5, 1.0, 1.6])
def test_predictions_that_are_off_by_a_factor_are_put_right(truth: float) -> None:
    rng = random.Random(3)
    made = Reliability()
    for _ in range(20_000):
        predicted = rng.uniform(0.0, 0.6)
        made.saw(predicted, is_late=rng.random() < predicted * truth)
    for predicted in (0.1, 0.25, 0.35, 0.45):
        assert corrected_share(made.line, predicted) == pytest.approx(predicted * truth, abs=0.08)


def test_a_few_outcomes_change_little() -> None:
    made = taught([(0.25, True)] * 16)
    assert 0.25 < corrected_share(made.line, 0.25) < 0.75


def test_old_outcomes_fade() -> None:
    made = taught([(0.25, True)] * 2000)
    assert corrected_share(made.line, 0.25) > 0.9
    for _ in range(2000):
        made.saw(0.25, is_late=False)
    assert corrected_share(made.line, 0.25) < 0.1
