"""A pool of replicas that a scaling rule makes larger and smaller, request by request.

Each replica has some slots that serve one request each; requests wait in one queue, first come,
first served (a perfect router: what is compared is scaling). A new replica serves after its cold
start, give or take a fifth; one that is taken away finishes what it runs, and those still starting
go first. The rule is asked once a second; what replicas do in a second is learned from what they
have answered (`policies.scaling.Capacity`), which here tells how long it took. A request misses
when it waits for longer than `PATIENCE_S`, or is refused.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from load.scaling.monitor import Monitor
from load.simulator.trace import Trace
from policies.scaling import NOTHING, Capacity, Rule, Season
from policies.scaling.history import Floats

PATIENCE_S: Final = 0.5
SLOTS: Final = 4
WORK_PER_S: Final = 12.0  # of a replica
COLD_S: Final = 10.0
MOST: Final = 40
AFTER_S: Final = 600.0  # what still waits at the end is served for so long
WAITS_S: Final = 0.25  # replicas before which requests wait for that long do all they can


@dataclass(frozen=True, eq=False)
class Traffic:
    """Requests: times (ascending, in seconds from 0) and works of the same length.

    slower: by how many times as long replicas take for the same work from the middle on.
    """

    times: Floats
    works: Floats
    slower: float = 1.0

    @property
    def seconds(self) -> int:
        return int(self.times[-1]) + 1

    @property
    def slower_from_s(self) -> float:
        return 0.5 * self.seconds

    def capacity(self) -> Floats:
        """Return the work that a replica can do in each second."""
        is_slower = np.arange(self.seconds) >= self.slower_from_s
        return np.asarray(np.where(is_slower, WORK_PER_S / self.slower, WORK_PER_S), np.float64)

    def came(self) -> Floats:
        """Return the work of each second."""
        second = self.times.astype(np.int64)
        return np.asarray(np.bincount(second, self.works, self.seconds), np.float64)

    @classmethod
    def of(cls, trace: Trace, load: float, seed: int, slower: float = 1.0) -> Traffic:
        """Return the requests of a trace at a mean load (in replicas).

        Where a trace has too few requests for that, each stands for several within a second, so
        that what is bursty stays so. Work is 0.6 + 0.4 x size / mean size, from 0.4 to 3, over its
        mean.
        """
        rng = np.random.default_rng(seed)
        copies = load * WORK_PER_S / trace.rate
        times, sizes = trace.times, trace.sizes
        if copies > 1.5:
            count = rng.poisson(copies, len(times))
            times = np.repeat(times, count) + rng.random(int(count.sum()))
            sizes = np.repeat(sizes, count)
        works = np.clip(0.6 + 0.4 * sizes / max(float(trace.sizes.mean()), 1e-9), 0.4, 3.0)
        order = np.argsort(times, kind="stable")
        return cls(times[order], works[order] / works.mean(), slower)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate. season: of the forecasts, None for no forecasts.

    refuse_s: what has waited for longer is dropped instead of served, None for never; minimum: of
    the rule, beyond which replicas are charged to a budget.
    """

    traffic: Traffic
    rule: Rule
    season: Season | None = None
    cold_s: float = COLD_S
    refuse_s: float | None = None
    minimum: int = 1
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """waits: of each request in seconds, NaN where it was not served; replicas: what was paid for,
    second by second; came: work, second by second; reasons: how often each; trusted: share of the
    time in which a forecast was followed; changes: of the number of replicas.
    """

    waits: Floats
    replicas: Floats
    came: Floats
    reasons: dict[str, int]
    trusted: float
    changes: int

    @property
    def misses(self) -> float:
        """Share of requests that waited too long or were refused."""
        return float((~(self.waits <= PATIENCE_S)).mean())


