"""The ways to compute one model, best first: a ladder, and its rungs.

A rung is an opened artifact on something that computes: a HEF on an accelerator, int8 ONNX or
fp32 ONNX on the processor. Each keeps service times of its own, because they differ by orders of
magnitude. A request runs on the highest rung that is available; when an accelerator loses a
batch, those of its requests who still have time are computed on the next rung down.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Final

from edge_runtime.backends.base import AcceleratorBackend, Backend, Cancelled
from edge_runtime.engine.batch import Work, split, stack
from edge_runtime.engine.jobs import Batch, Computed, Timing
from edge_runtime.engine.times import ServiceTimes
from edge_runtime.protocol.datatypes import BYTES
from edge_runtime.protocol.types import ANY_DIM, Signature
from policies.degradation import Pace, gave_up, may_try, ran

logger = logging.getLogger(__name__)

PARALLEL_S: Final = 0.001  # below this two callers slow each other down on the interpreter lock


class ProcessorRung:
    """A model on the processor: on a pool's threads, or on the loop where it is quick.

    pool_size: computations that the pool runs at once.
    """

    is_available: Final = True
    why: Final = ""

    def __init__(self, name: str, backend: Backend, pool: Executor, pool_size: int) -> None:
        self.name = name
        self.backend = backend
        self.service = ServiceTimes(has_fixed_rows=_has_fixed_rows(backend))
        self._pool = pool
        self._pool_size = pool_size

    def workers(self, instances: int) -> int:
        """Return how many runs may go on at once. instances: the model's option, 0 to decide.

        Never more than the pool has threads: the others would wait where no deadline is heeded.
        """
        if instances:
            return min(instances, self._pool_size)
        return self._pool_size if self.service.estimate(1) >= PARALLEL_S else 1

    async def compute(self, batch: Batch, works: Sequence[Work]) -> Computed:
        """Compute on a thread of the pool; see `execute`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self.execute, batch, works)

    def execute(self, batch: Batch, works: Sequence[Work]) -> Computed:
        """Stack, compute and cut, here and now.

        Raises Cancelled when the batch is given up, and what the backend raises.
        """
        if batch.is_abandoned:
            raise Cancelled
        begin = time.perf_counter_ns()
        run = self.backend.prepare(stack(works), works[0].outputs)
        batch.run = run
        if batch.is_abandoned:
            raise Cancelled
        stacked, thread_began = time.perf_counter_ns(), time.thread_time_ns()
        try:
            arrays = run.execute()
        finally:
            batch.run = None  # the pool keeps the batch for a while, and a run keeps the model
        computed, thread_ended = time.perf_counter_ns(), time.thread_time_ns()
        parts = split(arrays, works)
        done = time.perf_counter_ns()
        thread_ns = thread_ended - thread_began
        timing = Timing(stacked - begin, computed - stacked, done - computed, thread_ns)
        return Computed(parts, timing)

    def close(self) -> None:
        self.backend.close()


class AcceleratorRung:
    """A model on an accelerator: nothing of it computes in this process."""

    def __init__(self, name: str, backend: AcceleratorBackend) -> None:
        self.name = name
        self.backend = backend
        self.service = ServiceTimes(has_fixed_rows=False)  # nothing of it may run on the loop
        self.pace = Pace()

    @property
    def is_available(self) -> bool:
        return not self.backend.why

    @property
    def why(self) -> str:
        """Why it is not available; empty when it is."""
        return self.backend.why

    def workers(self, instances: int) -> int:
        return self.backend.depth

    async def compute(self, batch: Batch, works: Sequence[Work]) -> Computed:
        """Compute a batch there. Raises AcceleratorFault when it is lost, InvalidInput."""
        if batch.is_abandoned:
            raise Cancelled
        begin = time.perf_counter_ns()
        parts, device_s = await self.backend.run([work.inputs for work in works], works[0].outputs)
        taken_ns = time.perf_counter_ns() - begin
        return Computed(parts, Timing(0, taken_ns, 0, 0, int(device_s * 1e9)))

    def close(self) -> None:
        self.backend.close()


Rung = ProcessorRung | AcceleratorRung


