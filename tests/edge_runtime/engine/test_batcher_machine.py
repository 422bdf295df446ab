"""A runner through any sequence of requests, runs, faults, waits and a close, against a model.

Nothing here depends on the machine: time stands still until a rule moves it, a run goes on when a
rule says so, and service times are given. `Bench` drives a real `ModelRunner`, on a real event loop
and real threads, and looks at each batch in the moment that it begins: whose it is, who was passed
over, who should not be in it. What should hold at rest is checked when nothing is left to do.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from math import inf
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, Unpack

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from edge_runtime.backends.base import AcceleratorFault, Cancelled
from edge_runtime.engine.rungs import AcceleratorRung, Ladder, ProcessorRung, Rung
from edge_runtime.engine.runner import Answered, ModelOptions, ModelRunner
from edge_runtime.engine.times import ServiceTimes
from edge_runtime.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from edge_runtime.protocol.types import Array, InferRequest, Tensor
from policies.admission import QueueState, Refused, admit
from policies.aging import GRACE_S, MAX_LEVEL, STEP_S
from tests.clock import Clock
from tests.edge_runtime.engine.gate import SIGNATURE, Floats, doubled
from tests.policies.test_aging import MAX_PRIORITY, rank_at

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
P = ParamSpec("P")
STARVED_S = (MAX_LEVEL + 1) * STEP_S  # nobody is overtaken by who comes so much later


# A world that stands still. Its times are of few binary digits, so that sums of them are exact.


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop by a clock that others set; `settle` does all that is due and never waits."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timers: list[float] = []
        self._calls = 0
        super().__init__()

    def time(self) -> float:
        return self._clock()

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self._calls += 1
        heapq.heappush(self._timers, when)
        return super().call_at(when, callback, *args, context=context)

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        self._calls += 1
        return super().call_soon(callback, *args, context=context)

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        self._calls += 1
        return super().call_soon_threadsafe(callback, *args, context=context)

    def settle(self) -> None:
        for _ in range(1000):
            self._calls = 0
            super().call_soon(self.stop)
            self.run_forever()
            if not self._calls:
                return
        raise AssertionError("the loop does not come to rest")

    def first_timer(self) -> float:
        """Return when the first timer is due that is not due yet; inf for none."""
        while self._timers and self._timers[0] <= self.time():
            heapq.heappop(self._timers)
        return self._timers[0] if self._timers else inf


class SteppedPool(Executor):
    """Runs each call on a thread of its own, as far as it goes without being told to go on."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self._stopped = threading.Semaphore(0)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def call() -> None:
            future.set_running_or_notify_cancel()
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)
            finally:
                self._stopped.release()

        self.threads.append(threading.Thread(target=call, daemon=True))
        self.threads[-1].start()
        self._stopped.acquire()
        return future

    def stop_here(self, until: threading.Semaphore) -> None:
        """On a thread of the pool: stop, until told to go on."""
        self._stopped.release()
        until.acquire()

    def go_on(self, stopped: threading.Semaphore) -> None:
        """On the loop's thread: let one go on, as far as it goes."""
        stopped.release()
        self._stopped.acquire()


class FixedTimes(ServiceTimes):
    """Service times that nothing is learned by. quick: rows that may run on the loop."""

    def __init__(self, row_s: float, quick: int) -> None:
        super().__init__(has_fixed_rows=True)
        self.row_s = row_s
        self._quick = quick

    def saw(self, rows: int, seconds: float, thread_s: float | None = None) -> None:
        pass

    def estimate(self, rows: int) -> float:
        return rows * self.row_s

    def least(self, rows: int) -> float:
        return least_s(rows, self.row_s)

    def is_quick(self, rows: int) -> bool:
        return rows <= self._quick


def least_s(rows: int, row_s: float) -> float:
    """Return what an undisturbed run takes: half of what is expected."""
    return rows * row_s / 2


# The model


@dataclass(frozen=True)
class Setup:
    """What a bench is made of. depth: of a chip that comes first; instances: runs on the cpu.

    Either may be 0: then there is none. quick: rows that run on the loop.
    """

    depth: int = 0
    instances: int = 1
    quick: int = 0
    max_batch_size: int = 4
    max_queue: int = 6
    delay_s: float = 0.0
    row_s: float = 0.0
    is_deaf: bool = False
    began: float = 0.0


