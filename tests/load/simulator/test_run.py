"""A simulation is repeatable, loses nobody, and its omniscient router foresees what happens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.simulator.node import Job, Node
from load.simulator.omniscient import finish_at
from load.simulator.run import Outcomes, Plan, Simulation
from load.simulator.trace import Trace, calm
from load.simulator.world import Cut, NodeSpec, Throttle, reference
from policies.routing import choose
from policies.routing.classical import RULES

SHORT = calm(1, duration_s=120.0)
PLAN = Plan(reference(), SHORT, 0.6, choose)


def run(**changes: Any) -> Outcomes:
    return Simulation(replace(PLAN, **changes)).run()


def test_a_run_is_repeatable_by_its_seed() -> None:
    first, again, other = run(), run(), run(seed=2)
    assert np.array_equal(first.delay_s, again.delay_s)
    assert first.target == again.target
    assert not np.array_equal(first.delay_s, other.delay_s)


@pytest.mark.parametrize("by_deadline", [True, False])
@pytest.mark.parametrize("name", [*RULES, "ours", "omniscient"])
def test_every_request_ends_under_every_rule(name: str, by_deadline: bool) -> None:
    rule = {"ours": choose, "omniscient": None, **RULES}[name]
    found = run(
        rule=rule, discipline="edf" if by_deadline else "fifo", drops=by_deadline, utilisation=1.2
    )
    ended = {outcome: found.outcome.count(outcome) for outcome in set(found.outcome)}
    assert set(ended) <= ({"ok", "dropped", "refused"} if by_deadline else {"ok"})
    assert ended["ok"] > 0
    assert (np.nan_to_num(found.delay_s) >= 0).all()
    assert np.isnan(found.delay_s).sum() == len(found.outcome) - ended["ok"]


def test_nothing_takes_less_than_the_way_and_the_work() -> None:
    found = run(world=replace(reference(), spread=0.0))
    least = {node.name: 0.4 * node.base_s for node in reference().nodes}
    for target, delay_s in zip(found.target, found.delay_s, strict=True):
        assert delay_s >= least[target] + 0.003 - 1e-9


def test_what_was_served_in_the_cloud_costs_what_its_bytes_cost_there() -> None:
    found = run(world=replace(reference(), spread=0.0))
    in_cloud = np.array([target.startswith("cloud") for target in found.target])
    assert (found.cost_usd[in_cloud] >= 0.4 * 2e5 * 9e-11).all()
    assert (found.cost_usd[~in_cloud] < 1e-6).all()


def test_a_slow_node_gets_less_while_it_is_slow() -> None:
    throttled = replace(reference(), throttles=(Throttle("hailo-1", 0.0, 1e9, 5.0),))
    well, slow = run(), run(world=throttled)
    assert slow.target.count("hailo-1") < 0.6 * well.target.count("hailo-1")


def test_a_site_that_is_cut_off_serves_itself_and_gets_nothing_from_outside() -> None:
    plan = replace(PLAN, utilisation=0.3)
    duration_s = SHORT.scaled(0.1 * plan.world.capacity).duration_s
    cut = Cut("plant-1", 0.2 * duration_s, 0.8 * duration_s)
    world = replace(plan.world, cuts=(cut,))
    simulation = Simulation(replace(plan, world=world, discipline="edf", drops=True))
    found = simulation.run()
    assert found.dead_sends == 0
    inside = {"hailo-1", "cpu-1"}
    known = (found.arrived > cut.begin_s + world.dead_s) & (found.arrived < cut.end_s)
    for job, is_known in zip(simulation.jobs, known, strict=True):
        if is_known and job.target:
            assert (job.target in inside) == (job.origin == 0)
    assert found.outcome.count("lost") < 0.02 * len(found.outcome)


def test_of_two_equal_worlds_the_busier_one_is_slower() -> None:
    quiet, busy = run(utilisation=0.3), run(utilisation=0.9)
    assert np.nanmean(busy.delay_s) > np.nanmean(quiet.delay_s)


works = st.lists(st.floats(0.4, 3.0), min_size=1, max_size=30)


class Bench:
    """A node by itself, with a clock that `turn` moves to the end of everything."""

    def __init__(self, discipline: Any, *, drops: bool, max_batch: int) -> None:
        self.events: list[tuple[float, Any, Any]] = []
        self.ended: dict[int, float] = {}
        self.node = Node(
            NodeSpec("n", "s", "edge", 0.05, max_batch),
            discipline,
            drops=drops,
            slowness=lambda now: 1.0,
            noise=lambda: 1.0,
            schedule=lambda when, call, value: self.events.append((when, call, value)),
            finish=lambda node, batch, now: self.ended.update({id(job): now for job in batch}),
            drop=lambda node, job, now: self.ended.update({id(job): float("inf")}),
        )

    def turn(self) -> None:
        while self.events:
            when, call, value = self.events.pop(0)
            call(when, value)


@settings(max_examples=80, deadline=None)
@given(
    works,
    st.lists(st.sampled_from([0.15, 1.0]), min_size=31, max_size=31),
    st.sampled_from(["fifo", "edf"]),
    st.booleans(),
    st.sampled_from([1, 3, 8]),
)
def test_who_knows_everything_foresees_when_a_request_ends(
    queued: list[float], slacks: list[float], discipline: Any, drops: bool, max_batch: int
) -> None:
    bench = Bench(discipline, drops=drops, max_batch=max_batch)
    jobs = [Job(0, 0.0, slacks[i], work, 1) for i, work in enumerate(queued)]
    for job in jobs:
        bench.node.enqueue(job, 0.0)
    mine = Job(0, 0.0, 30.0, 1.0, 1)
    foreseen = finish_at(bench.node, mine, 0.0, 0.0)
    bench.node.enqueue(mine, 0.0)
    bench.turn()
    assert bench.ended[id(mine)] == pytest.approx(foreseen)
    assert len(bench.ended) == len(jobs) + 1


def test_queues_by_deadline_drop_who_cannot_be_in_time_and_serve_the_tightest_first() -> None:
    bench = Bench("edf", drops=True, max_batch=1)
    first, loose, tight, hopeless = (Job(0, 0.0, s, 1.0, 1) for s in (9.0, 9.5, 0.2, 0.06))
    for job in (first, loose, tight, hopeless):
        bench.node.enqueue(job, 0.0)
    bench.turn()
    ended = [bench.ended[id(job)] for job in (first, tight, loose)]
    assert ended == pytest.approx([0.05, 0.10, 0.15])
    assert bench.ended[id(hopeless)] == float("inf")


def test_each_site_has_all_requests_of_a_trace() -> None:
    even = Trace("even", np.arange(100.0), np.ones(100))
    found = run(trace=even, utilisation=0.3)
    assert len(found.arrived) == 300
    assert np.isnan(found.delay_s).sum() == 0
