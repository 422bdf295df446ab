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