@dataclass(eq=False)
class Asked:
    """A request, as those who sent it know it. taken: the batch that it became part of."""

    number: int
    width: int
    rows: int
    priority: int
    queued_at: float
    deadline: float
    is_bad: bool
    refusal: type[Exception] | None
    task: asyncio.Task[Answered] = field(init=False, repr=False)
    taken: Batch | None = field(default=None, repr=False)
    last: Computation | None = field(default=None, repr=False)
    is_cancelled: bool = False
    ended_at: float | None = None

    @property
    def x(self) -> Floats:
        """Rows that no other request has."""
        first = self.number * 64
        numbers = np.arange(first, first + self.rows * self.width, dtype=np.float32)
        return numbers.reshape(self.rows, self.width)

    def rank(self, now: float) -> tuple[object, ...]:
        return rank_at(now, self.priority, self.queued_at, self.deadline, self.number)


@dataclass(eq=False)
class Computation:
    """One run of a batch, or of what is left of it. heard_at: when the loop hears of its end."""

    place: str
    batch: Batch = field(repr=False)
    members: list[Asked]
    began_at: float
    is_held: Callable[[], bool] = field(repr=False)
    finish: Callable[[], None] = field(repr=False)
    fault: Callable[[], None] | None = field(repr=False)
    heard_at: float | None = None
    is_lost: bool = False


@dataclass(eq=False)
class Batch:
    computations: list[Computation] = field(default_factory=list)

    @property
    def members(self) -> list[Asked]:
        return self.computations[0].members

    @property
    def is_going(self) -> bool:
        return any(computation.is_held() for computation in self.computations)


