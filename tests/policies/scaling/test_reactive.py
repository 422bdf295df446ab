from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policies.scaling import NOTHING, Bounds, Observed, Reactive

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray 2.60 uses what pydantic is going to remove
    from ray.serve.autoscaling_policy import _apply_delay_logic
    from ray.serve.config import AutoscalingConfig

RULE = Reactive(Bounds(1, 20), ongoing=2.0, up_s=5.0, down_s=60.0)


@given(
    st.lists(st.floats(0, 40), min_size=1, max_size=200),
    st.sampled_from([(5.0, 60.0), (30.0, 600.0), (0.5, 3.0)]),
)
def test_it_decides_as_ray_serve_does(load: list[float], delays: tuple[float, float]) -> None:
    up_s, down_s = delays
    rule = Reactive(Bounds(1, 20), 2.0, up_s, down_s)
    config = AutoscalingConfig(
        min_replicas=1, max_replicas=20, upscale_delay_s=up_s, downscale_delay_s=down_s
    )
    ours, theirs = 1, 1
    memory = NOTHING
    state: dict[str, Any] = {}
    for second, ongoing in enumerate(load):
        now = 1000.0 + second
        seen = Observed(now, ongoing=ongoing, running=ours, target=ours)
        decision, memory = rule.decide(seen, memory)
        wanted = math.ceil(ongoing / 2.0 - 1e-9)
        theirs, state = _apply_delay_logic(wanted, theirs, config, state, _now=now)
        theirs = min(20, max(1, theirs))  # Serve's `apply_bounds`
        ours = decision.target
        assert ours == theirs


@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0, 5.0]), min_size=1, max_size=200),
    st.sampled_from([0.0, 3.0, 20.0]),
)
def test_the_last_one_ends_and_comes_as_with_ray_serve(load: list[float], idle_s: float) -> None:
    rule = Reactive(Bounds(0, 4), 2.0, 2.0, 5.0, idle_s=idle_s)
    config = AutoscalingConfig(
        min_replicas=0,
        max_replicas=4,
        upscale_delay_s=2.0,
        downscale_delay_s=5.0,
        downscale_to_zero_delay_s=idle_s,
    )
    ours, theirs = 1, 1
    memory = NOTHING
    state: dict[str, Any] = {}
    for second, ongoing in enumerate(load):
        now = 1000.0 + second
        seen = Observed(now, ongoing=ongoing, running=ours, target=ours)
        decision, memory = rule.decide(seen, memory)
        if theirs == 0 and ongoing > 0:  # Serve's `_get_cold_start_scale_up_replicas`
            theirs = 1
        else:
            wanted = math.ceil(ongoing / 2.0 - 1e-9)
            theirs, state = _apply_delay_logic(wanted, theirs, config, state, _now=now)
            theirs = min(4, theirs)
        ours = decision.target
        assert ours == theirs


def test_work_that_comes_or_waits_keeps_the_last_replica() -> None:
    rule = Reactive(Bounds(0, 4), 2.0, idle_s=0.0)
    idle = Observed(0.0, running=1, target=1)
    assert rule.decide(idle, NOTHING)[0].target == 0
    for seen in (replace(idle, queued=0.1), replace(idle, rate=0.1)):
        assert rule.decide(seen, NOTHING)[0].target == 1


def test_one_request_at_zero_wakes_a_replica_at_once() -> None:
    rule = Reactive(Bounds(0, 4), 2.0)
    asleep = Observed(0.0)
    assert rule.decide(asleep, NOTHING)[0].target == 0
    for woken in (replace(asleep, queued=0.1), replace(asleep, ongoing=1), replace(asleep, rate=1)):
        decision, _ = rule.decide(woken, NOTHING)
        assert (decision.target, decision.reason) == (1, "wake")


def test_the_last_replica_goes_after_the_delay_where_it_may() -> None:
    rule = Reactive(Bounds(0, 4), 2.0, down_s=3.0)
    memory, target = NOTHING, 2
    reasons = []
    for second in range(12):
        seen = Observed(float(second), running=target, target=target)
        decision, memory = rule.decide(seen, memory)
        if decision.target != target:
            reasons.append((second, decision.target, decision.reason))
        target = decision.target
    # From two to one first, as Serve does it.
    assert reasons == [(3, 1, "less_load"), (7, 0, "idle")]