class Ladder:
    """The rungs of one model version, best first (at least one).

    problems: why artifacts of it could not become a rung, one sentence each; is_damaged: some of
    them because their files are not what was installed.
    """

    def __init__(
        self, rungs: Sequence[Rung], problems: Sequence[str] = (), *, is_damaged: bool = False
    ) -> None:
        self.rungs = tuple(rungs)
        self._devices = [rung.backend for rung in rungs if isinstance(rung, AcceleratorRung)]
        self.problems = tuple(problems)
        self.is_damaged = is_damaged

    @property
    def signature(self) -> Signature:
        return self.rungs[0].backend.signature

    def asked(self, now: float) -> None:
        """Tell devices that their model is wanted: those that it is not on may take it again."""
        for device in self._devices:
            device.asked_at = now

    def best(self, tried: Collection[str] = ()) -> Rung | None:
        """Return the highest rung that is available and not among those tried.

        A rung that is out of pace is passed over while one below it can compute.
        """
        slow: Rung | None = None
        for rung in self.rungs:
            if not rung.is_available or rung.name in tried:
                continue
            if isinstance(rung, ProcessorRung) or not rung.pace.is_out:
                return rung
            slow = slow or rung
        return slow

    def take(self, now: float, tried: Collection[str] = ()) -> Rung | None:
        """Return the rung that a batch runs on: `best`, or one out of pace whose trial is due."""
        rung = self.on_trial(now, tried)
        if rung is None:
            return self.best(tried)
        rung.pace = replace(rung.pace, probed_at=now)
        return rung

    def on_trial(self, now: float, tried: Collection[str] = ()) -> AcceleratorRung | None:
        """Return a rung out of pace that the next batch should try.

        The trial is by a real request: it is answered, only later.
        """
        for rung in self.rungs:
            if (
                isinstance(rung, AcceleratorRung)
                and rung.pace.is_out
                and rung.is_available
                and rung.name not in tried
                and may_try(rung.pace, now)
            ):
                return rung
        return None

    def ran(self, rung: Rung, rows: int, timing: Timing) -> None:
        """Learn from a run, and whether an accelerator is worth its place above the next rung."""
        rung.service.saw(rows, timing.infer_ns / 1e9, timing.thread_ns / 1e9)
        if isinstance(rung, AcceleratorRung):
            below = self._below(rung)
            next_s = below[0].service.least(rows) if below else 0.0
            self._pace(rung, ran(rung.pace, rows, timing.device_ns / 1e9, next_s))

    def gave_up(self, rung: Rung) -> None:
        """Learn that a run was given up because an accelerator was too slow for it."""
        if isinstance(rung, AcceleratorRung) and self._below(rung):
            self._pace(rung, gave_up(rung.pace))

    def _below(self, rung: Rung) -> Sequence[Rung]:
        return self.rungs[self.rungs.index(rung) + 1 :]

    def _pace(self, rung: AcceleratorRung, pace: Pace) -> None:
        if pace.is_out != rung.pace.is_out:
            state = "much slower than usual" if pace.is_out else "in pace again"
            logger.warning("%s is %s", rung.name, state)
        rung.pace = pace

    def reasons(self) -> list[str]:
        """Return why rungs are missing or not available, one sentence each."""
        away = [f"{rung.name}: {rung.why}" for rung in self.rungs if not rung.is_available]
        slow = [
            f"{rung.name}: much slower than usual"
            for rung in self.rungs
            if isinstance(rung, AcceleratorRung) and rung.is_available and rung.pace.is_out
        ]
        return [*away, *slow, *self.problems]

    def close(self) -> None:
        """Give the memory of every rung back; one that cannot be closed keeps no other."""
        errors: list[Exception] = []
        for rung in self.rungs:
            try:
                rung.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise ExceptionGroup("rungs that cannot be closed", errors)


def _has_fixed_rows(backend: Backend) -> bool:
    """Tell whether every row of a batch is the same amount of work."""
    signature = backend.signature
    inner = (
        dim for spec in signature.inputs for dim in spec.shape[1 if signature.is_batched else 0 :]
    )
    is_free = any(dim == ANY_DIM for dim in inner)
    is_text = any(spec.datatype == BYTES for spec in signature.inputs)  # of any length
    return not (is_free or is_text or backend.is_data_dependent)
