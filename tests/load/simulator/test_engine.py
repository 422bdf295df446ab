"""A simulated engine does what the product's engine does where others can see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from load.simulator.engine import EngineNode
from load.simulator.jobs import Arrival, Job, Replay
from load.simulator.node import Node
from load.simulator.run import Outcomes, Plan, Simulation
from load.simulator.world import EngineSpec, NodeSpec, World
from policies.routing.classical import RULES

BASE_S = 0.1


class Stage:
    """One node and the events around it."""

    def __init__(self, engine: EngineSpec, *, max_batch: int = 8, fixed: float = 0.5) -> None:
        self.events: list[tuple[float, Any, Any]] = []
        self.done: list[tuple[float, list[Job]]] = []
        self.dropped: list[Job] = []
        self.refused: list[Job] = []
        self.node = EngineNode(
            NodeSpec("n", "s", "edge", BASE_S, max_batch, fixed, engine=engine),
            engine,
            slowness=lambda _: 1.0,
            noise=lambda: 1.0,
            schedule=lambda at, call, value: self.events.append((at, call, value)),
            finish=self._finished,
            drop=lambda _, job, __: self.dropped.append(job),
            refuse=lambda _, job, __: self.refused.append(job),
        )

    def _finished(self, _: Node, jobs: Sequence[Job], now: float) -> None:
        self.done.append((now, list(jobs)))

    def send(self, now: float, slack_s: float = 10.0) -> Job:
        job = Job(0, now, slack_s, 1.0, 0)
        self.node.enqueue(job, now)
        return job

    def run(self) -> None:
        while self.events:
            self.events.sort(key=lambda event: event[0])
            at, call, value = self.events.pop(0)
            call(at, value)


def test_two_batches_of_a_device_follow_one_another() -> None:
    stage = Stage(EngineSpec(workers=2, is_serial=True))
    for _ in range(4):
        stage.send(0.0)
    stage.run()
    rows = [len(jobs) for _, jobs in stage.done]
    assert rows == [1, 1, 2]
    ends = [at for at, _ in stage.done]
    assert ends == pytest.approx([0.1, 0.2, 0.35])


def test_a_busy_device_seems_slower_to_the_engine_than_it_is() -> None:
    stage = Stage(EngineSpec(workers=2, is_serial=True), max_batch=1)
    for _ in range(20):
        stage.send(0.0)
    stage.run()
    found = stage.node.load(2.0)
    assert found.service_s == pytest.approx(2 * BASE_S, rel=0.05)
    assert found.row_s == pytest.approx(BASE_S, rel=0.05)


def test_who_would_wait_for_too_long_is_refused() -> None:
    stage = Stage(EngineSpec(max_wait_s=0.5), max_batch=1)
    jobs = [stage.send(0.0) for _ in range(10)]
    assert 0 < len(stage.refused) < 10
    assert stage.refused[0] is jobs[-len(stage.refused)]


def test_who_cannot_be_in_time_is_refused_while_patient_ones_are_taken() -> None:
    stage = Stage(EngineSpec(), max_batch=1)
    stage.send(0.0)
    hurried = stage.send(0.0, slack_s=0.15)
    patient = stage.send(0.0, slack_s=0.9)
    stage.run()
    assert stage.refused == [hurried]
    assert patient in stage.done[1][1]


def test_the_earliest_deadline_goes_first_and_a_batch_is_no_larger_than_it_allows() -> None:
    stage = Stage(EngineSpec(), fixed=0.0)
    stage.send(0.0)
    others = [stage.send(0.0, slack_s=0.9) for _ in range(3)]
    urgent = stage.send(0.0, slack_s=0.65)
    stage.run()
    assert stage.done[1][1][0] is urgent
    assert {id(job) for _, jobs in stage.done[1:] for job in jobs} == {
        id(job) for job in (urgent, *others)
    }


def world(**changes: Any) -> World:
    spec = NodeSpec("n", "s", "cloud", BASE_S, 1, way_s=0.0, engine=EngineSpec())
    return replace(World(("s",), (spec,), spread=0.0, gives_up=True), **changes)


def run(world: World, count: int, slack_s: float) -> Outcomes:
    arrivals = [Arrival(0.001 * i, slack_s, 100, "", "balanced", "s") for i in range(count)]
    rule = RULES["least_outstanding"]
    return Simulation(
        Plan(world, Replay("r", arrivals), 1.0, rule, discipline="edf", drops=True)
    ).run()


def test_nobody_waits_beyond_the_deadline() -> None:
    late = run(world(), 20, 0.55)
    answered = late.delay_s[~np.isnan(late.delay_s)]
    assert 0 < len(answered) < 20
    assert answered.max() <= 0.55


def test_a_gateway_turns_away_what_a_place_has_too_many_of() -> None:
    found = run(world(calls=4), 6, 5.0)
    assert found.outcome.count("ok") == 4
    assert found.outcome.count("refused") == 2


def test_what_one_place_refuses_is_tried_at_another() -> None:
    one = NodeSpec("n", "s", "cloud", BASE_S, 1, way_s=0.0, engine=EngineSpec(max_queue=1))
    other = replace(one, name="m", engine=EngineSpec())
    found = run(world(nodes=(one, other)), 12, 5.0)
    assert set(found.outcome) == {"ok"}
    assert found.target.count("m") > found.target.count("n")
