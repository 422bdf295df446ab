from __future__ import annotations

from policies.scaling import NOTHING, Bounds, Knative, Observed

RULE = Knative(Bounds(0, 20))
CALM = Observed(0.0, capacity=10.0, running=2, target=2)


def _seen(now: float, fast: float, stable: float, target: int, idle_s: float = 0.0) -> Observed:
    return Observed(
        now,
        fast_rate=fast,
        long_rate=stable,
        running=target,
        target=target,
        capacity=10.0,
        idle_s=idle_s,
    )


def test_the_stable_average_decides_in_calm_times() -> None:
    decision, _ = RULE.decide(_seen(0.0, 15.0, 14.0, 2), NOTHING)
    assert (decision.target, decision.reason) == (2, "steady")
    decision, _ = RULE.decide(_seen(0.0, 25.0, 22.0, 3), NOTHING)
    assert (decision.target, decision.reason) == (4, "load")
    decision, _ = RULE.decide(_seen(0.0, 7.0, 7.0, 3), NOTHING)
    assert (decision.target, decision.reason) == (1, "less_load")


def test_in_panic_nothing_is_taken_away_until_the_stable_window_has_passed() -> None:
    decision, memory = RULE.decide(_seen(0.0, 42.0, 14.0, 2), NOTHING)
    assert (decision.target, decision.reason) == (6, "burst")
    decision, memory = RULE.decide(_seen(59.0, 1.0, 1.0, 6), memory)
    assert (decision.target, decision.reason) == (6, "panic")
    decision, memory = RULE.decide(_seen(60.0, 1.0, 1.0, 6), memory)
    assert decision.target == 1


def test_the_last_replica_stays_until_the_window_was_empty() -> None:
    assert RULE.decide(_seen(0.0, 0.0, 0.0, 1, idle_s=30.0), NOTHING)[0].target == 1
    assert RULE.decide(_seen(0.0, 0.0, 0.0, 1, idle_s=60.0), NOTHING)[0].target == 0
