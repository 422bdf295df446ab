"""Requests on their way through a runner, and the batches they run in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.backends.base import Run
from edge_runtime.engine.batch import Work
from edge_runtime.protocol.types import Array


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a request gets: arrays in the order of its outputs, and the rung that computed them.

    alone_s: what it would have taken by itself, 0 where that is not known.
    """

    arrays: list[Array]
    rung: str
    alone_s: float = 0.0


class Job:
    """A queued request; done when its future is.

    deadline and queued_at are on the loop's clock, which moves in steps of a millisecond under
    uvloop; began and started, which durations come from, are not.
    """

    __slots__ = ("batch", "began", "deadline", "future", "queued_at", "started", "work")

    def __init__(self, work: Work, deadline: float, queued_at: float) -> None:
        self.work = work
        self.deadline = deadline
        self.queued_at = queued_at
        self.began = self.started = time.perf_counter()
        self.future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.batch: Batch | None = None


class Batch:
    """Jobs that run together; aborted once none of them is waited for."""

    __slots__ = ("is_abandoned", "jobs", "run", "waiters")

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.waiters = len(jobs)
        self.run: Run | None = None
        self.is_abandoned = False

    @property
    def rows(self) -> int:
        return sum(job.work.rows for job in self.jobs)

    def leave(self) -> None:
        self.waiters -= 1
        if self.waiters == 0:
            self.abandon()

    def abandon(self) -> None:
        self.is_abandoned = True
        run = self.run  # a pool thread may set it to None at any time
        if run is not None:
            run.abort()


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of a run went, in nanoseconds.

    thread_ns: of its thread on the processor; device_ns: of infer_ns, what an accelerator took for
    it and nothing else.
    """

    input_ns: int
    infer_ns: int
    output_ns: int
    thread_ns: int
    device_ns: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """What a run gave: arrays by request, in their order, and where the time went."""

    parts: list[list[Array]]
    timing: Timing
