from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from policies.scaling import Forecast, History, Season, forecast
from policies.scaling.forecast import Basis

PERIOD_S = 240.0
SEASON = Season.of(PERIOD_S, 5.0)  # windows of 20, 5 and 100 s


def _made(works: NDArray[np.float64] | Sequence[float], last: Basis = "level") -> Forecast:
    past, recent = SEASON.past(), SEASON.recent()
    for second, work in enumerate(works):
        past.add(second + 0.5, float(work))
        recent.add(second + 0.5, float(work))
    return forecast((past,), recent, SEASON, float(len(works)), last)


def _days(days: float, seed: int = 1, sharp: bool = True) -> NDArray[np.float64]:
    """A flat day with a sudden peak from 100 to 130 s, with the noise of counts."""
    second = np.arange(int(days * PERIOD_S))
    phase = second % PERIOD_S
    rate = (
        np.where((phase >= 100) & (phase < 130), 200.0, 40.0)
        if sharp
        else np.full(len(second), 40.0)
    )
    return np.random.default_rng(seed).poisson(rate).astype(float)


def test_a_peak_that_came_each_day_is_expected_before_it_comes() -> None:
    before = int(2 * PERIOD_S + 96)
    found = _made(_days(3)[:before], last="season")
    assert (found.basis, found.why_not) == ("season", "")
    assert 200.0 <= found.peak <= 400.0
    without = _made(_days(3, sharp=False)[:before])
    assert without.peak < 80.0


def test_todays_level_counts_not_that_of_the_past() -> None:
    days = _days(3)
    days[int(2 * PERIOD_S) :] *= 1.5
    before = int(2 * PERIOD_S + 96)
    found = _made(days[:before], last="season")
    assert found.basis == "season"
    assert 300.0 <= found.peak <= 600.0


def test_a_season_that_is_wrong_is_not_followed() -> None:
    rng = np.random.default_rng(3)
    # Bursts at other times of each day.
    works = rng.poisson(40.0, int(4 * PERIOD_S)).astype(float)
    for day, at in enumerate((20, 150, 80, 190)):
        begin = int(day * PERIOD_S) + at
        works[begin : begin + 25] += 160.0
    now = int(3 * PERIOD_S + 86)  # where there was a burst yesterday
    found = _made(works[:now])
    assert found.basis == "level"
    assert found.peak < 80.0


def test_without_history_it_says_so() -> None:
    assert _made([]).why_not == "no_history"
    assert _made([5.0] * 30).why_not == "no_history"
    assert _made([5.0] * 60).why_not == ""


def test_traffic_that_cannot_be_foreseen_makes_it_unusable() -> None:
    works = np.zeros(400)
    works[np.random.default_rng(5).random(400) < 0.04] = 500.0
    assert _made(works).why_not == "error"


def test_the_headroom_covers_the_share_that_was_asked_for() -> None:
    found = _made(_days(3, seed=9))
    assert found.covered == pytest.approx(SEASON.quantile, abs=0.02)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 1000), st.integers(0, 50), st.booleans())
def test_it_is_the_same_in_any_unit_of_work(unit: float, seed: int, sharp: bool) -> None:
    works = _days(2.4, seed, sharp)
    found, scaled = _made(works), _made(works * unit)
    assert scaled.basis == found.basis
    assert scaled.peak == pytest.approx(found.peak * unit, rel=1e-6)
    assert _made(works) == found


def test_more_of_everything_never_lowers_it() -> None:
    works = _days(2.4, 7)
    peaks = [_made(works * factor).peak for factor in (0.5, 1.0, 1.1, 3.0)]
    assert all(a < b for a, b in pairwise(peaks))


def test_parts_of_the_past_count_together() -> None:
    works = _days(2.4, 2)
    whole = _made(works)
    one, other, recent = SEASON.past(), SEASON.past(), SEASON.recent()
    for second, work in enumerate(works):
        (one if second % 3 else other).add(second + 0.5, float(work))
        recent.add(second + 0.5, float(work))
    assert forecast((one, other), recent, SEASON, float(len(works))).peak == pytest.approx(
        whole.peak
    )


def test_what_never_came_is_expected_not_to_come() -> None:
    works = [5.0] + [0.0] * 500
    found = _made(works)
    assert (found.peak < 1e-6, found.why_not) == (True, "")


def test_a_season_is_eight_starts_long_at_least() -> None:
    assert Season.of(96.0, 10.0).lead_s == 12.0
    with pytest.raises(ValueError, match="96 s at least"):
        Season.of(95.0, 10.0)


def test_a_day_is_remembered_by_the_minute_and_a_short_season_by_the_second() -> None:
    day = Season.of(86400.0, 10.0).past()
    assert (day.bucket_s, day.buckets) == (60.0, 10800)
    assert Season.of(480.0, 10.0).past().bucket_s == 1.0
    assert isinstance(day, History)


def test_right_after_the_first_season_there_is_too_little_to_judge_it_by() -> None:
    found = _made(_days(1.06))
    assert (found.seasons, found.basis, found.why_not) == (1, "level", "")
