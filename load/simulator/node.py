"""A simulated node: a queue, a batcher, and a clock that the simulation turns."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from load.simulator.jobs import Job
from load.simulator.world import Discipline, NodeSpec
from policies.routing import Load
from policies.routing.types import SLACKS

_SMOOTHING = 0.2


class Node:
    """Computes one batch at a time; `finish` is called for a batch, `drop` for the hopeless.

    starts_at: it is not there before.
    """

    def __init__(
        self,
        spec: NodeSpec,
        discipline: Discipline,
        *,
        drops: bool,
        slowness: Callable[[float], float],
        noise: Callable[[], float],
        schedule: Callable[[float, Callable[..., None], Any], None],
        finish: Callable[[Node, Sequence[Job], float], None],
        drop: Callable[[Node, Job, float], None],
        starts_at: float = 0.0,
    ) -> None:
        self.spec = spec
        self.starts_at = starts_at
        self.discipline = discipline
        self.drops = drops
        self.slowness_now = slowness
        self._noise = noise
        self._slowness_of_run = self.last_slowness = 1.0
        self._schedule = schedule
        self._finish = finish
        self._drop = drop
        self._queue: list[tuple[float, int, Job]] = []
        self._count = 0
        self._queued_work = 0.0
        self._running: Sequence[Job] = ()
        self.free_at = 0.0
        self._expected_free_at = 0.0
        self._scale = 1.0
        self.busy_s = 0.0
        self._ended_at = 0.0
        self._share = 0.0
        self._share_at = 0.0
        self.coming: list[tuple[float, Job]] = []  # sent, not here yet; for the omniscient only

    def batch_s(self, works: Sequence[float]) -> float:
        """Return nominal seconds of a batch."""
        fixed = self.spec.fixed
        return self.spec.base_s * (fixed * max(works) + (1.0 - fixed) * sum(works))

    def alone_s(self, work: float) -> float:
        """Return what it says with an answer that such a request takes alone."""
        return self.batch_s((work,)) * self.last_slowness

    def measure(self, job: Job) -> None:
        """Set what a job takes here: what is expected, and by how much that will be wrong."""
        service = self.spec.services.get(job.model)
        if service is None:
            job.work, job.surprise = job.base_work, 1.0
            return
        times = service.times(job.bucket)
        usual_s = times.median
        job.work = usual_s / self.spec.base_s
        job.surprise = times.at(job.luck) / usual_s

    @property
    def length(self) -> int:
        """Requests that wait or are computed."""
        return len(self._queue) + len(self._running)

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue; one that is computed already goes on."""
        left = [entry for entry in self._queue if entry[2] is not job]
        if len(left) < len(self._queue):
            heapq.heapify(left)
            self._queue = left
            self._queued_work -= job.work

    def enqueue(self, job: Job, now: float) -> None:
        """Take in a job that was measured for this node."""
        self._count += 1
        key = job.due if self.discipline == "edf" else 0.0
        heapq.heappush(self._queue, (key, self._count, job))
        self._queued_work += job.work
        if not self._running:
            self._start(now)

    def load(self, now: float, alone_s: float = 0.0, model: str = "") -> Load:
        """Return what it would report of a model: by what it has learned, not by what will be."""
        spec, queued = self.spec, len(self._queue)
        base_s = spec.base_s * self._scale
        row_s = base_s * (1.0 - spec.fixed)
        fixed_s = base_s - row_s
        residual_s = max(0.0, self._expected_free_at - now) if self._running else 0.0
        usual = spec.usual_work(model)
        return Load(
            queued=queued,
            running=len(self._running),
            ahead_s=self._ahead(now, residual_s, row_s, fixed_s),
            service_s=base_s * usual,
            row_s=(row_s + fixed_s / spec.max_batch) * usual,
            alone_s=alone_s,
            busy=self._busy(now),
            idle_s=0.0 if self._running else now - self._ended_at,
        )

    def _ahead(
        self, now: float, residual_s: float, row_s: float, fixed_s: float
    ) -> tuple[float, ...]:
        """Return the work ahead of a request by its slack."""
        most = self.spec.max_batch
        if self.discipline == "fifo":
            rows = len(self._queue)
            return (residual_s + self._queued_work * row_s + rows // most * fixed_s,) * len(SLACKS)
        works, counts = [0.0] * len(SLACKS), [0] * len(SLACKS)
        for _, _, job in self._queue:
            index = bisect_left(SLACKS, job.due - now)
            works[index] += job.work
            counts[index] += 1
        return tuple(
            residual_s + work * row_s + rows // most * fixed_s
            for work, rows in zip(accumulate(works), accumulate(counts), strict=True)
        )

    def _busy(self, now: float) -> float:
        gone = math.exp(self._share_at - now)
        return self._share * gone + (1.0 - gone if self._running else 0.0)

    @property
    def is_busy(self) -> bool:
        return bool(self._running)

    def waiting(self) -> list[tuple[float, int, Job]]:
        return self._queue

    def _start(self, now: float) -> None:
        batch: list[Job] = []
        slowness = self.slowness_now(now) * self._noise()
        while self._queue and len(batch) < self.spec.max_batch:
            job = self._queue[0][2]
            if batch and job.model != batch[0].model:
                break
            works = [*(other.work for other in batch), job.work]
            ends_at = now + self.batch_s(works) * self._scale
            if self.drops and not batch and ends_at > job.due:
                heapq.heappop(self._queue)
                self._queued_work -= job.work
                self._drop(self, job, now)
                continue
            if self.drops and batch and ends_at > min(other.due for other in batch):
                break
            heapq.heappop(self._queue)
            self._queued_work -= job.work
            batch.append(job)
        if not self._queue:
            self._queued_work = 0.0
        self._share, self._share_at = self._busy(now), now
        self._running = batch
        if not batch:
            return
        nominal_s = self.batch_s([job.work for job in batch])
        taken_s = self.batch_s([job.work * job.surprise for job in batch]) * slowness
        self._expected_free_at = now + nominal_s * self._scale
        self._slowness_of_run = slowness
        self.free_at = now + taken_s
        self.busy_s += taken_s
        self._schedule(self.free_at, self._end, (nominal_s, taken_s))

    def _end(self, now: float, took: tuple[float, float]) -> None:
        nominal_s, taken_s = took
        self._ended_at = now
        self._scale += _SMOOTHING * (taken_s / nominal_s - self._scale)
        self._share, self._share_at = self._busy(now), now
        batch, self._running = self._running, ()
        self.last_slowness = self._slowness_of_run
        self._start(now)
        self._finish(self, batch, now)
