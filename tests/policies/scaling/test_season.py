from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling import find_period


@given(st.integers(20, 60), st.integers(0, 1000))
def test_the_period_of_a_noisy_wave_is_found(period: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    wave = 30 + 20 * np.sin(2 * np.pi * np.arange(5 * period) / period)
    found = find_period(rng.poisson(wave).astype(float), 60.0)
    assert found is not None
    assert found == pytest.approx(60.0 * period, rel=0.1)


def test_a_trend_does_not_hide_it() -> None:
    at = np.arange(400)
    found = find_period(5 + 0.1 * at + np.sin(2 * np.pi * at / 40) * 4, 1.0)
    assert found == pytest.approx(40.0, rel=0.05)


@given(st.integers(0, 200))
def test_nothing_is_found_in_noise(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert find_period(rng.poisson(20.0, 400).astype(float), 1.0) is None


def test_what_only_fades_slowly_is_no_season() -> None:
    rng = np.random.default_rng(4)
    level = np.cumsum(rng.standard_normal(600))
    assert find_period(np.exp(0.05 * (level - level.mean())), 1.0) is None


def test_a_period_that_was_not_seen_twice_is_not_claimed() -> None:
    at = np.arange(150)
    assert find_period(10 + np.sin(2 * np.pi * at / 100), 1.0) is None
    assert find_period(np.array([1.0, 2.0]), 1.0) is None
    assert find_period(np.zeros(100), 1.0) is None


def test_shorter_ones_than_asked_for_are_passed_over() -> None:
    at = np.arange(480)
    both = 10 + 3 * np.sin(2 * np.pi * at / 16) + 4 * np.sin(2 * np.pi * at / 160)
    found = find_period(both, 1.0, least_s=100.0)
    assert found == pytest.approx(160.0, rel=0.05)
