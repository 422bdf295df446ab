"""The places that can serve, and what the gateway knows of each.

A background task probes every target; each reply to a request carries its load too, so under
traffic the table is as fresh as the traffic, and probes become rare.

A target that has answered nothing for `SILENCE_S` is silent: requests that can go elsewhere do
so at once, those already sent too, while requests with nowhere else to go stay with it, because
a machine that is short of processor time looks the same from here as a dead one. A request with
less time than that leaves when its own patience ends (`policies.routing.patience`). A target is
down when the way to it fails, or after `GONE_S` of silence; then everybody who waits on it is
told. A target of one replica is down as soon as calls to it fail; with more of them, a failed
call says that one is gone, and the next probe how many are left. One that may have no replica
sleeps while it has none (`sleep`), and is up in its way: who has time waits. The calls of a
model that are under way are bounded: a target that is slow keeps what it has. The request path
only reads plain values on its own event loop: no locks, no I/O.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from edge_runtime.engine import Answered, LoadReport
from edge_runtime.errors import DeadlineExceeded, Overloaded, PrimeSparkError, Unavailable
from edge_runtime.protocol.types import InferRequest, ModelStatistics
from policies.cost import NO_BOOK, Rates
from policies.routing import Outcome, Request, RoutingTable, Target
from policies.routing.ejection import EjectionRules
from policies.routing.waking import to_wake
from serve_apps.gateway.ejections import LOST, Ejections
from serve_apps.gateway.geography import Geography
from serve_apps.gateway.knowledge import Key, Knowledge, place
from serve_apps.gateway.local import JUST_LATE, LocalTarget
from serve_apps.gateway.sleep import WAITING, Sleep
from serve_apps.wire import (
    Call,
    Failure,
    ReplicaReport,
    Reply,
    decode_reply,
    encode_call,
    reported_load,
)

logger = logging.getLogger(__name__)

PROBE_EVERY_S: Final = 0.4
FRESH_S: Final = PROBE_EVERY_S / 2  # an answer this young does as well as a probe
REFRESH_S: Final = 1.0  # between probes of a target that traffic tells of
SILENCE_S: Final = 1.2
GONE_S: Final = 10.0
STRIKES: Final = 2  # calls failed in a row that mark a lone replica down before a probe does
CALLS: Final = 80  # of one model under way to one replica; more would only wait in between
_RTT_SMOOTHING: Final = 0.1


class TargetLost(Unavailable):
    """The target went away before it answered; the request may be repeated elsewhere."""

    code = LOST


class TargetSilent(TargetLost):
    """The target has answered nobody since the request was sent, which may still go elsewhere."""

    code = "target_silent"


class Backing(Protocol):
    """How a target is reached.

    Both raise anything on failure of the way there, `probe` `TimeoutError` where it is slow, not
    gone; `call` raises errors of `edge_runtime.errors` where it is a refusal. Both may be
    cancelled.
    """

    async def call(self, call: Call) -> Reply: ...

    async def wake(self) -> None:
        """Start a replica where there is none, and return when one answers."""
        ...

    async def probe(self) -> Sequence[ReplicaReport]:
        """Return what every replica that answers says; nothing when there is none."""
        ...


class _Wait:
    """A caller that waits for an answer, until the deadline or until it is let go before."""

    __slots__ = ("has_given_up", "is_let_go", "limit", "may_move")

    def __init__(self, limit: asyncio.Timeout, may_move: bool) -> None:
        self.limit = limit
        self.may_move = may_move
        self.is_let_go = False
        self.has_given_up = False

    def let_go(self) -> None:
        if not self.limit.expired():
            self.is_let_go = True
            self.limit.reschedule(0.0)  # the past: it expires in the loop's next turn


class RemoteTarget:
    """An inference application (a tier at a site) behind a backing that can fail.

    start_s: seconds that a replica takes to start, where it may have none (`sleep`).
    """

    def __init__(
        self,
        name: str,
        tier: str,
        site: str,
        backing: Backing,
        clock: Callable[[], float],
        rates: Rates = NO_BOOK,
        start_s: float | None = None,
    ) -> None:
        self.name = name
        self.tier = tier
        self.site = site
        self.rates = rates
        self.sleep = None if start_s is None else Sleep(name, start_s, clock)
        self._slept_at = -float("inf")
        self._backing = backing
        self._clock = clock
        self._heard_at = -float("inf")
        self._rtt_s = 0.0
        self._probed_at = -float("inf")
        self._waiting: set[_Wait] = set()
        self._strikes = 0
        self.is_up = False
        self.is_silent = False
        self.problem = "not heard of yet"
        self.reports: Sequence[ReplicaReport] = ()
        self.join(Knowledge())

    def join(self, knowledge: Knowledge) -> None:
        """Write what is learned of this target to what a gateway knows of all."""
        self._knowledge = knowledge
        knowledge.add(place(self.name, self.tier, self.site, self.rates, is_up=self.is_up))

    def view(self, key: Key) -> Target:
        """Return what routing knows of this target for one model version."""
        return self._knowledge.table(key)[self.name]

    async def infer(
        self,
        request: InferRequest,
        version: str,
        wanted: Request,
        *,
        deadline: float,
        priority: int,
        patience_s: float | None,
        trace: str = "",
    ) -> Answered:
        """Send a request; patience_s: see `policies.routing.patience`.

        wanted: what routing made of it; deadline: on the loop's clock. Raises TargetLost when the
        way fails, TargetSilent at the end of its patience, TimeoutError at the deadline, or what
        the replica refused with.
        """
        key = (request.model, version)
        table = self._knowledge.table(key)
        self._refuse_if_full(request.model, table[self.name].outstanding)
        if self.sleep is not None and self.sleep.is_asleep:
            if self.sleep.waiting >= WAITING:
                raise self._full(request.model)
            wanted = await self._awake(self.sleep, wanted, table, deadline)
            table = self._knowledge.table(key)
        began = self._clock()
        sent = table.sent(self.name, wanted, began)
        # What is computed there after this is late here: the way there and back is not theirs.
        slack_s = max(wanted.slack_s - sent.rtt_s, 0.5 * wanted.slack_s)
        call = encode_call(request, version, slack_s, priority, trace)
        try:
            reply = await self._exchange(call, deadline, patience_s)
            report = reported_load(reply)
        except (TimeoutError, TargetSilent):
            table.late(sent, self._clock(), JUST_LATE * wanted.slack_s)
            raise
        except BaseException:
            table.ended(sent)
            raise
        now = self._clock()
        self._heard(now)
        if self._slept_at > began:  # it has waited for a start, in Serve's queue: that is no way
            table.ended(sent)
            return decode_reply(reply)
        way_s = max(0.0, now - began - reply.taken_s)
        self._rtt_s += _RTT_SMOOTHING * (way_s - self._rtt_s)
        load = None if report is None else report.for_routing(reply.alone_s)
        at = now - 0.5 * way_s
        try:
            found = decode_reply(reply)
        except DeadlineExceeded:
            table.late(sent, now, JUST_LATE * wanted.slack_s)
            if load is not None:
                table.heard(self.name, load, at)
            raise
        except Exception:  # a refusal, or an answer that nobody can read
            table.ended(sent)
            if load is not None:
                table.heard(self.name, load, at)
            raise
        table.answered(sent, now, load, at, way_s)
        return found

    async def probe(self) -> None:
        """Ask every replica once, and settle whether the target is up."""
        self._probed_at = began = self._clock()
        try:
            async with asyncio.timeout(SILENCE_S):
                reports = await self._backing.probe()
        except TimeoutError:
            self._owes_an_answer()
            return
        except Exception as error:  # Ray and gRPC raise many types when the way fails
            if self._silent_s() >= SILENCE_S:
                self.lose(f"the probe failed with {type(error).__name__}")
            return
        if not reports:
            if self.sleep is None:
                self.lose("no replica is running")
            else:
                self._sleeps(self.sleep)
            return
        now = self._clock()
        self.reports = reports
        # Replies teach that the way has become longer; that it is short again has to be seen
        # without them, because a target that seems far away gets no calls.
        is_known = self.is_up and self.name not in self._knowledge.sleepers
        self._rtt_s = min(self._rtt_s, now - began) if is_known else now - began
        if not self.is_up:
            logger.info("target %s is up", self.name)
        self.is_up = True
        self.problem = ""
        self._heard(now)
        self._knowledge.change(self.name, is_up=True, rtt_s=self._rtt_s)
        self._wakes(is_up=True)
        self._knowledge.measured(self.name, now - began, now)
        complete = set.intersection(*(set(report.loads) for report in reports))
        loads = {key: _mean([report.loads[key] for report in reports]) for key in complete}
        self._knowledge.heard(self.name, loads, now - 0.5 * self._rtt_s)

    async def start(self) -> None:
        """Start a replica, and see that it is there."""
        await self._backing.wake()
        await self.probe()

    def _sleeps(self, sleep: Sleep) -> None:
        """Say that no replica runs, and how long a start would take now."""
        now = self._clock()
        if sleep.begin():
            self._slept_at = now
            self.is_up = True  # in its way
            self.reports = ()
            self._knowledge.change(self.name, is_up=True)
        self._heard(now)
        self.problem = sleep.problem
        self._knowledge.asleep(self.name, sleep.left_s, now)

    def _wakes(self, *, is_up: bool) -> None:
        if self.sleep is not None and self.sleep.is_asleep:
            self._knowledge.woke(self.name)
            self.sleep.end(is_up=is_up)

    async def _awake(
        self, sleep: Sleep, wanted: Request, table: RoutingTable, deadline: float
    ) -> Request:
        """Wake it, wait until it is, and return the request with the time that it has left."""
        began = self._clock()
        waiting = table.sent(self.name, wanted, began)  # as work ahead of those who come
        sleep.wake()
        try:
            await sleep.over(deadline)
        finally:
            table.ended(waiting)
        if not self.is_up:
            raise self._lost()
        return wanted._replace(slack_s=wanted.slack_s - (self._clock() - began))

    @property
    def is_due(self) -> bool:
        """True when a probe would tell more than the traffic does."""
        now = self._clock()
        is_known = self.is_up and not self._strikes and now - self._heard_at < FRESH_S
        return not is_known or now - self._probed_at >= REFRESH_S

    @property
    def has_spare(self) -> bool:
        """True when losing one replica leaves another to repeat a request on, or starts one."""
        is_asleep = self.sleep is not None and self.sleep.is_asleep
        return self.is_up and (len(self.reports) > 1 or is_asleep)

    def lose(self, why: str) -> None:
        """Mark the target down and tell everybody who waits on it."""
        if self.is_up:
            logger.warning("target %s is down: %s", self.name, why)
        self.is_up = False
        self._knowledge.change(self.name, is_up=False)
        self.problem = why
        self.reports = ()
        self._wakes(is_up=False)
        for waiting in self._waiting:
            waiting.let_go()

    def _heard(self, now: float) -> None:
        self._heard_at = now
        self._strikes = 0
        if self.is_silent:
            logger.info("target %s answers again", self.name)
            self.is_silent = False
            self._knowledge.change(self.name, is_silent=False)
            self.problem = ""

    def _silent_s(self) -> float:
        return self._clock() - self._heard_at

    def _owes_an_answer(self) -> None:
        silent_s = self._silent_s()
        if silent_s >= GONE_S:
            self.lose(f"no answer for {GONE_S:.0f} s")
        elif silent_s >= SILENCE_S and self.is_up:
            if not self.is_silent:
                logger.warning("target %s is silent", self.name)
            self.is_silent = True
            self._knowledge.change(self.name, is_silent=True)
            self.problem = f"no answer for {silent_s:.1f} s"
            for waiting in self._waiting:
                if waiting.may_move:
                    waiting.let_go()

    def _refuse_if_full(self, model: str, outstanding: int) -> None:
        if outstanding >= CALLS * max(1, len(self.reports)):
            raise self._full(model)

    def _full(self, model: str) -> Overloaded:
        is_asleep = self.sleep is not None and self.sleep.is_asleep
        return Overloaded(
            f"model '{model}' has all the calls under way that target '{self.name}' takes",
            retry_after_s=max(1.0, self.sleep.left_s) if self.sleep and is_asleep else 1.0,
            details={"reason": "queue_full"},
        )

    async def _exchange(self, call: Call, deadline: float, patience_s: float | None) -> Reply:
        limit = asyncio.timeout_at(deadline)
        waiting = _Wait(limit, may_move=patience_s is not None)
        patience = None
        if patience_s is not None and patience_s < math.inf:
            loop = asyncio.get_running_loop()
            patience = loop.call_later(patience_s, self._give_up, waiting, self._clock())
        try:
            async with limit:
                self._waiting.add(waiting)
                try:
                    return await self._backing.call(call)
                finally:
                    self._waiting.discard(waiting)
        except PrimeSparkError:
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the caller gave up, not the target
            raise self._lost() from None
        except Exception as error:
            if limit.expired():
                if waiting.has_given_up:
                    raise TargetSilent(self._lost().message, retry_after_s=1.0) from None
                if waiting.is_let_go:
                    raise self._lost() from None
                raise
            # Ray and gRPC raise many types when a replica dies; each means the same here.
            if not self._strikes:  # a dying replica fails all its calls: said once
                logger.warning("target %s failed a call: %s", self.name, type(error).__name__)
            self._strikes += 1
            if self._strikes >= STRIKES and not self.has_spare:
                self.lose(f"calls fail with {type(error).__name__}")
            raise self._lost() from error
        finally:
            if patience is not None:
                patience.cancel()

    def _give_up(self, waiting: _Wait, sent_at: float) -> None:
        """Let go of a caller at the end of its patience, unless anything was heard since."""
        if self._heard_at <= sent_at and not waiting.is_let_go:
            waiting.let_go()
            waiting.has_given_up = waiting.is_let_go

    def _lost(self) -> TargetLost:
        return TargetLost(f"target '{self.name}' went away", retry_after_s=1.0)


AnyTarget = RemoteTarget | LocalTarget


class TargetTable:
    """All targets of a gateway; `run` probes them for ever.

    ejection: when a target that fails is left alone, never when None; clock: that of the targets.
    """

    def __init__(
        self,
        targets: Sequence[AnyTarget],
        geography: Geography | None = None,
        ejection: EjectionRules | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._targets = {target.name: target for target in targets}
        self._local = [target for target in targets if isinstance(target, LocalTarget)]
        self._knowledge = Knowledge(geography)
        for target in targets:
            target.join(self._knowledge)
        self.ejections = Ejections(self._knowledge, self._usable, ejection, clock)

    def _usable(self) -> frozenset[str]:
        return frozenset(t.name for t in self if t.is_up and not t.is_silent)

    def __iter__(self) -> Iterator[AnyTarget]:
        return iter(self._targets.values())

    def __getitem__(self, name: str) -> AnyTarget:
        return self._targets[name]

    def known(self, key: Key) -> RoutingTable:
        """Return what routing knows of all targets for one model version, as of now."""
        for target in self._local:
            target.look(key)
        self.ejections.now()
        return self._knowledge.table(key)

    @property
    def asleep(self) -> frozenset[str]:
        """The names of those that sleep."""
        return self._knowledge.sleepers

    def wake_for(self, request: Request, outcome: Outcome, key: Key) -> None:
        """Wake the one that a request needs, if it needs one."""
        name = to_wake(request, outcome, self.known(key))
        if name is not None and (sleep := self[name].sleep) is not None:
            sleep.wake()

    def views(self, key: Key, tiers: frozenset[str]) -> list[Target]:
        """Return the targets that a model's placement allows, as routing sees them."""
        return [target for target in self.known(key).targets if target.tier in tiers]

    def statistics(self) -> list[ModelStatistics]:
        return [s for t in self for report in t.reports for s in report.statistics]

    async def probe(self) -> None:
        """Probe every target once, side by side."""
        await asyncio.gather(*(target.probe() for target in self._targets.values()))

    async def run(self) -> None:
        """Probe each target in a rhythm of its own, so that a hanging one delays no other."""
        async with asyncio.TaskGroup() as group:
            for target in self._targets.values():
                group.create_task(_probe_for_ever(target))
                if isinstance(target, RemoteTarget) and target.sleep is not None:
                    group.create_task(target.sleep.run(target.start))


async def _probe_for_ever(target: AnyTarget) -> None:
    while True:
        if target.is_due:
            await target.probe()
        await asyncio.sleep(PROBE_EVERY_S)


def _mean(loads: Sequence[LoadReport]) -> LoadReport:
    """Sum what is queued; average what a new request, sent to any replica, may expect."""
    count = len(loads)
    if count == 1:
        return loads[0]
    return LoadReport(
        queued=sum(load.queued for load in loads),
        running=sum(load.running for load in loads),
        wait_s=sum(load.wait_s for load in loads) / count,
        service_s=sum(load.service_s for load in loads) / count,
        row_s=sum(load.row_s for load in loads) / count**2,
        busy=sum(load.busy for load in loads) / count,
        idle_s=min(load.idle_s for load in loads),
        ahead_s=tuple(
            sum(waits) / count for waits in zip(*(load.waits for load in loads), strict=True)
        ),
    )


def failures(targets: TargetTable) -> Mapping[Key, Mapping[str, Failure]]:
    """Return, by model version, which target could not load it and why."""
    found: dict[Key, dict[str, Failure]] = {}
    for target in targets:
        for report in target.reports:
            for key, why in report.failures.items():
                found.setdefault(key, {})[target.name] = why
    return found
