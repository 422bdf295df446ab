"""The runs under way on the host, and when one of them hangs.

A run's limit grows with what was sent before it. Before it is said to hang, what the host has said
is read, and the time in which this process itself was held up does not count: a runtime that was
stopped for a while must not blame the device.

A run that is over its limit does not always hang. It may wait for a host that takes in a model,
for the first run of a model that was put on the device, which sets it up, or for a device that has
become slow and still ends one run after the other (PATIENCE limits at most). Then it is given up,
to be computed elsewhere, and the device stays.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Final

from edge_runtime.accelerator import wire
from edge_runtime.accelerator.model import AcceleratorModel, Slot
from edge_runtime.accelerator.runtimes import FIRST_LIMIT_S
from edge_runtime.backends.base import AcceleratorFault, TooSlow

LATE_S: Final = 0.05  # of this process; the device is given GRACE of the limit then
GRACE: Final = 0.25
MAX_EXCUSES: Final = (
    10  # for one run: a process that is always late still finds a device that hangs
)
PATIENCE: Final = 4.0  # limits that a run may wait for while others end
_FIRST_LOOK: Final = 0.8  # of the limit


@dataclass(slots=True)
class Counts:
    """Since the process began, for metrics. faults: of the device, by kind; lost: runs."""

    starts: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    runs: int = 0
    lost: int = 0


@dataclass(slots=True, eq=False)
class Run:
    """A run under way; its future is done early when nobody waits for it any more.

    alone_s, limit_s: after which it hangs, without and with what was sent before it; patient_until:
    not before that, because it may set the device up.
    """

    model: AcceleratorModel
    slot: Slot
    rows: int
    future: asyncio.Future[float]
    sent_at: float
    alone_s: float
    limit_s: float
    due_at: float
    typical_s: float
    patient_until: float
    excuses: int = 0
    timer: asyncio.TimerHandle | None = None

    @property
    def has_succeeded(self) -> bool:
        future = self.future
        return future.done() and not future.cancelled() and future.exception() is None


class Runs:
    """Sends runs to the host and hands their ends to whoever waits.

    send: gives a message to the host, or raises AcceleratorFault and has ended it; read: takes in
    what the host has said; hangs: told, in a sentence, when a run does; held_until: when the host
    last finished taking in a model, on the loop's clock, inf while it takes one in.
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        read: Callable[[], None],
        hangs: Callable[[str], None],
        held_until: Callable[[], float],
        counts: Counts,
    ) -> None:
        self._send = send
        self._read = read
        self._hangs = hangs
        self._held_until = held_until
        self.counts = counts
        self._numbers = itertools.count(1)
        self._under_way: dict[int, Run] = {}
        self._ended_at = -inf
        self._set_up_at = -inf

    async def run(self, model: AcceleratorModel, slot: Slot, rows: int) -> float:
        """Run a filled slot; return the seconds that the device took for it.

        Raises AcceleratorFault when the run is lost or refused.
        """
        loop = asyncio.get_running_loop()
        job = next(self._numbers)
        self._send(wire.RUN + wire.RUN_BODY.pack(job, model.number, slot.number, rows))
        now = loop.time()
        alone_s = model.times.limit_s(rows)
        typical_s = model.times.typical_s(rows) or alone_s
        limit_s = alone_s + sum(each.typical_s for each in self._under_way.values())
        is_first = not (
            model.has_run or any(each.model is model for each in self._under_way.values())
        )
        run = Run(
            model,
            slot,
            rows,
            loop.create_future(),
            now,
            alone_s,
            limit_s,
            now + limit_s,
            typical_s,
            now + FIRST_LIMIT_S if is_first else -inf,
        )
        self._under_way[job] = run
        self._look_later(job, run, now + _FIRST_LOOK * limit_s)
        try:
            return await run.future
        except asyncio.CancelledError:
            if run.has_succeeded:  # in the same moment, and nobody will read the outputs
                slot.release()
            raise

    def model_of(self, job: int) -> AcceleratorModel | None:
        """Return whose run it is; None when it is not under way."""
        run = self._under_way.get(job)
        return None if run is None else run.model

    def succeeded(self, job: int, taken_ns: int) -> None:
        """A run has ended well. taken_ns: by the host, where this process cannot be held up."""
        run = self._end(job)
        if run is None:
            return
        self.counts.runs += 1
        run.model.has_run = True
        device_s = min(taken_ns / 1e9, asyncio.get_running_loop().time() - run.sent_at)
        if self._held_until() <= run.sent_at:
            run.model.times.saw(run.rows, device_s)
        if run.future.done():
            run.slot.release()
        else:
            run.future.set_result(device_s)

    def refused(self, job: int, why: str) -> None:
        """A run has ended without a result, for a reason of its own."""
        run = self._end(job)
        if run is None:
            return
        run.slot.release()
        if not run.future.done():
            run.future.set_exception(AcceleratorFault(why))

    def lose(self, why: str) -> None:
        """The host is gone with all that is under way, and with its memory."""
        for job in list(self._under_way):
            run = self._end(job)
            if run is not None:
                self._give_up(run, AcceleratorFault(why))

    def _end(self, job: int) -> Run | None:
        run = self._under_way.pop(job, None)
        if run is not None:
            self._ended_at = run.future.get_loop().time()
            if run.patient_until > -inf:
                self._set_up_at = self._ended_at
            if run.timer is not None:
                run.timer.cancel()
        return run

    def _give_up(self, run: Run, fault: AcceleratorFault) -> None:
        if not run.future.done():
            self.counts.lost += 1
            run.future.set_exception(fault)

    def _look_later(self, job: int, run: Run, when: float) -> None:
        run.timer = asyncio.get_running_loop().call_at(when, self._look, job, when)

    def _look(self, job: int, expected_at: float) -> None:
        """See whether a run has ended; if not, whether it hangs."""
        self._read()
        run = self._under_way.get(job)
        if run is None:
            return
        now = asyncio.get_running_loop().time()
        if now - expected_at > LATE_S and run.excuses < MAX_EXCUSES:
            run.excuses += 1
            run.due_at = max(run.due_at, now + GRACE * run.limit_s)
        if now >= run.due_at:
            patient_until = max(each.patient_until for each in self._under_way.values())
            latest = max(run.sent_at, self._set_up_at) + PATIENCE * run.limit_s
            held_until = min(now, self._held_until())
            if now < held_until + run.limit_s:
                held = "a model that is being put on the device keeps it"
                self._give_up(run, AcceleratorFault(held))
                run.due_at = held_until + run.limit_s
            elif now < (hangs_at := max(patient_until, min(self._ended_at + run.alone_s, latest))):
                self._give_up(run, TooSlow("the device is slow"))
                run.due_at = hangs_at
        if now < run.due_at:
            self._look_later(job, run, run.due_at)
            return
        self._hangs(f"a run of {run.model.label} hangs since {now - run.sent_at:.2f} s")
