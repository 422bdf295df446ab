"""One loaded model: admission, queue, batching, execution.

Everything but the backend's computation happens on the event loop that owns the runner, so
there are no locks. A request is fitted to the model, admitted or refused
(`policies.admission`), and then either computed at once on the loop, when nothing waits and the
model is quick (`ServiceTimes.is_quick`), or queued. The most urgent request and whatever stacks
onto it become a batch: on the loop while that is quick, else on the thread pool when a worker is
free. Batches form while workers are busy, and waiting for more is an option that is off by
default, because it does not pay on processors (docs/adr).

Deadlines: a request whose time is over is dropped at dequeue and its caller told; a caller
that gives up frees its place, and a running batch that nobody waits for is aborted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from edge_runtime.backends.base import Backend, Cancelled, Run
from edge_runtime.engine.batch import Work, check, split, stack
from edge_runtime.engine.queue import Entry, RequestQueue
from edge_runtime.engine.stats import ModelStats
from edge_runtime.engine.times import ServiceTimes
from edge_runtime.engine.warmup import sample_work
from edge_runtime.errors import (
    DeadlineExceeded,
    InvalidInput,
    Overloaded,
    Unavailable,
)
from edge_runtime.protocol.types import ANY_DIM, Array, InferRequest, Signature, Tensor
from policies.admission import QueueState, Refused, admit

logger = logging.getLogger(__name__)

WARM_UP_S: Final = 0.5  # loading a slow model must not take seconds more
ABORT_S: Final = 5.0  # an aborted run stops at the next operator of the model
PARALLEL_S: Final = 0.001  # below this two callers slow each other down on the interpreter lock


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a model is served.

    max_batch_size: rows stacked into one run; max_delay_ms: how long an incomplete batch waits
    for more; instances: runs at once, 0 to decide by the measured service time; max_queue:
    requests that may wait; max_queue_wait_ms: expected wait above which requests are refused.
    """

    max_batch_size: int = 8
    max_delay_ms: float = 0.0
    instances: int = 0
    max_queue: int = 256
    max_queue_wait_ms: float = 1000.0
    intra_op_threads: int = 1


class _Job:
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
        self.future: asyncio.Future[list[Array]] = asyncio.get_running_loop().create_future()
        self.batch: _Batch | None = None


class _Batch:
    """Jobs that run together; aborted once none of them is waited for."""

    __slots__ = ("is_abandoned", "jobs", "run", "waiters")

    def __init__(self, jobs: Sequence[_Job]) -> None:
        self.jobs = jobs
        self.waiters = len(jobs)
        self.run: Run | None = None
        self.is_abandoned = False

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
class _Timing:
    input_ns: int
    infer_ns: int
    output_ns: int
    thread_ns: int


