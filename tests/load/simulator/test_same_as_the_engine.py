"""The simulated engine and the product's own, side by side on the same requests."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.engine.batch import Work
from edge_runtime.engine.engine import _load
from edge_runtime.engine.jobs import Batch, Computed, Timing
from edge_runtime.engine.rungs import AcceleratorRung, Ladder
from edge_runtime.engine.runner import ModelOptions, ModelRunner
from edge_runtime.errors import DeadlineExceeded, Overloaded
from edge_runtime.protocol.types import Array, InferRequest, Signature, Tensor, TensorSpec
from load.simulator.engine import EngineNode
from load.simulator.jobs import Job
from load.simulator.node import Node
from load.simulator.world import EngineSpec, NodeSpec
from policies.routing import Load
from tests.edge_runtime.accelerator.virtual import VirtualLoop

BASE_S, FIXED, BATCH, DEPTH = 0.09, 0.55, 8, 2
SPEC = TensorSpec("x", "FP32", (-1, 1))
REQUEST = InferRequest("m", "1", (Tensor("x", "FP32", np.zeros((1, 1), np.float32)),), ())

Requests = Sequence[tuple[float, float]]  # seconds since the one before, and to the deadline
Ends = list[tuple[str, float]]  # how and when each ended

requests = st.lists(
    # Odd numbers, so that hardly anything is a tie, which rounding would settle.
    st.tuples(
        st.sampled_from([0.0, 0.00311, 0.02137, 0.04729, 0.11273, 0.40657]),
        st.sampled_from([0.15083, 0.23117, 0.60731, 1.50919]),
    ),
    min_size=1,
    max_size=60,
)


class Device:
    """Computes one batch after another, on the loop's clock."""

    name = platform = "device"
    signature = Signature((SPEC,), (TensorSpec("y", "FP32", (-1, 1)),))
    depth = DEPTH
    why = ""
    asked_at = 0.0

    def __init__(self) -> None:
        self._free_at = 0.0

    async def run(
        self, rows: Sequence[Mapping[str, Array]], outputs: Sequence[str]
    ) -> tuple[list[list[Array]], float]:
        loop = asyncio.get_running_loop()
        taken_s = BASE_S * (FIXED + (1.0 - FIXED) * len(rows))
        self._free_at = max(self._free_at, loop.time()) + taken_s
        await asyncio.sleep(self._free_at - loop.time())
        return [[np.zeros((1, 1), np.float32)] for _ in rows], taken_s

    def close(self) -> None:
        """There is nothing to give back."""


class Rung(AcceleratorRung):
    """Times its runs on the loop's clock."""

    async def compute(self, batch: Batch, works: Sequence[Work]) -> Computed:
        loop = asyncio.get_running_loop()
        began = loop.time()
        parts, device_s = await self.backend.run([work.inputs for work in works], ("y",))
        taken_ns = round(1e9 * (loop.time() - began))
        return Computed(parts, Timing(0, taken_ns, 0, 0, round(1e9 * device_s)))


def real(given_requests: Requests) -> tuple[Ends, list[Load]]:
    loop = VirtualLoop()
    began = loop.time()
    loads: list[Load] = []

    async def one(runner: ModelRunner, slack_s: float) -> tuple[str, float]:
        try:
            await runner.answer(REQUEST, deadline=loop.time() + slack_s)
            how = "ok"
        except Overloaded:
            how = "refused"
        except DeadlineExceeded:
            how = "late"
        return how, loop.time() - began

    async def all_of_them() -> Ends:
        options = ModelOptions(max_batch_size=BATCH, spill=0)
        runner = ModelRunner("m", "1", Ladder([Rung("device", Device())]), options)
        runner.service.saw(1, BASE_S)
        tasks: list[asyncio.Task[tuple[str, float]]] = []
        for gap_s, slack_s in given_requests:
            await asyncio.sleep(gap_s)
            tasks.append(loop.create_task(one(runner, slack_s)))
            await asyncio.sleep(0.0)
            loads.append(report(runner, loop.time()))
        ends = [await task for task in tasks]
        await runner.close(10.0)
        return ends

    found = loop.run(all_of_them())
    loop.finish()
    return found, loads


def report(runner: ModelRunner, now: float) -> Load:
    """As the engine makes it, at a time of this clock."""
    ahead_s = runner.wait_s(now)
    return _load(runner).for_routing()._replace(ahead_s=ahead_s, busy=0.0, idle_s=0.0)


def simulated(given_requests: Requests) -> tuple[Ends, list[Load]]:
    events: list[tuple[float, int, Any, Any]] = []
    ends: dict[int, tuple[str, float]] = {}
    now = 0.0

    def at(when: float, call: Any, value: Any) -> None:
        heapq.heappush(events, (when, len(events) + 1000 * len(ends), call, value))

    def until(when: float) -> None:
        while events and events[0][0] <= when + 1e-9:
            at_s, _, call, value = heapq.heappop(events)
            call(at_s, value)

    def end(job: Job, how: str, when: float) -> None:
        ends.setdefault(id(job), (how, when))

    def finish(_: Node, jobs: Sequence[Job], when: float) -> None:
        for job in jobs:
            end(job, "ok", when)

    engine = EngineSpec(DEPTH, is_serial=True)
    node = EngineNode(
        NodeSpec("n", "s", "edge", BASE_S, BATCH, FIXED, engine=engine),
        engine,
        slowness=lambda _: 1.0,
        noise=lambda: 1.0,
        schedule=at,
        finish=finish,
        drop=lambda _, job, when: end(job, "late", when),
        refuse=lambda _, job, when: end(job, "refused", when),
    )

    def gives_up(when: float, job: Job) -> None:
        if id(job) not in ends:
            node.cancel(job)
            end(job, "late", when)

    jobs: list[Job] = []
    loads: list[Load] = []
    for gap_s, slack_s in given_requests:
        now += gap_s
        until(now)
        job = Job(0, now, slack_s, 1.0, 0)
        jobs.append(job)
        at(job.due, gives_up, job)
        node.enqueue(job, now)
        loads.append(node.load(now)._replace(busy=0.0, idle_s=0.0))
    until(now + 100.0)
    return [ends[id(job)] for job in jobs], loads


@settings(max_examples=60, deadline=None)
@given(requests)
def test_requests_end_as_they_do_in_the_product(given_requests: Requests) -> None:
    in_truth, foreseen = real(given_requests)[0], simulated(given_requests)[0]
    assert [how for how, _ in foreseen] == [how for how, _ in in_truth]
    assert [when for _, when in foreseen] == pytest.approx([when for _, when in in_truth], abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(requests)
def test_it_reports_the_load_that_the_product_would(given_requests: Requests) -> None:
    for ours, theirs in zip(simulated(given_requests)[1], real(given_requests)[1], strict=True):
        assert (ours.queued, ours.running) == (theirs.queued, theirs.running)
        assert ours.ahead_s[-1] == pytest.approx(theirs.ahead_s[-1], rel=0.02, abs=2e-3)
        assert ours.service_s == pytest.approx(theirs.service_s, rel=0.02)
        assert ours.row_s == pytest.approx(theirs.row_s, rel=0.02)
