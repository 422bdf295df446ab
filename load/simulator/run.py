"""One simulation: events in order of time, deterministic by seed.

Each site has a gateway of its own with a routing table of its own, which learns as the product's
does: from reports that are late by the way, from loads that come with replies, and from what it
has sent itself. Rules are those of `policies.routing`, called with what such a gateway knows.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from load.simulator.node import Job, Node
from load.simulator.omniscient import finish_at
from load.simulator.trace import Trace
from load.simulator.world import Discipline, World
from policies.routing import (
    Decision,
    Load,
    Objective,
    Request,
    RoutingTable,
    Rule,
    Target,
)
from policies.routing.sizes import bucket

MOST_ATTEMPTS: Final = 3
CHECK_S: Final = 0.25
_MEAN_WORK: Final = (0.6, 0.4, 0.4, 3.0)  # constant, by size, least, most


@dataclass(frozen=True)
class Plan:
    """How a run is set up. rule None: the omniscient router of shortest delay."""

    world: World
    trace: Trace
    utilisation: float
    rule: Rule | None
    objective: Objective = "balanced"
    discipline: Discipline = "fifo"
    drops: bool = False
    load_in_replies: bool = True
    seed: int = 1


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of every request, in order of arrival; times in seconds, money in dollars.

    delay_s: nan where there was no answer; outcome: `ok`, `refused`, `dropped` or `lost`; late:
    predicted P(late) of the first choice, negative where there was none.
    """

    arrived: np.ndarray[Any, np.dtype[np.float64]]
    delay_s: np.ndarray[Any, np.dtype[np.float64]]
    slack_s: np.ndarray[Any, np.dtype[np.float64]]
    late: np.ndarray[Any, np.dtype[np.float64]]
    cost_usd: np.ndarray[Any, np.dtype[np.float64]]
    outcome: Sequence[str]
    target: Sequence[str]
    duration_s: float
    busy: Mapping[str, float]
    dead_sends: int


