"""One loaded model: admission, queue, batching, execution.

Everything but the backend's computation happens on the event loop that owns the runner, so
there are no locks. A request is fitted to the model, admitted or refused
(`policies.admission`), and then either computed at once on the loop, when nothing waits and the
model is quick (`ServiceTimes.is_quick`), or queued. The most urgent request and whatever stacks
onto it become a batch: on the loop while that is quick, else on the thread pool when a worker is
free. Batches form while workers are busy, and waiting for more is an option that is off by
default, because it does not pay on processors (docs/adr).

Deadlines: the queue is ordered by them, a request that cannot be in time any more is dropped at
dequeue and its caller told, and no batch is made so large that it makes its most urgent request
late. A caller that gives up frees its place, and a running batch that nobody waits for is aborted.
A batch that an accelerator lost is computed again, without those who are late by then, on the next
rung of the model's ladder (`rungs`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Final

from edge_runtime.backends.base import AcceleratorFault, Cancelled, TooSlow
from edge_runtime.engine.batch import Work, check
from edge_runtime.engine.jobs import Answer, Batch, Computed, Job, Timing
from edge_runtime.engine.queue import Entry, RequestQueue
from edge_runtime.engine.rungs import Ladder, ProcessorRung, Rung
from edge_runtime.engine.stats import BusyShare, ModelStats
from edge_runtime.engine.times import ServiceTimes
from edge_runtime.engine.warmup import warm_up
from edge_runtime.errors import (
    DeadlineExceeded,
    Overloaded,
    Unavailable,
)
from edge_runtime.protocol.types import InferRequest, Signature, Tensor
from policies.admission import QueueState, Refused, admit
from policies.routing.types import SLACKS

logger = logging.getLogger(__name__)

COUNT_EVERY_S: Final = 0.002
ABORT_S: Final = 5.0  # an aborted run stops at the next operator of the model


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a model is served.

    max_batch_size: rows stacked into one run; max_delay_ms: how long an incomplete batch waits
    for more; instances: runs at once (at most one for each thread of the engine), 0 to decide by
    the measured service time; max_queue: requests that may wait; max_queue_wait_ms: expected wait
    above which requests are refused; spill: 1 to compute on the processor what the accelerator
    would have to refuse, one request for each worker there; pinned: 1 to keep it in memory whatever
    else is loaded; cache_ttl_ms: how long an answer is given again for the same input, 0 to compute
    each time; cache_stale_ms: how old an answer may be that is given, marked as stale, when nothing
    can compute, 0 to refuse then.
    """

    max_batch_size: int = 8
    max_delay_ms: float = 0.0
    instances: int = 0
    max_queue: int = 256
    max_queue_wait_ms: float = 1000.0
    intra_op_threads: int = 1
    spill: int = 1
    pinned: int = 0
    cache_ttl_ms: float = 0.0
    cache_stale_ms: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """Outputs, and the name of the rung that computed them.

    age_s: seconds since they were computed, where that was before this request; alone_s: what it
    would have taken by itself, 0 where that is not known.
    """

    outputs: tuple[Tensor, ...]
    rung: str
    age_s: float = 0.0
    alone_s: float = 0.0