class Cpu:
    """A backend whose runs stop in the middle, unless they are on the loop."""

    name = "stepped"
    platform = "test"
    is_data_dependent = False
    signature = SIGNATURE

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.is_closed = False

    def prepare(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> CpuRun:
        return CpuRun(self.bench, np.asarray(inputs["x"], dtype=np.float32))

    def close(self) -> None:
        self.is_closed = True


class CpuRun:
    def __init__(self, bench: Bench, x: Floats) -> None:
        self._bench = bench
        self._x = x
        self._may_go_on = threading.Semaphore(0)
        self._is_held = False
        self._is_aborted = False

    def execute(self) -> list[Array]:
        is_inline = threading.current_thread() is threading.main_thread()
        self._is_held = not is_inline
        found = self._bench.begin(
            "cpu", self._x, lambda: self._is_held, self.finish, is_inline=is_inline
        )
        if not is_inline:
            self._bench.pool.stop_here(self._may_go_on)
        if self._is_aborted:
            raise Cancelled
        return [self._bench.compute(found, self._x)]

    def finish(self) -> None:
        self._is_held = False
        self._bench.pool.go_on(self._may_go_on)

    def abort(self) -> None:
        if self._is_held and not self._bench.setup.is_deaf:
            self._is_aborted = True
            self.finish()


class Chip:
    """An accelerator that may lose what it computes, and go away."""

    name = "chip"
    platform = "test"
    signature = SIGNATURE

    def __init__(self, bench: Bench, depth: int) -> None:
        self.bench = bench
        self.depth = depth
        self.asked_at = 0.0
        self.why = ""
        self.is_closed = False

    async def run(
        self, rows: Sequence[Mapping[str, Array]], outputs: Sequence[str]
    ) -> tuple[list[list[Array]], float]:
        inputs = [np.asarray(row["x"], dtype=np.float32) for row in rows]
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        found = self.bench.begin(
            "chip",
            np.concatenate(inputs),
            lambda: not future.done(),
            lambda: future.set_result(None),
            lambda: future.set_exception(AcceleratorFault("lost")),
        )
        await future
        return [[self.bench.compute(found, x)] for x in inputs], 0.0

    def close(self) -> None:
        self.is_closed = True


class Bench:
    """A runner, all that was asked of it, and what should have become of that."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.clock = Clock(setup.began)
        self.loop = SteppedLoop(self.clock)
        self.wrong: list[Exception] = []
        self.passed_over: list[Asked] = []
        self.went_ahead: list[Asked] = []  # on the loop, of those who waited at the last rest
        self.loop.set_exception_handler(lambda _, context: self.wrong.append(unheard(context)))
        self.pool = SteppedPool()
        self.chip = Chip(self, setup.depth)
        self.cpu = Cpu(self)
        rungs: list[Rung] = []
        if setup.depth:
            rungs.append(AcceleratorRung("chip", self.chip))
        if setup.instances:
            rungs.append(ProcessorRung("cpu", self.cpu, self.pool, setup.instances))
        for rung in rungs:
            is_chip = isinstance(rung, AcceleratorRung)
            rung.service = FixedTimes(setup.row_s, 0 if is_chip else setup.quick)
        options = ModelOptions(
            max_batch_size=setup.max_batch_size,
            max_delay_ms=setup.delay_s * 1e3,
            instances=setup.instances,
            max_queue=setup.max_queue,
            spill=0,  # test_spill.py
        )
        self.runner = ModelRunner("m", "1", Ladder(rungs), options)
        self.asked: list[Asked] = []
        self.ended: list[Asked] = []
        self.batches: list[Batch] = []
        self.closing: asyncio.Task[None] | None = None
        self.gives_up_at = inf
        self.is_settled = True  # nothing is left to do at this time
        self.is_sound = True  # no check has failed
        self.is_clean = True  # nobody waited who had left, before the loop went on
        self.went: list[Batch] = []  # what was going at the last rest
        self.just_returned = False  # the chip has, and the runner had no reason yet to look

    # What is

    @property
    def pending(self) -> list[Asked]:
        return [asked for asked in self.asked if not asked.task.done()]

    @property
    def waiting(self) -> list[Asked]:
        return [asked for asked in self.pending if asked.taken is None]

    @property
    def going(self) -> list[Batch]:
        """Batches that are being computed; but for what a close has left behind."""
        if self.closing is not None and self.closing.done():
            return []
        return [batch for batch in self.batches if batch.is_going]

    def held(self, place: str | None = None) -> list[Computation]:
        return [
            computation
            for batch in self.batches
            for computation in batch.computations
            if computation.is_held() and place in (None, computation.place)
        ]

    @property
    def workers(self) -> int:
        """Runs that may go on at once; 0: nothing can compute."""
        if self.setup.depth and not self.chip.why:
            return self.setup.depth
        return self.setup.instances

    def is_hopeless(self, asked: Asked, now: float) -> bool:
        """Tell whether not even an undisturbed run would be in time."""
        return asked.deadline <= now + least_s(asked.rows, self.setup.row_s)

    def most_rows(self, head: Asked, now: float) -> int:
        """Return how large a batch may be that does not make its first late."""
        rows, row_s = self.setup.max_batch_size, self.setup.row_s
        if now + head.rows * row_s <= head.deadline:
            while rows > head.rows and now + rows * row_s > head.deadline:
                rows //= 2
        return max(rows, head.rows)

    def is_ready(self, width: int, waiting: Sequence[Asked]) -> bool:
        """Tell whether a bucket need not wait for more."""
        mine = [asked for asked in waiting if asked.width == width]
        due = min(
            a.queued_at + min(self.setup.delay_s, (a.deadline - a.queued_at) / 2) for a in mine
        )
        return due <= self.clock() or sum(a.rows for a in mine) >= self.setup.max_batch_size

    # What may be done to it

    def submit(
        self,
        rows: int = 1,
        *,
        width: int = 1,
        priority: int = 0,
        seconds: float = inf,
        is_bad: bool = False,
    ) -> Asked:
        self.settle()
        now = self.clock()
        refusal = self.refusal(rows, priority, now + seconds - now)
        asked = Asked(len(self.asked), width, rows, priority, now, now + seconds, is_bad, refusal)
        request = InferRequest("m", None, (Tensor("x", "FP32", asked.x),))
        answer = self.runner.answer(request, deadline=asked.deadline, priority=priority)
        asked.task = self.loop.create_task(answer)
        asked.task.add_done_callback(lambda _: self.end(asked))
        self.asked.append(asked)
        self.just_returned &= refusal is not None
        self.settle()
        return asked

    def refusal(self, rows: int, priority: int, slack_s: float) -> type[Exception] | None:
        if self.closing is not None or not self.workers:
            return Unavailable
        if slack_s <= 0:
            return DeadlineExceeded
        waiting, going = self.waiting, self.going
        queued = sum(asked.rows for asked in waiting)
        running = sum(asked.rows for batch in going for asked in batch.members)
        row_s = self.setup.row_s
        now = self.clock()
        mine = rank_at(now, priority, now, now + slack_s, len(self.asked))
        before = sum(asked.rows for asked in waiting if asked.rank(now) < mine)
        state = QueueState(
            len(waiting),
            self.setup.max_queue,
            (queued + running) * row_s,
            self.workers,
            (before + running) * row_s,
        )
        batch_s = max(min(self.setup.max_batch_size, queued + rows), rows) * row_s
        found = admit(state, batch_s if waiting or going else 0.0, slack_s, 1.0)
        return Overloaded if isinstance(found, Refused) else None

    def cancel(self, asked: Asked, *, settles: bool = True) -> None:
        asked.is_cancelled = True
        asked.task.cancel()
        self.settle(settles)

    def finish(self, computation: Computation, *, settles: bool = True) -> None:
        computation.finish()
        self.settle(settles)

    def fault(self, lost: Sequence[Computation], *, why: str = "", settles: bool = True) -> None:
        self.chip.why = why
        for computation in lost:
            assert computation.fault is not None
            computation.fault()
            computation.is_lost = True
        self.settle(settles)

    def come_back(self) -> None:
        self.chip.why = ""
        self.just_returned = True

    def pass_time(self, seconds: float) -> None:
        """Let time pass for a loop that is never late: each timer fires when it is due."""
        self.settle()
        end = self.clock() + seconds
        while (when := self.loop.first_timer()) <= end:
            self.clock.now = max(self.clock(), when)
            self.settle()
        self.clock.now = end
        self.settle()

    def be_late(self, seconds: float) -> None:
        """Let time pass while something keeps the loop from its timers."""
        self.clock.now += seconds
        self.settle()

    def close(self, drain_s: float, abort_s: float) -> None:
        self.settle()
        self.gives_up_at = self.clock() + drain_s
        self.closing = self.loop.create_task(self.runner.close(drain_s, abort_s))
        self.settle()

    def shut(self) -> None:
        """Close what is left, let go of every thread, and check the sums."""
        try:
            if self.is_sound:
                self.finish_all()
        finally:
            for computation in self.held("cpu"):
                computation.finish()
            for thread in self.pool.threads:
                thread.join()
            for task in asyncio.all_tasks(self.loop):  # there are none but after a failure
                task.cancel()
            self.loop.settle()
            self.loop.close()
            self.asked.clear()  # or the garbage of many benches makes looking for tasks slow
            self.batches.clear()

    def finish_all(self) -> None:
        if self.closing is None:
            self.close(1.0, 1.0)
        self.pass_time(40.0)
        assert self.closing is not None
        assert self.closing.exception() is None
        self.check_rest()
        self.check_counts()

    def settle(self, settles: bool = True) -> None:
        self.is_settled = settles
        if not settles:
            return
        for batch in self.batches:
            for computation in batch.computations:
                if computation.heard_at is None and not computation.is_held():
                    computation.heard_at = self.clock()
        now = self.clock()
        self.is_clean = all(a.deadline > now and not a.is_cancelled for a in self.waiting)
        self.is_sound = False
        self.loop.settle()
        if self.wrong:
            raise self.wrong[0]
        self.just_returned &= all(batch.is_going for batch in self.went)
        self.went = self.going
        assert all(asked.taken or asked.task.done() for asked in self.passed_over)
        self.passed_over.clear()
        self.went_ahead.clear()
        self.is_sound = True

    # What has to hold

    def begin(
        self,
        place: str,
        x: Floats,
        is_held: Callable[[], bool],
        finish: Callable[[], None],
        fault: Callable[[], None] | None = None,
        *,
        is_inline: bool = False,
    ) -> Computation:
        """Note that a run has begun, and look at whether it should have."""
        numbers = dict.fromkeys((x[:, 0] // 64).astype(int).tolist())
        members = [self.asked[number] for number in numbers]
        batch = members[0].taken or Batch()
        found = Computation(place, batch, members, self.clock(), is_held, finish, fault)
        if is_inline:
            found.heard_at = self.clock()
        try:
            self.check_run(found, x)
            if not batch.computations:
                self.check_new(found, is_inline=is_inline)
        except AssertionError as error:  # the runner would take it for the model's
            self.wrong.append(error)
        if not batch.computations:
            self.batches.append(batch)
        batch.computations.append(found)
        for asked in members:
            asked.taken, asked.last = batch, found
        return found

    def compute(self, computation: Computation, x: Floats) -> Floats:
        if any(asked.is_bad for asked in computation.members):
            raise InvalidInput("bad")
        return doubled(x)

    def check_run(self, found: Computation, x: Floats) -> None:
        """Any run: one bucket, whole requests, not too many, of one batch, none too late."""
        members = found.members
        assert len({asked.width for asked in members}) == 1
        assert np.array_equal(x, np.concatenate([asked.x for asked in members]))
        assert len(x) <= self.setup.max_batch_size or len(members) == 1
        for asked in members:
            assert asked.deadline > found.began_at, "computed too late"
            assert asked.taken in (None, found.batch)
            assert asked.taken is not None or not found.batch.computations
        for lost in found.batch.computations:
            if lost.is_lost and lost.place == found.place:
                assert not set(lost.members) & set(members), "on a rung that has lost it"
        assert not self.cpu.is_closed
        assert not self.chip.is_closed

    def check_new(self, found: Computation, *, is_inline: bool) -> None:
        """A batch from the queue: nobody was passed over, and no more would fit."""
        now, members, setup = found.began_at, found.members, self.setup
        width = members[0].width
        waiting = [
            asked for asked in self.waiting if asked.deadline > now and not asked.is_cancelled
        ]
        hopeless = [asked for asked in waiting if self.is_hopeless(asked, now)]
        is_lone = is_inline or not self.going  # nobody is held up
        assert is_lone or not set(hopeless) & set(members), "computed in vain"
        left = [asked for asked in waiting if asked not in members and asked not in hopeless]
        ranks = [asked.rank(now) for asked in members]
        assert ranks == sorted(ranks)
        for other in left:
            if other.width == width:
                rivals = members
            elif self.is_ready(other.width, waiting) and not (is_inline and setup.delay_s):
                rivals = members[:1]  # the others only fill up what runs anyway
            else:
                continue
            if all(asked.rank(now) < other.rank(now) for asked in rivals):
                assert all(asked.queued_at - other.queued_at < STARVED_S for asked in rivals)
            else:
                assert is_inline, "passed over"
                self.passed_over.append(other)  # unless it is on its way to a thread
        if not is_inline:
            assert len(self.going) < self.workers, "too many at once"
        if is_inline:
            self.went_ahead += members
        if self.is_clean:  # a batch on its way to a thread was taken before those beside it ran
            with_others = waiting if is_inline else [*waiting, *self.went_ahead]
            assert self.is_ready(width, with_others), "it should have waited for more"
            mine = [asked for asked in left if asked.width == width]
            if mine and not setup.quick:
                following = min(mine, key=lambda asked: asked.rank(now))
                told = [asked for asked in hopeless if asked.width == width]
                rows = sum(asked.rows for asked in (*members, following, *told))
                assert rows > self.most_rows(members[0], now), "one more would have fitted"

    def end(self, asked: Asked) -> None:
        """A request has ended: as it may, when it may, and for the first time."""
        assert asked.ended_at is None
        asked.ended_at = self.clock()
        self.ended.append(asked)
        try:
            self.check_end(asked)
        except AssertionError as error:
            self.wrong.append(error)

    def check_end(self, asked: Asked) -> None:
        if asked.task.cancelled():
            assert asked.is_cancelled
            return
        found = asked.task.exception()
        assert asked.refusal in (None, type(found))
        match found:
            case None:
                self.check_answer(asked, asked.task.result())
            case DeadlineExceeded():
                assert self.is_hopeless(asked, self.clock())
            case InvalidInput():
                assert asked.is_bad
                assert asked.last is not None
            case Overloaded():
                assert asked.refusal is not None
            case Unavailable():
                has_nothing = not self.setup.instances and (self.chip.why or asked.last)
                is_given_up = self.clock() >= self.gives_up_at
                assert asked.refusal or has_nothing or is_given_up
            case _:
                raise AssertionError(found)

    def check_answer(self, asked: Asked, answer: Answered) -> None:
        (y,) = answer.outputs
        assert np.array_equal(y.data, doubled(asked.x))
        assert not asked.is_bad
        assert asked.last is not None
        assert answer.rung == asked.last.place
        # After the deadline only from a run that began before, and as soon as it is heard of.
        assert asked.last.began_at < asked.deadline
        assert asked.last.heard_at == self.clock()

    def check_rest(self) -> None:
        """Nothing is left to do: sums are right, nobody is late, and no worker idles."""
        self.is_sound = False
        setup, waiting, going = self.setup, self.waiting, self.going
        rows = sum(asked.rows for asked in waiting)
        running = sum(asked.rows for batch in going for asked in batch.members)
        assert self.runner.queued == len(waiting) <= setup.max_queue
        assert self.runner.running == len(going)
        assert self.runner.work_ahead_s == pytest.approx((rows + running / 2) * setup.row_s)
        for asked in self.pending:
            assert asked.refusal is None
            assert asked.deadline > self.clock(), "not told that it is late"
        is_closed = self.closing is not None and self.closing.done()
        tasks = len(self.pending) + len(going) + (self.closing is not None and not is_closed)
        assert len(asyncio.all_tasks(self.loop)) == tasks
        if not setup.is_deaf:
            for held in self.held("cpu"):
                assert any(not asked.task.done() for asked in held.members), "not aborted"
        if is_closed:
            assert not self.pending
            assert not going
            assert (self.cpu.is_closed, self.chip.is_closed) == (
                setup.instances > 0,
                setup.depth > 0,
            )
        elif waiting and not self.just_returned:
            self.check_busy(waiting, going)
        else:
            assert self.closing is None or waiting or going, "nothing left, and not closed"
        self.is_sound = True

    def check_busy(self, waiting: Sequence[Asked], going: Sequence[Batch]) -> None:
        """Somebody waits: for a worker, or for more."""
        if len(going) < self.workers:
            assert not any(self.is_ready(asked.width, waiting) for asked in waiting), "idle"
        elif self.setup.quick and not self.setup.delay_s:
            first = min(waiting, key=lambda asked: asked.rank(self.clock()))
            assert first.rows > self.setup.quick, "a quick one waits"

    def check_counts(self) -> None:
        """Each request is counted once, as what its caller heard."""
        stats = self.runner.stats
        heard = [
            None if asked.task.cancelled() else type(asked.task.exception()) for asked in self.ended
        ]
        assert len(heard) == len(self.asked)
        unheard = sum(kind is None for kind in heard)
        answered = sum(kind is type(None) for kind in heard)
        late = sum(kind is DeadlineExceeded for kind in heard)
        untaken = sum(asked.refusal is Unavailable for asked in self.asked)
        assert stats.rejected == sum(kind is Overloaded for kind in heard)
        # A caller may give up in the moment that its answer or error is there.
        assert answered <= stats.success.count <= answered + unheard
        assert late <= stats.expired <= late + unheard
        counted = stats.success.count + stats.fail.count + stats.cancel.count + stats.rejected
        assert counted + untaken == len(self.asked)


def unheard(context: dict[str, Any]) -> Exception:
    """Return what the loop has to say of an exception that nobody else hears of."""
    error = context.get("exception")
    return error if isinstance(error, Exception) else AssertionError(context)


# Every sequence


LADDERS = [  # depth, instances, quick
    (0, 1, 0),
    (0, 2, 0),
    (0, 1, 2),
    (0, 1, 2),
    (1, 1, 0),
    (2, 1, 0),
    (1, 0, 0),
]


REQUESTS = st.fixed_dictionaries(
    {
        "rows": st.sampled_from([1, 1, 2, 3, 5]),
        "width": st.sampled_from([1, 1, 1, 2]),
        "priority": st.sampled_from([0, 0, 1, 3, MAX_PRIORITY]),
        "seconds": st.sampled_from([inf, inf, inf, inf, 4.0, 0.5, 0.125, 0.0]),
        "is_bad": st.sampled_from([False, False, False, False, True]),
    }
)


class BatcherMachine(RuleBasedStateMachine):
    bench: Bench

    @initialize(
        ladder=st.sampled_from(LADDERS),
        max_batch_size=st.sampled_from([4, 2, 1]),
        max_queue=st.sampled_from([8, 8, 2]),
        delay_s=st.sampled_from([0.0, 0.0, 0.3125]),
        row_s=st.sampled_from([0.0, 0.03]),
        is_deaf=st.booleans(),
        began=st.sampled_from([0.0, -10.125, 86_400.1875]),
    )
    def build(
        self,
        ladder: tuple[int, int, int],
        max_batch_size: int,
        max_queue: int,
        delay_s: float,
        row_s: float,
        is_deaf: bool,
        began: float,
    ) -> None:
        setup = Setup(*ladder, max_batch_size, max_queue, delay_s, row_s, is_deaf, began)
        self.bench = Bench(setup)

    @rule(some=st.lists(REQUESTS, min_size=1, max_size=6))
    def submit(self, some: list[dict[str, Any]]) -> None:
        for request in some if self.bench.closing is None else some[:1]:
            self.bench.submit(**request)

    @precondition(lambda self: self.bench.held())
    @rule(data=st.data(), settles=st.booleans())
    def let_one_finish(self, data: st.DataObject, settles: bool) -> None:
        self.bench.finish(data.draw(st.sampled_from(self.bench.held())), settles=settles)

    @precondition(lambda self: self.bench.held())
    @rule(count=st.integers(2, 6))
    def let_several_finish(self, count: int) -> None:
        for _ in range(count):
            for held in self.bench.held()[:1]:
                self.bench.finish(held)
            self.bench.check_rest()

    @precondition(lambda self: self.bench.held("chip"))
    @rule(data=st.data(), settles=st.booleans())
    def lose_one(self, data: st.DataObject, settles: bool) -> None:
        lost = data.draw(st.sampled_from(self.bench.held("chip")))
        self.bench.fault([lost], settles=settles)

    @precondition(lambda self: self.bench.held("chip"))
    @rule(settles=st.booleans())
    def lose_the_chip(self, settles: bool) -> None:
        self.bench.fault(self.bench.held("chip"), why="it is gone", settles=settles)

    @precondition(lambda self: self.bench.chip.why)
    @rule()
    def get_the_chip_back(self) -> None:
        self.bench.come_back()

    @precondition(lambda self: self.bench.pending)
    @rule(data=st.data(), settles=st.booleans())
    def cancel(self, data: st.DataObject, settles: bool) -> None:
        self.bench.cancel(data.draw(st.sampled_from(self.bench.pending)), settles=settles)

    @rule(seconds=st.sampled_from([0.0625, 0.125, GRACE_S, 1.0, 10.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.bench.pass_time(seconds)

    @rule(seconds=st.sampled_from([0.0625, 0.125, GRACE_S, 1.0]))
    def keep_the_loop_busy(self, seconds: float) -> None:
        self.bench.be_late(seconds)

    @precondition(lambda self: len(self.bench.asked) > 20 and self.bench.closing is None)
    @rule(drain_s=st.sampled_from([0.0, 0.4, 30.0]), abort_s=st.sampled_from([0.0, 0.4]))
    def close(self, drain_s: float, abort_s: float) -> None:
        self.bench.close(drain_s, abort_s)

    @invariant()
    def all_is_well_at_rest(self) -> None:
        if self.bench.is_settled:
            self.bench.check_rest()

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            self.bench.shut()


BatcherMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
# To make a failure small takes hypothesis up to five minutes.
TestBatcherMachine = pytest.mark.timeout(400)(BatcherMachine.TestCase)


# Some of those sequences by name


@contextmanager
def at_bench(**setup: Any) -> Iterator[Bench]:
    bench = Bench(Setup(**setup))
    try:
        yield bench
    except BaseException:
        bench.is_sound = False
        raise
    finally:
        bench.shut()


def test_a_late_loop_drops_the_late_behind_a_head_that_has_time() -> None:
    with at_bench() as bench:
        bench.submit()
        in_time, late = bench.submit(), bench.submit(priority=1, seconds=0.125)
        bench.finish(bench.held()[0], settles=False)
        bench.be_late(0.125)
        assert isinstance(late.task.exception(), DeadlineExceeded)
        (held,) = bench.held()
        assert held.members == [in_time]
        assert bench.runner.stats.expired == 1


def test_a_head_that_is_late_lends_its_place_to_nobody() -> None:
    with at_bench() as bench:
        bench.submit()
        bench.submit(seconds=0.125)
        behind = bench.submit(priority=3)
        other = bench.submit(priority=1, width=2)
        bench.finish(bench.held()[0], settles=False)
        bench.be_late(0.125)
        (held,) = bench.held()
        assert held.members == [other]
        assert behind in bench.waiting


def test_what_is_late_when_an_accelerator_has_lost_it_is_not_computed_again() -> None:
    with at_bench(depth=1) as bench:
        bench.submit()
        in_time, late = bench.submit(), bench.submit(seconds=0.125)
        bench.finish(bench.held()[0])
        assert len(bench.held("chip")[0].members) == 2
        bench.fault(bench.held("chip"), settles=False)
        bench.be_late(0.125)
        assert isinstance(late.task.exception(), DeadlineExceeded)
        (held,) = bench.held("cpu")
        assert held.members == [in_time]


def test_what_is_late_when_its_batch_has_failed_is_not_computed_alone() -> None:
    with at_bench() as bench:
        bench.submit()
        late, bad, in_time = bench.submit(seconds=0.125), bench.submit(is_bad=True), bench.submit()
        bench.finish(bench.held()[0])
        bench.finish(bench.held()[0], settles=False)
        bench.be_late(0.125)
        assert isinstance(late.task.exception(), DeadlineExceeded)
        bench.finish(bench.held()[0])
        bench.finish(bench.held()[0])
        assert isinstance(bad.task.exception(), InvalidInput)
        assert in_time.task.result().rung == "cpu"


def test_a_patient_head_does_not_use_up_the_time_of_those_behind_it() -> None:
    with at_bench(delay_s=1.0) as bench:
        bench.submit()
        hasty = bench.submit(priority=1, seconds=0.25)
        bench.pass_time(0.125)
        (held,) = bench.held()
        assert hasty in held.members
        bench.finish(held)
        assert hasty.task.result().rung == "cpu"


def test_the_bucket_that_is_due_first_is_not_late() -> None:
    with at_bench(delay_s=1.0) as bench:
        bench.submit()
        hasty = bench.submit(width=2, seconds=0.25)
        bench.pass_time(0.125)
        (held,) = bench.held()
        assert held.members == [hasty]


def test_a_quick_batch_that_is_due_runs_while_one_before_it_is_on_its_way_to_a_thread() -> None:
    with at_bench(quick=2, delay_s=0.3125) as bench:
        bench.submit(rows=4)
        quick, slow = bench.submit(rows=2, priority=3, seconds=0.5), bench.submit(rows=3)
        bench.be_late(0.25)
        bench.finish(bench.held()[0])
        assert quick.task.result().rung == "cpu"
        assert bench.held()[0].members == [slow]


def test_a_quick_request_does_not_wait_behind_a_slow_one_that_has_left() -> None:
    with at_bench(quick=2) as bench:
        bench.submit(rows=3)
        slow, quick = bench.submit(rows=3), bench.submit(rows=1)
        assert quick in bench.waiting
        bench.cancel(slow)
        assert quick.task.result().rung == "cpu"
