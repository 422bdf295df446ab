"""Probes take their time on the way, get lost where it is cut, and tell what is in flight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from load.simulator.comparison import policies_of, run
from load.simulator.gateway import Gateway
from load.simulator.jobs import Job
from load.simulator.node import Node
from load.simulator.place import Place
from load.simulator.probes import Probes
from load.simulator.run import Plan, Simulation
from load.simulator.trace import Trace, calm
from load.simulator.world import NodeSpec, Throttle, World, reference
from policies.routing import Request
from policies.routing.classical import RULES
from policies.routing.prequal import IDLE_S, PROBES
from tests.load.simulator import logs

WAYS_S = {"near": 0.01, "far": 0.05}


class Rig:
    """Probes of one gateway to two nodes, on a clock that `turn` moves."""

    def __init__(self, count: int = 2) -> None:
        self.events: list[tuple[float, Callable[..., None], Any]] = []
        self.places = {name: Place([self._node(name)]) for name in WAYS_S}
        world = World(tuple(WAYS_S), tuple(place.spec for place in self.places.values()))
        self.gateway = Gateway("near", world, self.places, [""])
        self.table = self.gateway.tables[""]
        self.cut: set[str] = set()
        self.probes = Probes(count, self.places, at=self._at, half_way=self._half_way)

    def _node(self, name: str) -> Node:
        return Node(
            NodeSpec(name, name, "edge", 0.05),
            "fifo",
            drops=False,
            slowness=lambda now: 1.0,
            noise=lambda: 1.0,
            schedule=self._at,
            finish=lambda node, batch, now: None,
            drop=lambda node, job, now: None,
        )

    def _at(self, when: float, call: Callable[..., None], value: Any) -> None:
        self.events.append((when, call, value))
        self.events.sort(key=lambda event: event[0])

    def _half_way(self, gateway: Gateway, name: str, now: float) -> float | None:
        return None if name in self.cut else WAYS_S[name]

    def turn(self, until: float) -> int:
        """Let what is due happen; return how many answers are known."""
        while self.events and self.events[0][0] <= until:
            when, call, value = self.events.pop(0)
            call(when, value)
        return len(self.table.probes)

    def ask(self) -> None:
        self.probes.ask(self.gateway, "", Request(1.0), 0.0)


def test_an_answer_takes_the_way_there_and_back() -> None:
    rig = Rig()
    rig.ask()
    assert [rig.turn(at) for at in (0.019, 0.021, 0.099, 0.101)] == [0, 1, 1, 2]


def test_what_is_sent_or_answered_into_a_cut_is_lost() -> None:
    rig = Rig()
    rig.cut = {"near"}
    rig.ask()
    rig.cut = {"far"}
    assert rig.turn(1.0) == 0
    assert not rig.events


def test_an_answer_tells_what_is_in_flight_when_the_probe_gets_there() -> None:
    rig = Rig()
    rig.ask()
    rig.turn(0.011)
    for size in range(3):
        rig.places["far"].nodes[0].enqueue(Job(0, 0.0, 1.0, 1.0, size), 0.02)
    rig.turn(1.0)
    # The one with fewer in flight is taken; three more sends make it hot.
    assert rig.table.probes.best(rig.table.targets, 0, 0.2, weighted=False) == 0


def test_an_answer_tells_what_requests_took_there() -> None:
    rig = Rig()
    for name, seconds in (("near", 0.9), ("far", 0.1)):
        job = Job(0, 0.0, 1.0, 1.0, 1)
        rig.probes.came(job, rig.places[name], 0.0)
        rig.probes.went(job, rig.places[name], seconds)
    rig.ask()
    rig.turn(1.0)
    assert rig.table.probes.best(rig.table.targets, 0, 0.2, weighted=False) == 1


def test_without_requests_places_are_asked_now_and_then() -> None:
    rig = Rig()
    rig.probes.ask_if_idle(rig.gateway, 0.0)
    assert rig.turn(0.2) == 2
    rig.probes.ask_if_idle(rig.gateway, 0.5 * IDLE_S)
    assert not rig.events
    rig.probes.ask_if_idle(rig.gateway, 0.2 + IDLE_S)
    assert rig.events


def test_a_rule_that_asks_for_no_probes_gets_none() -> None:
    rig = Rig(count=0)
    rig.ask()
    rig.probes.ask_if_idle(rig.gateway, 9.0)
    assert not rig.events


def test_places_are_known_by_probes_when_requests_are_rare() -> None:
    rare = Trace("rare", np.arange(0.0, 1000.0, 5.0), np.ones(200))
    world = reference()
    plan = Plan(world, rare, 0.2 / (world.capacity / 3), RULES["prequal"])
    shares = []
    for probes in (0, PROBES):
        found = Simulation(replace(plan, probes=probes)).run()
        shares.append(sum(name.startswith("cpu") for name in found.target) / len(found.target))
    assert shares[1] < 0.5 * shares[0]


@pytest.mark.parametrize("name", ["prequal", "weighted_prequal"])
def test_probes_keep_requests_away_from_a_node_that_is_slow(name: str) -> None:
    world = replace(reference(), throttles=(Throttle("cloud-1", 0.0, 1e9, 9.0),))
    plan = Plan(world, calm(1, duration_s=120.0), 0.5, RULES[name])
    shares = []
    for probes in (0, PROBES):
        found = Simulation(replace(plan, probes=probes)).run()
        shares.append(found.target.count("cloud-1") / len(found.target))
    assert shares[1] < 0.5 * shares[0]


def test_what_if_sends_the_probes_that_a_rule_goes_by() -> None:
    policies = policies_of(["random", "prequal"], ["balanced"])
    drawn, probed = (run(each, logs.traffic(3, 20.0, 60.0), logs.fleet(), 1) for each in policies)
    # The cloud takes less than half of the time for what both can serve.
    assert drawn.share["cloud"] < 0.7
    assert probed.share["cloud"] > 0.85