class ModelRunner:
    """Serves one model version. Create and use on one event loop; `close` drains it."""

    def __init__(
        self,
        model: str,
        version: str,
        ladder: Ladder,
        options: ModelOptions,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.model = model
        self.version = version
        self.ladder = ladder
        self.options = options
        self.stats = ModelStats(model, version)
        self._wall = wall
        self._queue: RequestQueue[Job] = RequestQueue(options.max_queue)
        self._datatypes = {spec.name: spec.datatype for spec in ladder.signature.outputs}
        self._queued_rows = 0
        self._running_rows = 0
        self._running = 0
        self._begun_s = 0.0  # sum of the moments at which those runs began
        self._beside = 0
        self._busy = BusyShare()
        self._counted: Sequence[int] = (0,) * len(SLACKS)
        self._counted_at = -inf
        self._ran_at = time.perf_counter()
        self._runs: dict[asyncio.Task[None], Batch] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def signature(self) -> Signature:
        return self.ladder.signature

    @property
    def service(self) -> ServiceTimes:
        """Service times of the rung that would compute now, or of the highest one."""
        return (self.ladder.best() or self.ladder.rungs[0]).service

    @property
    def workers(self) -> int:
        """Runs that may go on at once."""
        rung = self.ladder.best()
        return 1 if rung is None else rung.workers(self.options.instances)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return self._running

    @property
    def idle_s(self) -> float:
        """Seconds since the last run ended; 0 while one goes on."""
        return 0.0 if self._running else time.perf_counter() - self._ran_at

    def busy_share(self) -> float:
        """Return the share of the last second or so in which it computed, runs under way too."""
        now = time.perf_counter()
        under_way_ns = int(1e9 * (self._running * now - self._begun_s))
        return self._busy.read(now, self.stats.compute_infer.ns + under_way_ns, self.workers)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for it, nor is computed."""
        return not (self._queue or self._running or self._beside)

    @property
    def work_ahead_s(self) -> float:
        """Seconds of work queued, plus half of what is running."""
        return (self._queued_rows + 0.5 * self._running_rows) * self.service.row_s

    def wait_s(self, now: float) -> tuple[float, ...]:
        """Return expected seconds of waiting by the time to a deadline, for each of `SLACKS`.

        Who has all time waits for everybody. How many go before the others is counted every few
        milliseconds only, since this is asked for with each reply. now: on the loop's clock.
        """
        workers = self.workers
        most_s = self.work_ahead_s / workers
        if not self._queue:
            return (most_s,) * len(SLACKS)
        if now - self._counted_at >= COUNT_EVERY_S:
            self._counted_at = now
            self._counted = self._queue.rows_by_slack(now, SLACKS)
        row_s = self.service.row_s / workers
        running_s = 0.5 * self._running_rows * row_s
        before_s = [min(rows * row_s + running_s, most_s) for rows in self._counted]
        before_s[-1] = most_s
        return tuple(before_s)

    async def infer(
        self, request: InferRequest, *, deadline: float, priority: int = 0
    ) -> tuple[Tensor, ...]:
        """Compute one request; see `answer`, which also says where it was computed."""
        return (await self.answer(request, deadline=deadline, priority=priority)).outputs

    async def answer(
        self, request: InferRequest, *, deadline: float, priority: int = 0
    ) -> Answered:
        """Compute one request. deadline: on the loop's clock.

        Raises InvalidInput, Overloaded, DeadlineExceeded or Unavailable (the model is being
        unloaded, or nothing that could compute it is left).
        """
        now = asyncio.get_running_loop().time()
        if self._is_closing:
            raise Unavailable(f"model '{self.model}' is being unloaded", retry_after_s=1.0)
        work = self.fit(request)
        self.ladder.asked(now)
        rung = self.ladder.best()
        if rung is None:
            raise self._nothing_left()
        refused = self._refusal(rung, work, deadline, priority, now)
        if refused is not None:
            spare = self._spare(rung, work, deadline - now)
            if spare is None:
                self.stats.rejected += 1
                raise refused
            answer = await self._compute_beside(spare, rung, work, deadline, now)
        elif (
            not self._queue
            and isinstance(rung, ProcessorRung)
            and rung.service.is_quick(work.rows)
            and self.ladder.on_trial(now) is None
            and not self.options.max_delay_ms
        ):
            answer = self._compute_inline(rung, work)
        else:
            answer = await self._compute_queued(work, deadline, priority, now)
        outputs = tuple(
            Tensor(name, self._datatypes[name], array)
            for name, array in zip(work.outputs, answer.arrays, strict=True)
        )
        return Answered(outputs, answer.rung, alone_s=answer.alone_s)

    def fit(self, request: InferRequest) -> Work:
        """Fit a request to the model. Raises InvalidInput naming what does not fit."""
        names = tuple(output.name for output in request.outputs)
        return check(self.ladder.signature, request.inputs, names)

    async def warm_up(self) -> None:
        """Run zeros through every rung that is there, so that times are known and caches warm.

        A model that refuses them (a free dimension that may not be 1) simply starts cold, and an
        accelerator that fails says so by itself.
        """
        for rung in self.ladder.rungs:
            if rung.is_available:
                await warm_up(rung, self.ladder.signature, self.options.max_batch_size)

    async def close(self, drain_s: float, abort_s: float = ABORT_S) -> None:
        """Refuse new requests, finish the accepted ones within drain_s, free the model.

        What is not finished by then is told so and aborted; a run that has not stopped abort_s
        later is left behind.
        """
        self._is_closing = True
        try:
            async with asyncio.timeout(drain_s):
                while not self.is_idle:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            await self._give_up(abort_s)
        if self._timer is not None:
            self._timer.cancel()
        self.ladder.close()

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

    def _refusal(
        self, rung: Rung, work: Work, deadline: float, priority: int, now: float
    ) -> Overloaded | None:
        """Return why a rung cannot compute a request in time. Raises DeadlineExceeded."""
        slack_s = deadline - now
        is_idle = self._running == 0 and not self._queue
        if slack_s <= 0:
            late = self._late()
            self._failed(late, 0.0)
            raise late
        # What runs counts in full, as if just begun: this bounds the late, not the average.
        row_s = rung.service.row_s
        ahead_s = before_s = (self._queued_rows + self._running_rows) * row_s
        workers = rung.workers(self.options.instances)
        rows = min(self.options.max_batch_size, self._queued_rows + work.rows)
        service_s = 0.0 if is_idle else rung.service.estimate(max(rows, work.rows))
        if self._queue and ahead_s / workers + service_s > slack_s:  # it may pass others
            before = self._queue.rows_before(self._queue.key_of(priority, now, deadline))
            before_s = (before + self._running_rows) * row_s
        state = QueueState(len(self._queue), self.options.max_queue, ahead_s, workers, before_s)
        verdict = admit(state, service_s, slack_s, self.options.max_queue_wait_ms / 1e3)
        if not isinstance(verdict, Refused):
            return None
        return Overloaded(
            f"model '{self.model}' has more work than it can finish in time "
            f"({verdict.reason}: {len(self._queue)} requests wait)",
            retry_after_s=verdict.retry_after_s,
            details={"reason": verdict.reason},
        )

    def _spare(self, full: Rung, work: Work, slack_s: float) -> ProcessorRung | None:
        """Return what can compute at once what an accelerator would have to refuse."""
        if not self.options.spill or isinstance(full, ProcessorRung):
            return None
        rung = self.ladder.best((full.name,))
        if (
            not isinstance(rung, ProcessorRung)
            or self._beside >= rung.workers(self.options.instances)
            or rung.service.estimate(work.rows) > slack_s
        ):
            return None
        return rung

    def _compute_inline(self, rung: ProcessorRung, work: Work) -> Answer:
        began = time.perf_counter()
        try:
            computed = rung.execute(Batch(()), (work,))
        except Exception as error:
            self._failed(error, time.perf_counter() - began)
            raise
        self._ran(rung, work.rows, computed.timing)
        self.stats.succeeded(time.perf_counter() - began, 0.0, int(self._wall() * 1e3))
        return Answer(computed.parts[0], rung.name, rung.service.alone(work.rows))

    async def _compute_beside(
        self, rung: ProcessorRung, full: Rung, work: Work, deadline: float, now: float
    ) -> Answer:
        """Compute past the queue, on a rung below the one that the queue is for."""
        if rung.service.is_quick(work.rows):
            return self._compute_inline(rung, work)
        job = Job(work, deadline, now)
        job.batch = batch = Batch([job])
        self._beside += 1
        self._begin(self._run_beside(batch, full), batch)
        return await self._answer_of(job, batch.leave)

    async def _run_beside(self, batch: Batch, full: Rung) -> None:
        try:
            await self._compute_batch(batch, frozenset({full.name}))
        finally:
            for job in batch.jobs:
                job.batch = None
            self._beside -= 1
            self._check_idle()

    async def _compute_queued(
        self, work: Work, deadline: float, priority: int, now: float
    ) -> Answer:
        job = Job(work, deadline, now)
        # A request that cannot be stacked is alone in its bucket.
        bucket = work.bucket if work.bucket is not None else job
        entry = self._queue.push(
            job, bucket=bucket, rows=work.rows, priority=priority, deadline=deadline, now=now
        )
        self._queued_rows += work.rows
        self._pump()
        return await self._answer_of(job, partial(self._leave, entry))

    async def _answer_of(self, job: Job, leave: Callable[[], None]) -> Answer:
        """Wait for an answer. leave: called when nobody waits for it any more."""
        try:
            async with asyncio.timeout_at(job.deadline):
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
                leave()

    def _leave(self, entry: Entry[Job]) -> None:
        """Free the place of a request that nobody waits for any more."""
        if entry.item.batch is not None:
            entry.item.batch.leave()
        elif self._queue.remove(entry):
            self._queued_rows -= entry.rows
            self._pump()  # it may have kept a quick one from the loop

    def _drop(self, entry: Entry[Job], error: Exception) -> None:
        self._queue.remove(entry)
        self._queued_rows -= entry.rows
        self._settle(entry.item, error=error)

    def _pump(self) -> None:
        """Start batches while workers are free and the queue holds something ready."""
        loop = asyncio.get_running_loop()
        full = self.options.max_batch_size
        while (head := self._queue.head()) is not None:
            rung = self.ladder.on_trial(loop.time()) or self.ladder.best()
            if rung is None:
                self._drop(head, self._nothing_left())
                continue
            quick_rows = rung.service.quick_rows(head.rows, full)
            is_busy = self._running >= rung.workers(self.options.instances)
            if not quick_rows and is_busy:
                break
            now = loop.time()
            if not self._is_ready(head, now):
                # Others need not wait for an incomplete batch, however urgent it is.
                heads = self._queue.heads()
                ready = [other for other in heads if self._is_ready(other, now)]
                if not ready:
                    self._wake_at(min(self._ready_at(other) for other in heads))
                    break
                head = min(ready)
                quick_rows = rung.service.quick_rows(head.rows, full)
                if not quick_rows and is_busy:
                    break
            is_lone = not self._running and len(self._queue) == 1  # it holds nobody up
            judge = None if is_lone else rung
            if not self._in_time([head.item], now, judge):
                self._drop(head, self._late())
                continue
            is_single = head.rows == 1 and rung.service.is_single_due()
            most = quick_rows or (1 if is_single else self._most_rows(rung, head, now))
            entries = self._queue.take_batch(head, most)
            self._queued_rows -= sum(entry.rows for entry in entries)
            jobs = self._in_time([entry.item for entry in entries], now, judge)
            if quick_rows and isinstance(rung, ProcessorRung):
                self._finish_inline(rung, jobs)
                loop.call_soon(self._pump)  # others come in between
                break
            self._start(jobs)
        self._check_idle()

    def _in_time(self, jobs: Sequence[Job], now: float, rung: Rung | None = None) -> list[Job]:
        """Return those who are still waited for, and tell the others that they are late.

        A loop that was kept busy gets to a batch before it gets to the timers of those in it. rung:
        that would compute them; not even undisturbed would it be done with the hopeless in time.
        Who holds nobody up is not judged: the times are learned by running, and may be wrong.
        """
        for job in jobs:
            least_s = 0.0 if rung is None else rung.service.least(job.work.rows)
            if job.deadline <= now + least_s:
                self._settle(job, error=self._late())
        return [job for job in jobs if not job.future.done()]

    def _most_rows(self, rung: Rung, head: Entry[Job], now: float) -> int:
        """Return how large a batch may be that does not make its most urgent request late.

        One that is expected to be late by itself does not hold up the others.
        """
        full = self.options.max_batch_size
        left_s = head.item.deadline - now
        if rung.service.estimate(head.rows) > left_s:
            return full
        rows = full
        while rows > head.rows and rung.service.estimate(rows) > left_s:
            rows //= 2
        return max(rows, head.rows)

    def _is_ready(self, head: Entry[Job], now: float) -> bool:
        return (
            not self.options.max_delay_ms
            or self._has_full_batch(head)
            or self._ready_at(head) <= now
        )

    def _ready_at(self, head: Entry[Job]) -> float:
        """Return when an incomplete batch starts, for the first of those in it, not the head.

        Each waits for the delay, or half of its time.
        """
        delay_s = self.options.max_delay_ms / 1e3
        jobs = (entry.item for entry in self._queue.bucket_of(head))
        return min(job.queued_at + min(delay_s, (job.deadline - job.queued_at) / 2) for job in jobs)

    def _has_full_batch(self, head: Entry[Job]) -> bool:
        wanted = self.options.max_batch_size
        return head.item.work.bucket is None or self._queue.rows_behind(head, wanted) >= wanted

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._pump)

    def _finish_inline(self, rung: ProcessorRung, jobs: Sequence[Job]) -> None:
        """Compute a quick batch on the loop."""
        started = time.perf_counter()
        for job in jobs:
            job.started = started
        try:
            computed = rung.execute(Batch(jobs), [job.work for job in jobs])
        except Exception as error:
            if len(jobs) == 1:
                self._settle(jobs[0], error=error)
                return
            for job in jobs:  # one bad request must not fail its neighbours
                self._finish_inline(rung, [job])
            return
        self._record(rung, jobs, computed)

    def _record(self, rung: Rung, jobs: Sequence[Job], computed: Computed) -> None:
        self._ran(rung, sum(job.work.rows for job in jobs), computed.timing)
        for job, arrays in zip(jobs, computed.parts, strict=True):
            alone_s = rung.service.alone(job.work.rows)
            if not alone_s and len(jobs) == 1:
                alone_s = computed.timing.infer_ns / 1e9
            self._settle(job, answer=Answer(arrays, rung.name, alone_s))

    def _ran(self, rung: Rung, rows: int, timing: Timing) -> None:
        self._ran_at = time.perf_counter()
        self.ladder.ran(rung, rows, timing)
        self.stats.executed(rows, timing.input_ns, timing.infer_ns, timing.output_ns)
        self.stats.ran_on(rung.name, rows)

    def _start(self, jobs: Sequence[Job]) -> None:
        batch = Batch(jobs)
        started = time.perf_counter()
        for job in jobs:
            job.batch = batch
            job.started = started
        self._running += 1
        self._begun_s += started
        self._running_rows += sum(job.work.rows for job in jobs)
        self._begin(self._run(batch, started), batch)

    def _begin(self, run: Coroutine[object, object, None], batch: Batch) -> None:
        task = asyncio.get_running_loop().create_task(run)
        self._runs[task] = batch
        task.add_done_callback(self._runs.pop)

    async def _run(self, batch: Batch, started: float) -> None:
        rows = sum(job.work.rows for job in batch.jobs)
        try:
            await self._compute_batch(batch)
        finally:
            for job in batch.jobs:
                job.batch = None  # a circle would keep the tensors until the collector comes by
            self._running -= 1
            self._begun_s = self._begun_s - started if self._running else 0.0
            self._running_rows -= rows
            self._pump()

    async def _compute_batch(self, batch: Batch, tried: frozenset[str] = frozenset()) -> None:
        rung = self.ladder.take(asyncio.get_running_loop().time(), tried)
        if rung is None:
            for job in batch.jobs:
                self._settle(job, error=self._nothing_left())
            return
        works = [job.work for job in batch.jobs]
        try:
            computed = await rung.compute(batch, works)
        except Cancelled:
            return
        except AcceleratorFault as fault:
            logger.warning("%s lost a batch of %d: %s", rung.name, len(works), fault)
            if isinstance(fault, TooSlow):
                self.ladder.gave_up(rung)
            await self._compute_again(batch, tried | {rung.name})
        except Exception as error:
            if len(batch.jobs) == 1:
                self._settle(batch.jobs[0], error=error)
                return
            # One bad request must not fail its neighbours: run each alone.
            for job in batch.jobs:
                if self._in_time([job], asyncio.get_running_loop().time()):
                    job.batch = Batch([job])
                    await self._compute_batch(job.batch, tried)
        else:
            self._record(rung, batch.jobs, computed)

    async def _compute_again(self, lost: Batch, tried: frozenset[str]) -> None:
        """Compute what is still waited for of a lost batch, on the rungs not tried yet."""
        left = Batch(self._in_time(lost.jobs, asyncio.get_running_loop().time()))
        if not left.jobs:
            return
        for job in left.jobs:
            job.batch = left
        self.stats.replayed += len(left.jobs)
        await self._compute_batch(left, tried)

    def _settle(
        self,
        job: Job,
        *,
        answer: Answer | None = None,
        error: Exception | None = None,
    ) -> None:
        if job.future.done():
            return
        now = time.perf_counter()
        if error is not None:
            self._failed(error, now - job.began)
            job.future.set_exception(error)
        elif answer is not None:
            queued_s = job.started - job.began
            self.stats.succeeded(now - job.began, queued_s, int(self._wall() * 1e3))
            job.future.set_result(answer)

    def _failed(self, error: Exception, seconds: float) -> None:
        self.stats.fail.add(int(seconds * 1e9))
        if isinstance(error, DeadlineExceeded):
            self.stats.expired += 1

    def _check_idle(self) -> None:
        if self.is_idle:
            self._idle.set()

    def _nothing_left(self) -> Unavailable:
        reasons = "; ".join(self.ladder.reasons()) or "every rung has failed this request"
        return Unavailable(
            f"nothing can compute model '{self.model}' now ({reasons})", retry_after_s=1.0
        )

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"the deadline passed before model '{self.model}' could answer", field="timeout"
        )
