"""A simulation is repeatable, loses nobody, and its omniscient router foresees what happens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load.simulator.jobs import Arrival, Job, Replay
from load.simulator.node import Node
from load.simulator.omniscient import finish_at
from load.simulator.run import Outcomes, Plan, Simulation
from load.simulator.service import Service, Times
from load.simulator.trace import Trace, calm
from load.simulator.world import Cut, NodeSpec, PriceChange, Start, Throttle, World, reference
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


def test_a_price_counts_from_when_it_changes() -> None:
    at_s = 0.5 * float(run().arrived[-1])
    world = replace(reference(), spread=0.0)
    free = tuple(
        PriceChange(node.name, at_s, 0.0, 0.0) for node in world.nodes if node.tier == "cloud"
    )
    before, found = run(world=world), run(world=replace(world, price_changes=free))
    in_cloud = np.array([target.startswith("cloud") for target in found.target])
    early, late = found.arrived < at_s - 5.0, found.arrived > at_s
    assert np.array_equal(found.cost_usd[early], before.cost_usd[early])
    assert (found.cost_usd[in_cloud & early] > 0.0).all()
    assert (found.cost_usd[in_cloud & late] == 0.0).all()
    assert in_cloud[late].mean() > in_cloud[early].mean()  # where it costs nothing, more go


def test_who_knows_everything_pays_less_when_the_price_counts() -> None:
    fastest = run(rule=None, oracle="delay", discipline="edf", drops=True, utilisation=0.3)
    cheapest = run(rule=None, oracle="cost", discipline="edf", drops=True, utilisation=0.3)
    assert cheapest.cost_usd.mean() < 0.5 * fastest.cost_usd.mean()
    assert np.nanmean(fastest.delay_s) < np.nanmean(cheapest.delay_s)


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


def replay(at: list[float], **changes: Any) -> Replay:
    base = Arrival(0.0, 1.0, 1000, "m", "balanced", "hall", "hall")
    return Replay("some", [base._replace(at=one, **changes) for one in at])


def two_places(**changes: Any) -> World:
    nodes = (
        NodeSpec("near", "hall", "edge", 0.02, way_s=0.002),
        NodeSpec("far", "region", "cloud", 0.02, way_s=0.040),
    )
    return replace(World(("hall",), nodes, spread=0.0), **changes)


def outcomes(world: World, trace: Replay, **changes: Any) -> Outcomes:
    plan = Plan(world, trace, 1.0, choose, None, "edf", drops=True)
    return Simulation(replace(plan, **changes)).run()


EVENLY = [0.5 * index for index in range(200)]


def test_many_gateways_share_the_requests_and_each_learns_by_itself() -> None:
    world = replace(two_places(), gateways={"hall": 3})
    busy = [0.012 * index for index in range(3000)]
    plan = Plan(world, replay(busy, slack_s=0.2), 1.0, choose, None, "edf", drops=True)
    simulation = Simulation(plan)
    simulation.run()
    turns = [gateway.turns for gateway in simulation._all_gateways()]
    assert len(turns) == 3
    assert min(turns) > 0.2 * len(busy)
    again = Simulation(plan)
    assert again.run().target == [job.target for job in simulation.jobs]


def test_more_gateways_know_less_of_one_another() -> None:
    one, many = (
        outcomes(
            replace(two_places(), gateways={"hall": count}, report_s=1.0),
            replay([0.011 * index for index in range(4000)], slack_s=5.0),
            rule=RULES["shortest_delay"],
            load_in_replies=False,
            discipline="fifo",
            drops=False,
        )
        for count in (1, 8)
    )
    assert np.nanpercentile(many.delay_s, 99) > 1.2 * np.nanpercentile(one.delay_s, 99)


def test_a_cut_between_two_sites_leaves_the_third_within_reach() -> None:
    third = NodeSpec("third", "yard", "edge", 0.02, way_s=0.060)
    cut = Cut("hall", 20.0, 60.0, other="region")
    world = replace(two_places(cuts=(cut,)), nodes=(two_places().nodes[1], third))
    found = outcomes(world, replay(EVENLY))
    known = [t for at, t in zip(found.arrived, found.target, strict=True) if 22.0 < at < 60.0]
    assert set(known) == {"third"}
    assert found.outcome.count("ok") == len(EVENLY)
    assert "far" in found.target


def test_who_is_cut_off_from_the_gateways_is_lost_and_nobody_else() -> None:
    world = two_places(cuts=(Cut("yard", 20.0, 60.0),))
    trace = replay(EVENLY, origin_site="yard")
    found = outcomes(world, trace)
    lost = np.array([outcome == "lost" for outcome in found.outcome])
    assert np.array_equal(lost, (found.arrived >= 20.0) & (found.arrived < 60.0))


def test_a_replica_serves_from_the_time_at_which_it_is_warm_and_not_before() -> None:
    cold = replace(two_places().nodes[0], name="cold", way_s=0.001)
    start = Start("cold", 30.0, 10.0)
    world = two_places(starts=(start,), nodes=(two_places().nodes[1], cold))
    found = outcomes(world, replay(EVENLY))
    at = found.arrived[np.array([target == "cold" for target in found.target])]
    assert at.min() >= 40.0
    assert at.min() < 42.0


def test_a_second_replica_of_a_place_takes_half_of_its_work() -> None:
    first = replace(two_places().nodes[0], place="near")
    second = replace(first, name="near#2")
    busy = replay([0.015 * index for index in range(2000)], slack_s=10.0)
    alone, both = (outcomes(two_places(nodes=nodes), busy) for nodes in ((first,), (first, second)))
    assert set(both.target) == {"near"}
    assert np.nanmean(both.delay_s) < 0.5 * np.nanmean(alone.delay_s)
    assert both.busy["near"] == pytest.approx(both.busy["near#2"], rel=0.1)


def test_a_throttle_that_comes_again_holds_in_each_turn() -> None:
    throttle = Throttle("near", 10.0, 15.0, 2.0, every_s=60.0)
    assert [throttle.holds(at) for at in (9.9, 10.0, 14.9, 15.0, 70.0, 75.1)] == [
        False, True, True, False, True, False,
    ]  # fmt: skip
    world = two_places(nodes=two_places().nodes[:1], throttles=(throttle,))
    found = outcomes(world, replay(EVENLY))
    slow = np.array([throttle.holds(at + 0.001) for at in found.arrived])
    assert found.delay_s[slow] == pytest.approx(0.042, abs=1e-6)
    assert found.delay_s[~slow] == pytest.approx(0.022, abs=1e-6)


def test_a_model_runs_only_where_it_is_known_and_takes_what_it_takes_there() -> None:
    def service(seconds: float) -> Service:
        return Service(seconds, {10: Times((seconds,))})

    near, far = two_places().nodes
    nodes = (
        replace(near, services={"other": service(0.001)}),
        replace(far, services={"m": service(0.050), "other": service(0.005)}),
    )
    found = outcomes(two_places(nodes=nodes), replay(EVENLY))
    assert set(found.target) == {"far"}
    assert found.delay_s == pytest.approx(0.090, abs=1e-6)


def test_measured_times_come_back_as_they_were_measured() -> None:
    times = Times((0.010, 0.012, 0.020, 0.024, 0.060))
    near = replace(two_places().nodes[0], services={"m": Service(0.020, {10: times})})
    found = outcomes(two_places(nodes=(near,)), replay(EVENLY * 20))
    seldom = outcomes(two_places(nodes=(near,)), replay([0.5 * i for i in range(4000)]))
    quartiles = np.percentile(seldom.delay_s - 0.002, (25, 50, 75))
    assert quartiles == pytest.approx((0.012, 0.020, 0.024), rel=0.05)
    assert np.nanmin(found.delay_s) >= 0.012 - 1e-9


def test_a_long_quiet_is_passed_over_and_changes_nothing() -> None:
    at = [0.0, 0.1, 5.0, 4000.0, 4000.1, 9000.0, 9000.02]
    cut = Cut("hall", 3990.0, 5000.0, other="region")
    world = two_places(cuts=(cut,), nodes=two_places().nodes)
    plan = Plan(world, replay(at), 1.0, choose, None, "edf", drops=True)
    simulation = Simulation(plan)
    found = simulation.run()
    assert found.outcome.count("ok") == len(at)
    assert found.dead_sends == 0
    # Reports every 250 ms for 2.5 hours from two places would be 72,000 events and as many more.
    assert simulation._sequence < 5_000


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(0, 60), min_size=2, max_size=40),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 5),
)
def test_any_replay_ends_with_everybody_and_is_repeatable(
    at: list[float], gateways: int, replicas: int, is_cut: bool, seed: int
) -> None:
    nodes = [
        replace(node, name=f"{node.name}{i}", place=node.name)
        for node in two_places().nodes
        for i in range(replicas)
    ]
    world = two_places(
        nodes=tuple(nodes),
        gateways={"hall": gateways},
        cuts=(Cut("hall", 5.0, 20.0),) if is_cut else (),
        starts=(Start("far0", 3.0, 4.0),),
    )
    trace = replay(sorted(at), slack_s=0.15)
    first, again = (outcomes(world, trace, seed=seed) for _ in range(2))
    assert set(first.outcome) <= {"ok", "refused", "dropped", "lost"}
    assert first.target == again.target
    assert np.array_equal(first.delay_s, again.delay_s, equal_nan=True)


def test_a_caller_of_unknown_site_pays_for_the_way_to_every_place_as_at_the_gateway() -> None:
    near, far = (replace(node, usd_per_byte=1e-6) for node in two_places().nodes)
    world = two_places(nodes=(near, far))
    unknown, known = (
        outcomes(world, replay(EVENLY, origin_site=origin)) for origin in ("", "hall")
    )
    assert unknown.cost_usd == pytest.approx(1000 * 1e-6)
    assert known.cost_usd.max() == 0.0


def test_a_job_that_was_given_up_leaves_the_queue_unless_it_is_computed() -> None:
    bench = Bench("fifo", drops=False, max_batch=1)
    running, given_up, last = (Job(0, 0.0, 9.0, 1.0, 1) for _ in range(3))
    for job in (running, given_up, last):
        bench.node.enqueue(job, 0.0)
    before_s = bench.node.load(0.0).ahead_s[-1]
    bench.node.cancel(running)
    bench.node.cancel(given_up)
    assert bench.node.length == 2
    assert bench.node.load(0.0).ahead_s[-1] < before_s
    bench.turn()
    assert list(bench.ended) == [id(running), id(last)]
    assert bench.ended[id(last)] == pytest.approx(0.10)
