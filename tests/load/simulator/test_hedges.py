"""Second copies in the simulator: each request ends once, losers are cancelled, costs are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from load.simulator.run import Outcomes, Plan, Simulation
from load.simulator.trace import calm
from load.simulator.world import Cut, NodeSpec, Throttle, World, reference
from policies.routing.classical import RULES
from policies.routing.hedging import HedgeRules

USD_PER_S = 0.01
PAIR = World(
    ("plant",),
    tuple(NodeSpec(f"n{i}", "plant", "edge", 0.05, usd_per_s=USD_PER_S) for i in (1, 2)),
    throttles=(Throttle("n1", 20.0, 60.0, 30.0),),
)
PLAN = Plan(PAIR, calm(1, duration_s=300.0), 0.3, RULES["random"])


def run(**changes: Any) -> Outcomes:
    return Simulation(replace(PLAN, **changes)).run()


def ended(found: Outcomes) -> dict[str, int]:
    return {outcome: found.outcome.count(outcome) for outcome in set(found.outcome)}


def test_copies_help_requests_that_are_stuck_where_it_has_become_slow() -> None:
    without, hedged = run(), run(hedge=True)
    assert without.copies == 0
    assert hedged.copies > 10
    assert np.percentile(hedged.delay_s, 95) < 0.9 * np.percentile(without.delay_s, 95)
    # The least work at the slow node takes 0.6 s: who was quicker had the answer of the other.
    is_quick = (hedged.arrived > 25.0) & (hedged.arrived < 55.0) & (hedged.delay_s < 0.6)
    answered = {hedged.target[index] for index in np.flatnonzero(is_quick).tolist()}
    assert answered == {"n2"}


def test_a_run_with_copies_is_repeatable() -> None:
    first, again = run(hedge=True), run(hedge=True)
    assert np.array_equal(first.delay_s, again.delay_s)
    assert first.copies == again.copies


@pytest.mark.parametrize("drops", [True, False])
def test_each_request_ends_once_and_the_budget_holds(drops: bool) -> None:
    found = run(
        world=replace(reference(), throttles=(Throttle("hailo-1", 0.0, 1e9, 9.0),)),
        utilisation=0.9,
        discipline="edf" if drops else "fifo",
        drops=drops,
        hedge=True,
    )
    count = len(found.outcome)
    assert set(ended(found)) <= ({"ok", "dropped"} if drops else {"ok"})
    assert ended(found)["ok"] == count - np.isnan(found.delay_s).sum()
    assert 0 < found.copies <= HedgeRules().share * count


def test_a_request_is_not_lost_while_a_copy_of_it_is_under_way() -> None:
    world = replace(reference(), cuts=(Cut("plant-1", 100.0, 200.0),), lost_s=5.0)
    without, hedged = (
        run(
            world=world, trace=calm(1, duration_s=900.0), hedge=hedge, rule=RULES["weighted_random"]
        )
        for hedge in (False, True)
    )
    assert hedged.copies > 0
    assert len(hedged.outcome) == len(without.outcome)
    assert set(ended(hedged)) <= {"ok", "lost"}
    assert hedged.outcome.count("lost") <= without.outcome.count("lost")


def test_what_copies_cost_is_the_cost_of_their_requests() -> None:
    simulation = Simulation(replace(PLAN, hedge=True))
    found = simulation.run()
    computed_usd = USD_PER_S * sum(found.busy.values()) * found.duration_s
    # Copies that are still computed when the last request has ended are not.
    assert 0.995 * computed_usd <= found.cost_usd.sum() <= computed_usd * (1 + 1e-9)


def test_what_moving_a_request_costs_is_paid_for_each_copy() -> None:
    nodes = tuple(
        replace(node, site="away", usd_per_s=0.0, usd_per_byte=1e-9) for node in PAIR.nodes
    )
    world = replace(PAIR, nodes=nodes)
    simulation = Simulation(replace(PLAN, world=world, hedge=True))
    found = simulation.run()
    times = [
        round(usd / (1e-9 * job.moved_bytes))
        for usd, job in zip(found.cost_usd, simulation.jobs, strict=True)
    ]
    assert set(times) == {1, 2}
    assert times.count(2) == found.copies


def test_every_send_is_matched_by_a_release_losers_included() -> None:
    simulation = Simulation(replace(PLAN, hedge=True))
    simulation.run()
    (job, *_) = simulation.jobs
    assert [target.outstanding for target in simulation.table_of(job).targets] == [0, 0]


def test_the_omniscient_router_sends_no_copies() -> None:
    assert run(rule=None, hedge=True).copies == 0
