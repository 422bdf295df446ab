from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load.bench.stats import Spread, paired_differences, paired_ratios, percentile

TIMES = st.floats(min_value=1e-6, max_value=1e3)


@given(st.lists(TIMES, min_size=1), st.floats(min_value=0, max_value=1))
def test_a_percentile_is_the_least_value_with_enough_values_up_to_it(
    values: list[float], share: float
) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    enough = [v for v in ordered if sum(w <= v for w in ordered) >= share * len(ordered)]
    assert found == min(enough)


def test_percentiles_of_known_values() -> None:
    ordered = [float(n) for n in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 1.5), ([1.0], -0.1)])
def test_percentiles_of_nothing_or_out_of_range_are_errors(
    values: list[float], share: float
) -> None:
    with pytest.raises(ValueError, match=r"percentile|share"):
        percentile(values, share)


def test_a_drifting_machine_cancels_out_of_paired_ratios() -> None:
    drift = [1.0, 3.0, 0.5, 10.0, 2.0]
    ours = [2.0 * d for d in drift]
    theirs = [4.0 * d for d in drift]
    assert paired_ratios(ours, theirs) == Spread(0.5, 0.5, 0.5)


def test_the_median_ratio_is_reported_with_its_extremes() -> None:
    assert paired_ratios([1.0, 4.0, 3.0], [1.0, 1.0, 1.0]) == Spread(3.0, 1.0, 4.0)
    assert paired_differences([1.0, 4.0, 3.0], [1.0, 1.0, 5.0]) == Spread(0.0, -2.0, 3.0)


@given(st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=9))
def test_turning_a_ratio_round_turns_its_extremes_round(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = paired_ratios(ours, theirs), paired_ratios(theirs, ours)
    assert there.least == pytest.approx(1 / back.most)
    assert there.most == pytest.approx(1 / back.least)


def test_rounds_that_do_not_pair_up_are_an_error() -> None:
    with pytest.raises(ValueError, match="paired"):
        paired_ratios([1.0, 2.0], [1.0])