def simulate(plan: Plan) -> Outcome:
    """Run a plan to its end."""
    traffic = plan.traffic
    rng = np.random.default_rng(plan.seed)
    length = traffic.seconds
    came = traffic.came()
    splits = np.searchsorted(traffic.times, np.arange(1, length + 1))
    # All begin with what the first minute needs, or they would be judged by the first seconds.
    target = max(plan.minimum, int(np.ceil(came[:60].mean() / (0.7 * WORK_PER_S))))
    pool = _Pool(plan, target)
    monitor = Monitor(plan.season, came, Capacity(WORK_PER_S), plan.minimum)
    starting: list[float] = []
    replicas = np.zeros(length)
    reasons: Counter[str] = Counter()
    memory, first, changes, trusted = NOTHING, 0, 0, 0
    for second in range(length):
        ready = sum(at <= second for at in starting)
        pool.add(SLOTS * ready, float(second))
        starting = starting[ready:]
        last = int(splits[second])
        pool.run(first, last, second + 1.0)
        first = last
        replicas[second] = pool.slots / SLOTS + len(starting)
        monitor.pass_second(second, pool.in_progress, float(replicas[second]))
        done, busy = pool.take_done()
        monitor.learn(done, busy, pool.replicas, all_wait=pool.waits_long(second + 1.0))
        seen = monitor.observed(pool.queued, pool.replicas, len(starting), target)
        decision, memory = plan.rule.decide(seen, memory)
        reasons[decision.reason] += 1
        trusted += memory.is_trusting
        changes += decision.target != target
        more = decision.target - target
        if more > 0:
            cold = plan.cold_s * rng.uniform(0.8, 1.2, more)
            starting = sorted([*starting, *(second + 1.0 + cold).tolist()])
        elif more < 0:
            kept = max(0, len(starting) + more)
            pool.remove(SLOTS * (-more - len(starting) + kept))
            starting = starting[:kept]
        target = decision.target
    pool.run(first, first, length + AFTER_S)
    return Outcome(pool.waits, replicas, came, dict(reasons), trusted / length, changes)


class _Pool:
    """Slots, and the queue before them."""

    def __init__(self, plan: Plan, replicas: int) -> None:
        self._traffic = plan.traffic
        self._refuse_s = plan.refuse_s
        self._free = replicas * SLOTS
        self._leaving = 0
        self._ends: list[tuple[float, int]] = []
        self._done = self._busy = 0.0
        self._queue: deque[int] = deque()
        self.slots = replicas * SLOTS
        self.waits = np.full(len(plan.traffic.times), np.nan)
        self.queued = 0.0

    @property
    def in_progress(self) -> int:
        """Requests that wait or run."""
        return len(self._queue) + len(self._ends)

    @property
    def replicas(self) -> int:
        return (self.slots - self._leaving) // SLOTS

    def take_done(self) -> tuple[float, float]:
        """Return the work that was answered since the last time, and the replicas' time for it."""
        found = (self._done, self._busy)
        self._done = self._busy = 0.0
        return found

    def waits_long(self, now: float) -> bool:
        return bool(self._queue) and now - float(self._traffic.times[self._queue[0]]) > WAITS_S

    def add(self, slots: int, now: float) -> None:
        self.slots += slots
        self._free += slots
        while self._free and self._start_next(now):
            self._free -= 1

    def remove(self, slots: int) -> None:
        idle = min(self._free, slots)
        self._free -= idle
        self.slots -= idle
        self._leaving += slots - idle

    def run(self, first: int, last: int, until: float) -> None:
        """Let requests `first` to `last` come, and time pass."""
        times, works, ends = self._traffic.times, self._traffic.works, self._ends
        for index in range(first, last):
            at = float(times[index])
            while ends and ends[0][0] <= at:
                self._ended(*heapq.heappop(ends))
            if self._free:
                self._free -= 1
                self._start(index, at)
            else:
                self._queue.append(index)
                self.queued += float(works[index])
        while ends and ends[0][0] <= until:
            self._ended(*heapq.heappop(ends))

    def _ended(self, at: float, index: int) -> None:
        traffic = self._traffic
        self._done += float(traffic.works[index])
        self._busy += (at - float(traffic.times[index] + self.waits[index])) / SLOTS
        if self._leaving:
            self._leaving -= 1
            self.slots -= 1
        elif not self._start_next(at):
            self._free += 1

    def _start_next(self, at: float) -> bool:
        queue = self._queue
        while queue:
            index = queue.popleft()
            self.queued -= float(self._traffic.works[index])
            if self._refuse_s is None or at - self._traffic.times[index] <= self._refuse_s:
                self._start(index, at)
                return True
        self.queued = 0.0
        return False

    def _start(self, index: int, at: float) -> None:
        traffic = self._traffic
        slower = traffic.slower if at >= traffic.slower_from_s else 1.0
        self.waits[index] = at - traffic.times[index]
        ends_at = at + float(traffic.works[index]) * SLOTS / WORK_PER_S * slower
        heapq.heappush(self._ends, (ends_at, index))