class Simulation:
    """A world in motion; `run` once."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        world = plan.world
        self._events: list[tuple[float, int, Callable[..., None], Any]] = []
        self._sequence = 0
        self._rng = np.random.default_rng(plan.seed)
        self._nodes = {spec.name: self._node(spec) for spec in world.nodes}
        self._tables = [self._table(site) for site in world.sites]
        self._rtt = [
            {spec.name: world.rtt_s(site, spec.site) for spec in world.nodes}
            for site in world.sites
        ]
        self._turns = [0] * len(world.sites)
        self.jobs = self._arrivals()
        self._dead_sends = 0

    def _node(self, spec: Any) -> Node:
        throttles = [t for t in self.plan.world.throttles if t.node == spec.name]
        spread = self.plan.world.spread
        rng = np.random.default_rng((self.plan.seed, len(spec.name), hash_of(spec.name)))
        drawn: list[float] = []

        def noise() -> float:
            if not drawn:
                drawn.extend(np.exp(spread * rng.standard_normal(512)).tolist())
            return drawn.pop()

        def slowness(now: float) -> float:
            factor = 1.0
            for throttle in throttles:
                if throttle.begin_s <= now < throttle.end_s:
                    factor *= throttle.factor
            return factor

        return Node(
            spec,
            self.plan.discipline,
            drops=self.plan.drops,
            slowness=slowness,
            noise=noise,
            schedule=self.at,
            finish=self._finished,
            drop=self._dropped,
        )

    def _table(self, site: str) -> RoutingTable:
        world = self.plan.world
        return RoutingTable(
            Target(
                spec.name,
                spec.tier,
                spec.site,
                zone=world.zones.get(spec.site, ""),
                rtt_s=world.rtt_s(site, spec.site),
                service_s=spec.base_s,
                row_s=spec.base_s,
                prior_s=spec.base_s,
                usd_per_s=spec.usd_per_s,
                usd_per_byte=spec.usd_per_byte,
            )
            for spec in world.nodes
        )

    def _arrivals(self) -> list[Job]:
        plan, world = self.plan, self.plan.world
        rate = plan.utilisation * world.capacity / len(world.sites)
        scaled = plan.trace.scaled(rate)
        mean = scaled.sizes.mean() or 1.0
        constant, by_size, least, most = _MEAN_WORK
        begin = float(self._rng.random())
        jobs: list[Job] = []
        shares = np.cumsum([share for share, _ in world.classes])
        for origin in range(len(world.sites)):
            mine = scaled.shifted((begin + origin / len(world.sites)) % 1.0)
            works = np.clip(constant + by_size * mine.sizes / mean, least, most)
            kinds = np.searchsorted(shares, self._rng.random(len(works)) * shares[-1], "right")
            for at, size, work, kind in zip(
                mine.times.tolist(), mine.sizes.tolist(), works.tolist(), kinds, strict=True
            ):
                slack_s = world.classes[min(int(kind), len(shares) - 1)][1]
                jobs.append(Job(origin, at, slack_s, work, bucket(size)))
        jobs.sort(key=lambda job: job.arrived)
        return jobs

    def at(self, when: float, call: Callable[..., None], value: Any = None) -> None:
        """Have something called at a time, with that time and a value."""
        self._sequence += 1
        heapq.heappush(self._events, (when, self._sequence, call, value))

    def run(self) -> Outcomes:
        """Turn the clock until every request has ended."""
        jobs, world = self.jobs, self.plan.world
        end = jobs[-1].arrived
        for origin in range(len(world.sites)):
            for name in self._nodes:
                self.at(float(self._rng.random()) * world.report_s, self._report, (origin, name))
            self.at(float(self._rng.random()) * CHECK_S, self._check, origin)
        self._draws = self._rng.integers(0, 2**63, len(jobs)).tolist()
        self._open = len(jobs)
        self._end_s = end
        events, pop = self._events, heapq.heappop
        upcoming = 0
        count = len(jobs)
        while upcoming < count or self._open:
            if upcoming < count and (not events or jobs[upcoming].arrived <= events[0][0]):
                job = jobs[upcoming]
                self._arrive(job, job.arrived, self._draws[upcoming])
                upcoming += 1
                continue
            when, _, call, value = pop(events)
            call(when, value)
        return self._outcomes()

    def _arrive(
        self, job: Job, now: float, draw: int, excluded: frozenset[str] = frozenset()
    ) -> None:
        world = self.plan.world
        origin = job.origin
        table = self._tables[origin]
        self._turns[origin] += 1
        request = Request(
            slack_s=job.deadline - now,
            bucket=job.bucket,
            moved_bytes=int(world.bytes_per_work * job.work),
            objective=self.plan.objective,
            origin_site=world.sites[origin],
            excluded=excluded,
            draw=draw,
            turn=self._turns[origin],
        )
        if self.plan.rule is None:
            target = self._omniscient(job, now)
            if target is None:
                self._close(job, "refused")
                return
        else:
            outcome = self.plan.rule(request, table, now)
            if not isinstance(outcome, Decision):
                self._close(job, "refused")
                return
            target = outcome.target
            table.decided(outcome, request.objective)
            job.late = outcome.late if len(job.target) == 0 else job.late
        self._send(job, target, request, now, draw)

    def _send(self, job: Job, target: str, request: Request, now: float, draw: int) -> None:
        origin = job.origin
        node = self._nodes[target]
        job.target = target
        job.attempts += 1
        job.due = job.deadline - 0.5 * self._rtt[origin][target]
        job.sent = self._tables[origin].sent(target, request, now)
        spec = node.spec
        job.cost_usd += spec.usd_per_byte * request.moved_bytes
        site = self.plan.world.sites[origin]
        if self._is_cut(site, spec.site, now):
            cut_at = max(c.begin_s for c in self.plan.world.cuts if c.begin_s <= now)
            self._dead_sends += now - cut_at > self.plan.world.dead_s
            self.at(now + self.plan.world.lost_s, self._vanished, (job, draw))
            return
        arrives = now + 0.5 * self._rtt[origin][target]
        if self.plan.rule is None:
            node.coming.append((arrives, job))
        self.at(arrives, self._reach, (node, job))

    def _reach(self, now: float, value: tuple[Node, Job]) -> None:
        node, job = value
        if self.plan.rule is None:
            node.coming.remove((now, job))
        node.enqueue(job, now)

    def _vanished(self, now: float, value: tuple[Job, int]) -> None:
        job, draw = value
        self._tables[job.origin].ended(job.sent)
        if job.attempts >= MOST_ATTEMPTS:
            self._close(job, "lost")
        else:
            self._arrive(job, now, draw, frozenset((job.target,)))

    def _finished(self, node: Node, batch: Sequence[Job], now: float) -> None:
        if not batch:
            return
        spec = node.spec
        total = sum(job.work for job in batch)
        nominal_s = node.batch_s([job.work for job in batch])
        taken_s = nominal_s * node.last_slowness
        for job in batch:
            job.cost_usd += spec.usd_per_s * taken_s * job.work / total
            alone_s = node.batch_s((job.work,)) * node.last_slowness
            load = node.load(now, alone_s)
            back = now + 0.5 * self._rtt[job.origin][spec.name]
            if self._is_cut(self.plan.world.sites[job.origin], spec.site, now):
                # What was computed is lost on the way back; the sender notices, and tries again.
                self.at(now + self.plan.world.lost_s, self._vanished, (job, 0))
                continue
            self.at(back, self._reply, (job, load, now))

    def _reply(self, now: float, value: tuple[Job, Load, float]) -> None:
        job, load, at = value
        table = self._tables[job.origin]
        table.answered(job.sent, now, load if self.plan.load_in_replies else None, at)
        job.sent = now
        self._close(job, "ok")

    def _dropped(self, node: Node, job: Job, now: float) -> None:
        back = now + 0.5 * self._rtt[job.origin][node.spec.name]
        self.at(back, self._gave_up, job)

    def _gave_up(self, now: float, job: Job) -> None:
        sent = job.sent
        self._tables[job.origin].late(sent, now, max(now - sent.at, sent.slack_s) * 1.001)
        self._close(job, "dropped")

    def _close(self, job: Job, outcome: str) -> None:
        job.outcome = outcome
        self._open -= 1

    def _report(self, now: float, value: tuple[int, str]) -> None:
        origin, name = value
        world = self.plan.world
        spec = self._nodes[name].spec
        if not self._is_cut(world.sites[origin], spec.site, now):
            load = self._nodes[name].load(now)
            self.at(now + 0.5 * self._rtt[origin][name], self._heard, (origin, name, load, now))
        if now < self._end_s + 60.0:
            self.at(now + world.report_s, self._report, value)

    def _heard(self, now: float, value: tuple[int, str, Load, float]) -> None:
        origin, name, load, at = value
        table = self._tables[origin]
        table.heard(name, load, at)
        if not table[name].is_up:
            table.change(name, is_up=True)

    def _check(self, now: float, origin: int) -> None:
        table = self._tables[origin]
        for target in table.targets:
            if target.is_up and now - target.heard_at > self.plan.world.dead_s - CHECK_S:
                table.change(target.name, is_up=False)
        if now < self._end_s + 60.0:
            self.at(now + CHECK_S, self._check, origin)

    def _is_cut(self, site: str, other: str, now: float) -> bool:
        return site != other and any(
            cut.begin_s <= now < cut.end_s and cut.site in (site, other)
            for cut in self.plan.world.cuts
        )

    def _omniscient(self, job: Job, now: float) -> str | None:
        """Return where this request would finish first, all being known."""
        site = self.plan.world.sites[job.origin]
        best: tuple[float, str] | None = None
        for name, node in self._nodes.items():
            if self._is_cut(site, node.spec.site, now):
                continue
            rtt_s = self._rtt[job.origin][name]
            job.due = job.deadline - 0.5 * rtt_s
            ends = finish_at(node, job, now, now + 0.5 * rtt_s) + 0.5 * rtt_s
            if best is None or (ends, name) < best:
                best = (ends, name)
        if best is None or (self.plan.drops and best[0] > job.deadline):
            return None
        return best[1]

    def _outcomes(self) -> Outcomes:
        jobs = self.jobs
        return Outcomes(
            arrived=np.array([job.arrived for job in jobs]),
            delay_s=np.array(
                [job.sent - job.arrived if job.outcome == "ok" else np.nan for job in jobs]
            ),
            slack_s=np.array([job.slack_s for job in jobs]),
            late=np.array([job.late for job in jobs]),
            cost_usd=np.array([job.cost_usd for job in jobs]),
            outcome=[job.outcome for job in jobs],
            target=[job.target for job in jobs],
            duration_s=self._end_s,
            busy={name: node.busy_s / self._end_s for name, node in self._nodes.items()},
            dead_sends=self._dead_sends,
        )


def hash_of(name: str) -> int:
    """Return a number for a name that is the same in every process."""
    value = 0
    for character in name:
        value = (value * 131 + ord(character)) % (1 << 31)
    return value