class ModelRunner:
    """Serves one backend. Create and use on one event loop; `close` drains it."""

    def __init__(
        self,
        model: str,
        version: str,
        backend: Backend,
        options: ModelOptions,
        pool: Executor,
        pool_size: int,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.model = model
        self.version = version
        self.backend = backend
        self.options = options
        self.stats = ModelStats(model, version)
        self.service = ServiceTimes(has_fixed_rows=_has_fixed_rows(backend.signature))
        self._pool = pool
        self._pool_size = pool_size
        self._wall = wall
        self._queue: RequestQueue[_Job] = RequestQueue(options.max_queue)
        self._datatypes = {spec.name: spec.datatype for spec in backend.signature.outputs}
        self._queued_rows = 0
        self._running_rows = 0
        self._running = 0
        self._runs: dict[asyncio.Task[None], _Batch] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def workers(self) -> int:
        """Runs that may go on at once."""
        if self.options.instances:
            return self.options.instances
        return self._pool_size if self.service.estimate(1) >= PARALLEL_S else 1

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return self._running

    @property
    def work_ahead_s(self) -> float:
        """Seconds of work queued, plus half of what is running."""
        return (self._queued_rows + 0.5 * self._running_rows) * self.service.row_s

    async def infer(
        self, request: InferRequest, *, deadline: float, priority: int = 0
    ) -> tuple[Tensor, ...]:
        """Compute one request. deadline: on the loop's clock.

        Raises InvalidInput, Overloaded, DeadlineExceeded or Unavailable (model unloading).
        """
        now = asyncio.get_running_loop().time()
        if self._is_closing:
            raise Unavailable(f"model '{self.model}' is being unloaded", retry_after_s=1.0)
        names = tuple(output.name for output in request.outputs)
        work = check(self.backend.signature, request.inputs, names)
        is_idle = self._running == 0 and not self._queue
        self._admit(work, deadline - now, is_idle)
        if not self._queue and self.service.is_quick(work.rows) and not self.options.max_delay_ms:
            arrays = self._compute_inline(work)
        else:
            arrays = await self._compute_queued(work, deadline, priority, now)
        return tuple(
            Tensor(name, self._datatypes[name], array)
            for name, array in zip(work.outputs, arrays, strict=True)
        )

    async def warm_up(self) -> None:
        """Run zeros through the model so that service times are known and caches are warm.

        A model that refuses them (a free dimension that may not be 1) simply starts cold.
        """
        loop = asyncio.get_running_loop()
        for turn, rows in enumerate((1, 1, 1, self.options.max_batch_size)):
            work = sample_work(self.backend.signature, rows)
            if work is None:
                return
            batch = _Batch([])
            try:
                _, timing = await loop.run_in_executor(self._pool, self._execute, batch, [work])
            except asyncio.CancelledError:
                batch.abandon()
                raise
            except InvalidInput as error:
                logger.debug("no warm-up for %s: %s", self.model, error)
                return
            seconds = timing.infer_ns / 1e9
            is_slow = rows == 1 and seconds * self.options.max_batch_size > WARM_UP_S
            if turn > 0 or is_slow:  # the first run also allocates and says little of the next
                self.service.saw(work.rows, seconds, timing.thread_ns / 1e9)
            if is_slow:
                return

    async def close(self, drain_s: float, abort_s: float = ABORT_S) -> None:
        """Refuse new requests, finish the accepted ones within drain_s, free the model.

        What is not finished by then is told so and aborted; a run that has not stopped abort_s
        later is left behind.
        """
        self._is_closing = True
        try:
            async with asyncio.timeout(drain_s):
                while self._queue or self._running:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            await self._give_up(abort_s)
        if self._timer is not None:
            self._timer.cancel()
        self.backend.close()

    async def _give_up(self, abort_s: float) -> None:
        """Tell everybody who still waits, and stop what still runs."""
        gone = Unavailable(f"model '{self.model}' was unloaded", retry_after_s=1.0)
        while (head := self._queue.head()) is not None:
            self._drop(head, gone)
        runs = dict(self._runs)
        for batch in runs.values():
            for job in batch.jobs:
                self._settle(job, error=gone)
                if job.batch is not None:
                    job.batch.abandon()
        if runs:
            _, stuck = await asyncio.wait(runs, timeout=abort_s)
            for task in stuck:
                logger.error("a run of %s does not stop; its thread is lost", self.model)
                task.cancel()
            await asyncio.gather(*stuck, return_exceptions=True)

    def _admit(self, work: Work, slack_s: float, is_idle: bool) -> None:
        if slack_s <= 0:
            late = self._late()
            self._failed(late, 0.0)
            raise late
        # What runs counts in full, as if just begun: this bounds the late, not the average.
        ahead_s = (self._queued_rows + self._running_rows) * self.service.row_s
        state = QueueState(len(self._queue), self.options.max_queue, ahead_s, self.workers)
        rows = min(self.options.max_batch_size, self._queued_rows + work.rows)
        service_s = 0.0 if is_idle else self.service.estimate(max(rows, work.rows))
        verdict = admit(state, service_s, slack_s, self.options.max_queue_wait_ms / 1e3)
        if isinstance(verdict, Refused):
            self.stats.rejected += 1
            raise Overloaded(
                f"model '{self.model}' has more work than it can finish in time "
                f"({verdict.reason}: {len(self._queue)} requests wait)",
                retry_after_s=verdict.retry_after_s,
                details={"reason": verdict.reason},
            )

    def _compute_inline(self, work: Work) -> list[Array]:
        began = time.perf_counter()
        try:
            (arrays,), timing = self._execute(_Batch(()), (work,))
        except Exception as error:
            self._failed(error, time.perf_counter() - began)
            raise
        self._ran(work.rows, timing)
        self.stats.succeeded(time.perf_counter() - began, 0.0, int(self._wall() * 1e3))
        return arrays

    async def _compute_queued(
        self, work: Work, deadline: float, priority: int, now: float
    ) -> list[Array]:
        job = _Job(work, deadline, now)
        # A request that cannot be stacked is alone in its bucket.
        bucket = work.bucket if work.bucket is not None else job
        entry = self._queue.push(
            job, bucket=bucket, rows=work.rows, priority=priority, deadline=deadline
        )
        self._queued_rows += work.rows
        self._pump()
        try:
            async with asyncio.timeout_at(deadline):
                return await job.future
        except TimeoutError:
            if job.future.done() and not job.future.cancelled():
                return job.future.result()  # it came in the same moment
            late = self._late()
            self._failed(late, time.perf_counter() - job.began)
            raise late from None
        except asyncio.CancelledError:
            if job.future.cancelled():
                waited_s = time.perf_counter() - job.began
                self.stats.cancel.add(int(waited_s * 1e9))
            else:
                job.future.exception()  # nobody is left to hear of it
            raise
        finally:
            if not job.future.done():
                job.future.cancel()
            if job.future.cancelled():
                self._leave(entry)

    def _leave(self, entry: Entry[_Job]) -> None:
        """Free the place of a request that nobody waits for any more."""
        if entry.item.batch is not None:
            entry.item.batch.leave()
        elif self._queue.remove(entry):
            self._queued_rows -= entry.rows
            self._check_idle()

    def _drop(self, entry: Entry[_Job], error: Exception) -> None:
        self._queue.remove(entry)
        self._queued_rows -= entry.rows
        self._settle(entry.item, error=error)

    def _pump(self) -> None:
        """Start batches while workers are free and the queue holds something ready."""
        loop = asyncio.get_running_loop()
        full = self.options.max_batch_size
        while (head := self._queue.head()) is not None:
            quick_rows = self.service.quick_rows(head.rows, full)
            if not quick_rows and self._running >= self.workers:
                break
            now = loop.time()
            if head.item.deadline <= now:
                self._drop(head, self._late())
                continue
            if not self._is_ready(head, now):
                # Others need not wait for an incomplete batch, however urgent it is.
                heads = self._queue.heads()
                ready = [other for other in heads if self._is_ready(other, now)]
                if not ready:
                    self._wake_at(min(self._ready_at(other) for other in heads))
                    break
                head = min(ready)
                quick_rows = self.service.quick_rows(head.rows, full)
                if not quick_rows and self._running >= self.workers:
                    break
            is_lone = head.rows == 1 and self.service.is_single_due()
            most = quick_rows or (1 if is_lone else full)
            entries = self._queue.take_batch(head, most)
            self._queued_rows -= sum(entry.rows for entry in entries)
            jobs = [entry.item for entry in entries]
            if quick_rows:
                self._finish_inline(jobs)
                loop.call_soon(self._pump)  # others come in between
                break
            self._start(jobs)
        self._check_idle()

    def _is_ready(self, head: Entry[_Job], now: float) -> bool:
        return self._ready_at(head) <= now or self._has_full_batch(head)

    def _ready_at(self, head: Entry[_Job]) -> float:
        """Return when an incomplete batch starts: after the delay, or half of the head's time."""
        job = head.item
        delay_s = min(self.options.max_delay_ms / 1e3, (job.deadline - job.queued_at) / 2)
        return job.queued_at + delay_s

    def _has_full_batch(self, head: Entry[_Job]) -> bool:
        wanted = self.options.max_batch_size
        return head.item.work.bucket is None or self._queue.rows_behind(head, wanted) >= wanted

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._pump)

    def _finish_inline(self, jobs: Sequence[_Job]) -> None:
        """Compute a quick batch on the loop."""
        started = time.perf_counter()
        for job in jobs:
            job.started = started
        batch = _Batch(jobs)
        try:
            parts, timing = self._execute(batch, [job.work for job in jobs])
        except Exception as error:
            if len(jobs) == 1:
                self._settle(jobs[0], error=error)
                return
            for job in jobs:  # one bad request must not fail its neighbours
                self._finish_inline([job])
            return
        self._record(jobs, parts, timing)

    def _record(self, jobs: Sequence[_Job], parts: Sequence[list[Array]], timing: _Timing) -> None:
        self._ran(sum(job.work.rows for job in jobs), timing)
        for job, arrays in zip(jobs, parts, strict=True):
            self._settle(job, arrays=arrays)

    def _ran(self, rows: int, timing: _Timing) -> None:
        self.service.saw(rows, timing.infer_ns / 1e9, timing.thread_ns / 1e9)
        self.stats.executed(rows, timing.input_ns, timing.infer_ns, timing.output_ns)

    def _start(self, jobs: Sequence[_Job]) -> None:
        batch = _Batch(jobs)
        started = time.perf_counter()
        for job in jobs:
            job.batch = batch
            job.started = started
        self._running += 1
        self._running_rows += sum(job.work.rows for job in jobs)
        task = asyncio.get_running_loop().create_task(self._run(batch))
        self._runs[task] = batch
        task.add_done_callback(self._runs.pop)

    async def _run(self, batch: _Batch) -> None:
        rows = sum(job.work.rows for job in batch.jobs)
        try:
            await self._compute_batch(batch)
        finally:
            for job in batch.jobs:
                job.batch = None  # a circle would keep the tensors until the collector comes by
            self._running -= 1
            self._running_rows -= rows
            self._pump()

    async def _compute_batch(self, batch: _Batch) -> None:
        loop = asyncio.get_running_loop()
        works = [job.work for job in batch.jobs]
        try:
            parts, timing = await loop.run_in_executor(self._pool, self._execute, batch, works)
        except Cancelled:
            return
        except Exception as error:
            if len(batch.jobs) == 1:
                self._settle(batch.jobs[0], error=error)
                return
            # One bad request must not fail its neighbours: run each alone.
            for job in batch.jobs:
                if not job.future.done():
                    job.batch = _Batch([job])
                    await self._compute_batch(job.batch)
            return
        self._record(batch.jobs, parts, timing)

    def _execute(self, batch: _Batch, works: Sequence[Work]) -> tuple[list[list[Array]], _Timing]:
        """Stack, compute and cut; runs on a pool thread, or on the loop when it is quick."""
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
        return parts, _Timing(stacked - begin, computed - stacked, done - computed, thread_ns)

    def _settle(
        self,
        job: _Job,
        *,
        arrays: list[Array] | None = None,
        error: Exception | None = None,
    ) -> None:
        if job.future.done():
            return
        now = time.perf_counter()
        if error is not None:
            self._failed(error, now - job.began)
            job.future.set_exception(error)
        elif arrays is not None:
            queued_s = job.started - job.began
            self.stats.succeeded(now - job.began, queued_s, int(self._wall() * 1e3))
            job.future.set_result(arrays)

    def _failed(self, error: Exception, seconds: float) -> None:
        self.stats.fail.add(int(seconds * 1e9))
        if isinstance(error, DeadlineExceeded):
            self.stats.expired += 1

    def _check_idle(self) -> None:
        if not self._queue and not self._running:
            self._idle.set()

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"the deadline passed before model '{self.model}' could answer", field="timeout"
        )


def _has_fixed_rows(signature: Signature) -> bool:
    """Tell whether every row of a batch is the same amount of work, as far as shapes say."""
    inner = (
        dim for spec in signature.inputs for dim in spec.shape[1 if signature.is_batched else 0 :]
    )
    return all(dim != ANY_DIM for dim in inner)
