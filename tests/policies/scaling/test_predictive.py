from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.scaling import NOTHING, Bounds, Forecast, Memory, Observed, Predictive, Reactive
from policies.scaling.types import REASONS

BOUNDS = Bounds(1, 30)
RULE = Predictive(Reactive(BOUNDS, 3.0), hold_s=20.0, panic_s=30.0, idle_s=300.0)
SLEEPY = Predictive(Reactive(Bounds(0, 30), 3.0), hold_s=20.0, idle_s=300.0)


def _seen(now: float = 100.0, peak: float = 55.0, **changes: Any) -> Observed:
    """Five replicas of 12 work a second, four and a half busy, and a forecast of that."""
    seen = Observed(
        now,
        rate=52.0,
        fast_rate=52.0,
        long_rate=52.0,
        ongoing=13.0,
        running=5,
        target=5,
        capacity=12.0,
        forecast=Forecast(now, peak=peak),
    )
    return replace(seen, **changes)


@st.composite
def observed(draw: st.DrawFn) -> Observed:
    running = draw(st.integers(0, 20))
    return _seen(
        peak=draw(st.floats(0, 400)),
        rate=draw(st.floats(0, 400)),
        fast_rate=draw(st.floats(0, 400)),
        ongoing=draw(st.floats(0, 100)),
        queued=draw(st.floats(0, 200)),
        running=running,
        starting=draw(st.integers(0, 5)),
        target=running + draw(st.integers(0, 5)),
        capacity=draw(st.floats(0, 30)),
        idle_s=draw(st.sampled_from([0.0, 400.0])),
        edge_capacity=tuple(draw(st.lists(st.floats(0, 50), max_size=3))),
    )


def test_the_forecast_says_how_many() -> None:
    for peak, target in ((55.0, 5), (60.0, 5), (60.1, 6), (300.0, 25)):
        decision, memory = RULE.decide(_seen(peak=peak), NOTHING)
        assert decision.target == target
        assert (decision.rule, memory.is_trusting) == ("predictive", True)
    assert RULE.decide(_seen(peak=300.0), NOTHING)[0].reason == "forecast"
    assert RULE.decide(_seen(), NOTHING)[0].reason == "steady"


@given(observed(), st.sampled_from(["peak", "rate", "queued", "ongoing"]), st.floats(0, 300))
def test_more_load_never_means_fewer_replicas(seen: Observed, what: str, more: float) -> None:
    if what == "peak":
        assert seen.forecast is not None
        busier = replace(seen, forecast=replace(seen.forecast, peak=seen.forecast.peak + more))
    else:
        busier = replace(seen, **{what: getattr(seen, what) + more})
    for memory in (NOTHING, Memory(wish=1, wish_since=0.0), Memory(panic_until=200.0, floor=4)):
        for rule in (RULE, SLEEPY):
            fewer, _ = rule.decide(seen, memory)
            assert rule.decide(busier, memory)[0].target >= fewer.target


@given(observed(), st.lists(st.floats(0, 100), max_size=3).map(tuple))
def test_more_at_the_edge_never_means_more_in_the_cloud(
    seen: Observed, more: tuple[float, ...]
) -> None:
    helped = replace(seen, edge_capacity=seen.edge_capacity + more)
    assert RULE.decide(helped, NOTHING)[0].target <= RULE.decide(seen, NOTHING)[0].target


@given(observed())
def test_it_decides_the_same_from_the_same(seen: Observed) -> None:
    first = RULE.decide(seen, NOTHING)
    assert RULE.decide(seen, NOTHING) == first
    assert BOUNDS.minimum <= first[0].target <= BOUNDS.maximum
    assert first[0].seen == seen
    assert first[0].reason in REASONS


@given(st.lists(st.floats(0, 300), min_size=2, max_size=80))
def test_nothing_is_taken_away_that_was_needed_within_the_hold(peaks: list[float]) -> None:
    memory, target = NOTHING, 1
    needed: list[int] = []
    for second, peak in enumerate(peaks):
        now = float(second)
        alone, _ = RULE.decide(_seen(now, peak, rate=0.0, running=target, target=1), NOTHING)
        needed.append(alone.target)
        seen = _seen(now, peak, rate=0.0, running=target, target=target)
        decision, memory = RULE.decide(seen, memory)
        target = decision.target
        assert target == max(needed[-20:])


