"""A simulated node that serves as the product's engine does, in what others can see of it.

`Node` is what a server could be at best: it knows what is left of the batch that runs, and takes in
everybody. `EngineNode` follows `edge_runtime.engine`, with the same classes where they can be used
(`ServiceTimes`, admission, aging): it learns its times from runs, as the engine sees them; refuses
whom it expects to be late; lets callers go at their deadline; has several batches under way, which
a device computes one after another; and reports its load by the engine's formulas.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from edge_runtime.engine.times import ServiceTimes
from load.simulator.jobs import Job
from load.simulator.node import Node
from load.simulator.world import EngineSpec, NodeSpec
from policies.admission import QueueState, Refused, admit
from policies.aging import Urgency, urgency
from policies.routing import Load
from policies.routing.types import SLACKS

_BUSY_EVERY_S = 0.1  # as the engine's `BusyShare` looks


@dataclass(frozen=True, eq=False)
class _Run:
    """A batch under way. begun_s: when it was handed over; nominal, taken: what it takes alone."""

    jobs: Sequence[Job]
    begun_at: float
    slowness: float


class EngineNode(Node):
    """Queue, admission, batches and reports of the product's engine, for one model.

    refuse: called for a request that is not taken in.
    """

    def __init__(
        self,
        spec: NodeSpec,
        engine: EngineSpec,
        *,
        slowness: Callable[[float], float],
        noise: Callable[[], float],
        schedule: Callable[[float, Callable[..., None], Any], None],
        finish: Callable[[Node, Sequence[Job], float], None],
        drop: Callable[[Node, Job, float], None],
        refuse: Callable[[Node, Job, float], None],
        starts_at: float = 0.0,
    ) -> None:
        super().__init__(
            spec,
            "edf",
            drops=True,
            slowness=slowness,
            noise=noise,
            schedule=schedule,
            finish=finish,
            drop=drop,
            starts_at=starts_at,
        )
        self._engine = engine
        self._refuse = refuse
        self._times = ServiceTimes(has_fixed_rows=not engine.is_serial)
        self._times.saw(1, self.batch_s((1.0,)))  # as it is warmed up
        self._waiting: list[tuple[Urgency, Job]] = []
        self._runs = 0
        self._running_rows = 0
        self._device_free_at = 0.0
        self._computed_s = 0.0
        self._busy_share = self._busy_read_at = self._busy_read_s = 0.0
        self._ran_at = 0.0
        self._alone_s = 0.0

    @property
    def length(self) -> int:
        return len(self._waiting) + self._running_rows

    @property
    def is_busy(self) -> bool:
        return self._runs > 0

    def alone_s(self, work: float) -> float:
        """Return what the latest batch says that a request takes alone; 0 where it cannot."""
        return self._alone_s

    def cancel(self, job: Job) -> None:
        left = [entry for entry in self._waiting if entry[1] is not job]
        if len(left) < len(self._waiting):
            heapq.heapify(left)
            self._waiting = left

    def enqueue(self, job: Job, now: float) -> None:
        self._count += 1
        slack_s = job.due - now
        if slack_s <= 0.0:
            self._drop(self, job, now)
        elif self._refuses(slack_s, now, job.due):
            self._refuse(self, job, now)
        else:
            heapq.heappush(self._waiting, (urgency(0, now, job.due, self._count), job))
            self._pump(now)

    def _refuses(self, slack_s: float, now: float, due: float) -> bool:
        """As `ModelRunner._refusal`."""
        times, queued, engine = self._times, len(self._waiting), self._engine
        row_s = times.row_s
        ahead_s = before_s = (queued + self._running_rows) * row_s
        rows = min(self.spec.max_batch, queued + 1)
        is_idle = not (queued or self._runs)
        service_s = 0.0 if is_idle else times.estimate(rows)
        if queued and ahead_s / engine.workers + service_s > slack_s:
            key = urgency(0, now, due, self._count + 1)
            before = sum(entry[0] < key for entry in self._waiting)
            before_s = (before + self._running_rows) * row_s
        state = QueueState(queued, engine.max_queue, ahead_s, engine.workers, before_s)
        return isinstance(admit(state, service_s, slack_s, engine.max_wait_s), Refused)

    def _pump(self, now: float) -> None:
        while self._waiting and self._runs < self._engine.workers:
            least_s = self._times.least(1)
            is_lone = not self._runs and len(self._waiting) == 1
            if is_lone:
                least_s = 0.0
            job = self._waiting[0][1]
            if job.due <= now + least_s:
                heapq.heappop(self._waiting)
                self._drop(self, job, now)
                continue
            most = self._most_rows(job.due - now)
            taken = [heapq.heappop(self._waiting)[1] for _ in range(min(most, len(self._waiting)))]
            batch = [each for each in taken if each.due > now + least_s]
            for each in taken:
                if each.due <= now + least_s:
                    self._drop(self, each, now)
            self._begin(batch, now)

    def _most_rows(self, left_s: float) -> int:
        rows = self.spec.max_batch
        if self._times.estimate(1) > left_s:
            return rows
        while rows > 1 and self._times.estimate(rows) > left_s:
            rows //= 2
        return rows

    def _begin(self, jobs: Sequence[Job], now: float) -> None:
        slowness = self.slowness_now(now) * self._noise()
        taken_s = self.batch_s([job.work * job.surprise for job in jobs]) * slowness
        begins_at = max(now, self._device_free_at) if self._engine.is_serial else now
        ends_at = begins_at + taken_s
        self._device_free_at = self.free_at = ends_at
        self._runs += 1
        self._running_rows += len(jobs)
        self.busy_s += taken_s
        self._schedule(ends_at, self._ended, _Run(jobs, now, slowness))

    def _ended(self, now: float, run: _Run) -> None:
        seen_s = now - run.begun_at  # the engine cannot tell waiting for the device from work
        rows = len(run.jobs)
        self._times.saw(rows, seen_s)
        self._computed_s += seen_s
        self._ran_at = now
        self._alone_s = self._times.alone(1) or (seen_s if rows == 1 else 0.0)
        self._runs -= 1
        self._running_rows -= rows
        self.last_slowness = run.slowness
        self._pump(now)
        self._finish(self, run.jobs, now)

    def load(self, now: float, alone_s: float = 0.0, model: str = "") -> Load:
        """As `edge_runtime.engine.engine._load`."""
        times, workers = self._times, self._engine.workers
        row_s = times.row_s / workers
        running_s = 0.5 * self._running_rows * row_s
        most_s = len(self._waiting) * row_s + running_s
        ahead_s = (most_s,) * len(SLACKS)
        if self._waiting:
            counts = [0] * len(SLACKS)
            for key, _ in self._waiting:
                counts[bisect_left(SLACKS, key[0] - now)] += 1
            before_s = [min(rows * row_s + running_s, most_s) for rows in accumulate(counts)]
            before_s[-1] = most_s
            ahead_s = tuple(before_s)
        return Load(
            queued=len(self._waiting),
            running=self._runs,
            ahead_s=ahead_s,
            service_s=times.lone(1),
            row_s=row_s,
            alone_s=alone_s,
            busy=self._busy_now(now),
            idle_s=0.0 if self._runs else now - self._ran_at,
        )

    def _busy_now(self, now: float) -> float:
        """As the engine's `BusyShare`."""
        passed_s = now - self._busy_read_at
        if passed_s >= _BUSY_EVERY_S:
            computed_s = self._computed_s - self._busy_read_s
            share = min(1.0, computed_s / (passed_s * self._engine.workers))
            self._busy_share += (share - self._busy_share) * (1.0 - math.exp(-passed_s))
            self._busy_read_at, self._busy_read_s = now, self._computed_s
        return self._busy_share