def test_load_that_stays_changes_nothing() -> None:
    memory, target, changes = NOTHING, 5, 0
    for tenth in range(3000):
        seen = _seen(tenth / 10, 59.9 + 0.2 * (tenth % 2), running=target, target=target)
        decision, memory = RULE.decide(seen, memory)
        changes += decision.target != target
        target = decision.target
    assert (target, changes) == (6, 1)


def test_more_than_the_replicas_can_do_is_answered_at_once_and_held() -> None:
    burst = _seen(rate=90.0, fast_rate=90.0, peak=30.0)
    decision, memory = RULE.decide(burst, NOTHING)
    assert (decision.target, decision.reason) == (9, "burst")
    later = _seen(125.0, 30.0, rate=20.0, running=9, target=9)
    decision, memory = RULE.decide(later, memory)
    assert (decision.target, decision.reason) == (9, "panic")
    decision, _ = RULE.decide(_seen(130.0, 30.0, rate=20.0, running=9, target=9), memory)
    assert decision.target == 3


@pytest.mark.parametrize("rates", [{"rate": 90.0}, {"fast_rate": 90.0}])
def test_a_burst_that_is_over_or_has_just_begun_is_none_yet(rates: dict[str, float]) -> None:
    assert RULE.decide(_seen(**rates), NOTHING)[0].reason == "steady"
    assert RULE.decide(_seen(**rates, queued=60.0), NOTHING)[0].reason == "burst"


def test_replicas_that_start_already_are_not_asked_for_again() -> None:
    decision, _ = RULE.decide(
        _seen(rate=90.0, fast_rate=90.0, starting=5, target=10, peak=100.0), NOTHING
    )
    assert decision.reason != "burst"


def test_the_reactive_rule_decides_while_there_is_no_good_forecast() -> None:
    bad = [
        None,
        Forecast(100.0, 500.0, why_not="error"),
        Forecast(90.0, 500.0),  # too old
        Forecast(102.0, 500.0),  # of another clock
    ]
    for found in bad:
        seen = _seen(forecast=found, ongoing=100.0)
        decision, memory = RULE.decide(seen, NOTHING)
        assert (decision.target, decision.rule, memory.is_trusting) == (5, "reactive", False)
        decision, memory = RULE.decide(replace(seen, now=seen.now + 5.0), memory)
        assert (decision.target, decision.reason) == (30, "maximum")
    unmeasured, _ = RULE.decide(_seen(capacity=0.0), NOTHING)
    assert unmeasured.rule == "reactive"


def test_a_burst_is_answered_without_a_forecast_too() -> None:
    rule = Predictive(Reactive(BOUNDS, 3.0, down_s=5.0), panic_s=30.0)
    decision, memory = rule.decide(_seen(forecast=None, rate=90.0, fast_rate=90.0), NOTHING)
    assert (decision.target, decision.reason) == (9, "burst")
    for now in (105.0, 110.0):
        held = _seen(now, forecast=None, rate=1.0, ongoing=1.0, running=9, target=9)
        decision, memory = rule.decide(held, memory)
    assert (decision.target, decision.reason) == (9, "panic")


def test_the_edge_takes_its_share_and_a_spare_one_does_not() -> None:
    seen = _seen(peak=110.0, edge_capacity=(36.0, 24.0))
    assert RULE.decide(seen, NOTHING)[0].target == 5
    assert replace(RULE, spare_largest=True).decide(seen, NOTHING)[0].target == 8


def test_the_last_replica_sleeps_only_after_silence_and_wakes_at_once() -> None:
    quiet = _seen(peak=0.0, rate=0.0, ongoing=0.0, running=1, target=1, idle_s=100.0)
    assert SLEEPY.decide(quiet, NOTHING)[0].target == 1
    asleep, memory = SLEEPY.decide(replace(quiet, idle_s=300.0), NOTHING)
    assert (asleep.target, asleep.reason) == (0, "idle")
    woken = replace(quiet, running=0, target=0, idle_s=0.0, now=101.0)
    for seen in (replace(woken, rate=0.1), replace(woken, queued=0.1), woken):
        decision, _ = SLEEPY.decide(seen, memory)
        assert decision.target == 1
        assert decision.reason in {"wake", "burst"}


def test_a_peak_that_is_foreseen_wakes_before_it_comes() -> None:
    seen = _seen(peak=30.0, rate=0.0, ongoing=0.0, running=0, target=0, idle_s=900.0)
    decision, _ = SLEEPY.decide(seen, NOTHING)
    assert (decision.target, decision.reason) == (3, "forecast")
