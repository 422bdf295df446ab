"""One simulation: events in order of time, deterministic by seed.

Each site has gateways of its own, each with routing tables of its own, which learn as the product's
do: from reports that are late by the way, from loads that come with replies, and from what it
has sent itself. Rules are those of `policies.routing`, called with what such a gateway knows.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np

from load.simulator.building import Calls, node_of, places_of
from load.simulator.gateway import Gateway
from load.simulator.hedges import Hedges
from load.simulator.jobs import Job, Replay, at_each_site, recorded
from load.simulator.node import Node
from load.simulator.omniscient import finish_at
from load.simulator.place import Place
from load.simulator.probes import Probes
from load.simulator.trace import Trace
from load.simulator.world import Discipline, PriceChange, World
from policies.routing import (
    Decision,
    Load,
    Objective,
    Request,
    RoutingTable,
    Rule,
    Sent,
    Verdict,
    decide,
)
from policies.routing.utility import WEIGHTS, scores

MOST_ATTEMPTS: Final = 3
MOST_REFUSALS: Final = 2  # as the product's gateway
CHECK_S: Final = 0.25
QUIET_S: Final = 10.0  # without requests or faults, in which nobody looks at reports
_AWAKE_S: Final = 4.0  # before the quiet ends, so that all is known again


@dataclass(frozen=True)
class Plan:
    """How a run is set up. rule None: the omniscient router.

    oracle: what that takes, the shortest delay or the least score of objective `balanced` with true
    delays in place of estimates.

    trace: at each site, at the rate that loads the world by `utilisation`; a Replay comes once, as
    it was recorded. objective: of all requests; None: what was recorded of each. probes: sent with
    each request, for rules that use them; hedge: requests that take long get a second copy
    (`policies.routing.hedging`), but not of the omniscient router.
    """

    world: World
    trace: Trace | Replay
    utilisation: float
    rule: Rule | None
    objective: Objective | None = "balanced"
    discipline: Discipline = "fifo"
    drops: bool = False
    load_in_replies: bool = True
    seed: int = 1
    probes: int = 0
    hedge: bool = False
    oracle: Literal["delay", "cost"] = "delay"


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What became of every request, in order of arrival; times in seconds, money in dollars.

    delay_s: nan where there was no answer; outcome: `ok`, `refused`, `dropped` or `lost`; late:
    predicted P(late) of the first choice, negative where there was none; busy: by node;
    copies: sent besides.
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
    copies: int = 0


class Simulation:
    """A world in motion; `run` once. told: how many requests have ended, now and then."""

    def __init__(self, plan: Plan, told: Callable[[int], None] | None = None) -> None:
        self.plan = plan
        self._told = told
        world = plan.world
        self._events: list[tuple[float, int, Callable[..., None], Any]] = []
        self._sequence = 0
        self._rng = np.random.default_rng(plan.seed)
        calls = Calls(self.at, self._finished, self._dropped, self._refused)
        self._nodes = {
            spec.name: node_of(spec, world, plan.seed, plan.discipline, calls, drops=plan.drops)
            for spec in world.nodes
        }
        self._places = places_of(self._nodes.values())
        models = plan.trace.models if isinstance(plan.trace, Replay) else [""]
        self._gateways = [
            [Gateway(site, world, self._places, models) for _ in range(world.gateways.get(site, 1))]
            for site in world.sites
        ]
        self._edges = world.edges_s()
        self.jobs = self._arrivals()
        self._upcoming = 0
        self._dead_sends = 0
        self._probes = Probes(plan.probes, self._places, at=self.at, half_way=self._half_way)
        self._hedges = Hedges(
            plan.rule if plan.hedge else None,
            at=self.at,
            table_of=self.table_of,
            send=self._send,
            cancel=self._cancel,
        )

    def _arrivals(self) -> list[Job]:
        plan = self.plan
        if isinstance(plan.trace, Replay):
            jobs = recorded(plan.trace, plan.world, plan.seed)
        else:
            jobs = at_each_site(plan.trace, plan.world, plan.utilisation, self._rng)
        if plan.objective is not None:
            for job in jobs:
                job.objective = plan.objective
        return jobs

    def at(self, when: float, call: Callable[..., None], value: Any = None) -> None:
        """Have something called at a time, with that time and a value."""
        self._sequence += 1
        heapq.heappush(self._events, (when, self._sequence, call, value))

    def run(self) -> Outcomes:
        """Turn the clock until every request has ended."""
        jobs, world = self.jobs, self.plan.world
        for gateway in self._all_gateways():
            for name in self._places:
                phase = float(self._rng.random()) * world.report_s
                self.at(phase, self._report, (gateway, name))
            self.at(float(self._rng.random()) * CHECK_S, self._check, gateway)
        for change in world.price_changes:
            self.at(change.at_s, self._price_changes, change)
        draws = self._rng.integers(0, 2**63, len(jobs)).tolist()
        self._open = len(jobs)
        self._end_s = jobs[-1].arrived
        events, pop = self._events, heapq.heappop
        count = len(jobs)
        while self._upcoming < count or self._open:
            upcoming = self._upcoming
            if upcoming < count and (not events or jobs[upcoming].arrived <= events[0][0]):
                job = jobs[upcoming]
                self._upcoming += 1
                self._come(job, draws[upcoming])
                continue
            when, _, call, value = pop(events)
            call(when, value)
        return self._outcomes()

    def _all_gateways(self) -> list[Gateway]:
        return [gateway for those in self._gateways for gateway in those]

    def _come(self, job: Job, draw: int) -> None:
        """Let a request come to the gateway of its site that has the fewest."""
        gateways = self._gateways[job.origin]
        job.gateway = min(gateways, key=lambda one: (one.open, one.turns))
        job.gateway.open += 1
        job.draw = draw
        now = job.arrived
        origin = job.origin_site or job.gateway.site
        if self.plan.world.cut_since(origin, job.gateway.site, now) is not None:
            self._close(job, "lost")  # the caller does not reach the gateway
            return
        half_s = 0.5 * self.plan.world.gateway_s
        if half_s:
            self.at(job.gateway.works(now, half_s), self._decide, job)
        else:
            self._arrive(job, now, draw)

    def _decide(self, now: float, job: Job) -> None:
        self._arrive(job, now, job.draw)

    def _arrive(
        self, job: Job, now: float, draw: int, excluded: frozenset[str] = frozenset()
    ) -> None:
        gateway: Gateway = job.gateway
        table = gateway.tables[job.model]
        gateway.turns += 1
        request = Request(
            slack_s=job.deadline - now,
            bucket=job.bucket,
            moved_bytes=job.moved_bytes,
            objective=job.objective,
            tier=job.tier,
            origin_site=job.origin_site or None,
            excluded=excluded,
            draw=draw,
            turn=gateway.turns,
        )
        self._probes.ask(gateway, job.model, request, now)
        if self.plan.rule is None:
            node = self._omniscient(job, request, now)
            if node is None:
                self._close(job, "refused")
                return
            self._send(job, node.spec.target, request, now, draw, node)
            return
        outcome = decide(request, table, now, self.plan.rule)
        if not isinstance(outcome, Decision):
            self._close(job, "refused")
            return
        job.late = outcome.late if len(job.target) == 0 else job.late
        self._send(job, outcome.target, request, now, draw)

    def _send(
        self,
        job: Job,
        target: str,
        request: Request,
        now: float,
        draw: int,
        node: Node | None = None,
    ) -> None:
        gateway: Gateway = job.gateway
        world = self.plan.world
        way_s = gateway.ways_s[target]
        place = self._places[target]
        job.target = target
        job.attempts += 1
        if world.calls and self.table_of(job)[target].outstanding >= world.calls * max(
            1, len(place.present(now))
        ):
            self._elsewhere(job, now)
            return
        job.due = job.deadline - 0.5 * way_s
        job.sent = gateway.tables[job.model].sent(target, request, now)
        self._hedges.sent(job, request, now)
        spec = place.spec
        if spec.site != job.origin_site:
            job.cost_usd += spec.usd_per_byte * request.moved_bytes
        cut_at = world.cut_since(gateway.site, spec.site, now)
        if cut_at is not None:
            self._dead_sends += now - cut_at > world.dead_s
            self.at(now + world.lost_s, self._vanished, (job, draw))
            return
        if world.gives_up:
            self.at(max(now, job.due), self._deadline, (job, job.sent))
        arrives = now + 0.5 * way_s
        if node is not None:
            node.measure(job)
            node.coming.append((arrives, job))
        self.at(arrives, self._reach, (place, node, job, draw))

    def _reach(self, now: float, value: tuple[Place, Node | None, Job, int]) -> None:
        place, node, job, draw = value
        if node is not None:
            node.coming.remove((now, job))
        else:
            node = place.pick(job, now, draw)
            node.measure(job)
        self._probes.came(job, place, now)
        node.enqueue(job, now)

    def table_of(self, job: Job) -> RoutingTable:
        """Return what the gateway of a request knows."""
        gateway: Gateway = job.gateway
        return gateway.tables[job.model]

    def _half_way(self, gateway: Gateway, target: str, now: float) -> float | None:
        """Return the seconds from a gateway to a target; None while they are cut off."""
        site = self._places[target].spec.site
        if self.plan.world.cut_since(gateway.site, site, now) is not None:
            return None
        return 0.5 * gateway.ways_s[target]

    def _cancel(self, job: Job, now: float) -> None:
        """Give up a copy of a request that was answered elsewhere."""
        self.table_of(job).ended(job.sent)
        place, way_s = self._places[job.target], self._half_way(job.gateway, job.target, now)
        if way_s is not None:
            self.at(now + way_s, lambda _, given_up: place.cancel(given_up), job)

    def _vanished(self, now: float, value: tuple[Job, int]) -> None:
        job, draw = value
        if self._hedges.is_over(job):
            return
        self.table_of(job).ended(job.sent)
        whole = self._hedges.fell(job)
        if whole is None:
            return
        if whole.attempts >= MOST_ATTEMPTS:
            self._close(whole, "lost")
        else:
            self._arrive(whole, now, draw, frozenset((whole.target,)))

    def _finished(self, node: Node, batch: Sequence[Job], now: float) -> None:
        if not batch:
            return
        spec, slowness = node.spec, node.last_slowness
        works = [job.work * job.surprise for job in batch]
        total, taken_s = sum(works), node.batch_s(works) * slowness
        place = self._places[spec.target]
        for job, work in zip(batch, works, strict=True):
            job.cost_usd += spec.usd_per_s * taken_s * work / total
            load = place.load(now, job.model, node.alone_s(work))
            self._probes.went(job, place, now)
            gateway: Gateway = job.gateway
            if self.plan.world.cut_since(gateway.site, spec.site, now) is not None:
                # What was computed is lost on the way back; the sender notices, and tries again.
                self.at(now + self.plan.world.lost_s, self._vanished, (job, 0))
                continue
            self.at(now + 0.5 * gateway.ways_s[spec.target], self._reply, (job, load, now))

    def _reply(self, now: float, value: tuple[Job, Load, float]) -> None:
        half_s = 0.5 * self.plan.world.gateway_s
        if half_s:
            self.at(value[0].gateway.works(now, half_s), self._answered, value)
        else:
            self._answered(now, value)

    def _answered(self, now: float, value: tuple[Job, Load, float]) -> None:
        job, load, at = value
        if self._hedges.is_over(job) or job.outcome:
            return
        known = load if self.plan.load_in_replies else None
        self.table_of(job).answered(job.sent, now, known, at)
        whole = self._hedges.won(job, now)
        whole.sent = now
        self._close(whole, "ok")

    def _dropped(self, node: Node, job: Job, now: float) -> None:
        back = now + 0.5 * job.gateway.ways_s[node.spec.target]
        self.at(back, self._gave_up, job)

    def _refused(self, node: Node, job: Job, now: float) -> None:
        load = self._places[node.spec.target].load(now, job.model)
        back = now + 0.5 * job.gateway.ways_s[node.spec.target]
        self.at(back, self._turned_away, (job, job.sent, load, now))

    def _turned_away(self, now: float, value: tuple[Job, Sent, Load | None, float]) -> None:
        """A place did not take a request in, and says how it is."""
        job, sent, load, at = value
        table = self.table_of(job)
        table.ended(sent)
        if load is not None:
            table.heard(job.target, load, at)
        if job.outcome or self._hedges.is_over(job):
            return
        self._elsewhere(job, now)

    def _elsewhere(self, job: Job, now: float) -> None:
        """Try a request that was turned away at one more place, as the product does."""
        whole = self._hedges.fell(job)
        if whole is None:
            return
        if whole.attempts >= MOST_REFUSALS:
            self._close(whole, "refused")
        else:
            self._arrive(whole, now, whole.draw, frozenset((whole.target,)))

    def _deadline(self, now: float, value: tuple[Job, Sent]) -> None:
        """Let go at the place, then at the gateway, of what was not answered in time."""
        job, sent = value
        if job.outcome or job.sent is not sent or self._hedges.is_over(job):
            return
        self._places[job.target].cancel(job)
        self.at(max(now, job.deadline), self._gave_up, job)

    def _gave_up(self, now: float, job: Job) -> None:
        if self._hedges.is_over(job) or job.outcome:
            return
        sent = job.sent
        self.table_of(job).late(sent, now, max(now - sent.at, sent.slack_s) * 1.001)
        whole = self._hedges.fell(job)
        if whole is not None:
            self._close(whole, "dropped")

    def _close(self, job: Job, outcome: str) -> None:
        job.outcome = outcome
        job.gateway.open -= 1
        self._open -= 1
        if self._told is not None and self._open % 1000 == 0:
            self._told(len(self.jobs) - self._open)

    def _report(self, now: float, value: tuple[Gateway, str]) -> None:
        gateway, name = value
        world = self.plan.world
        place = self._places[name]
        if world.cut_since(gateway.site, place.spec.site, now) is None:
            loads = {
                model: load
                for model in gateway.tables
                if place.spec.serves(model) and (load := place.load(now, model)) is not None
            }
            if loads:
                back = now + 0.5 * gateway.ways_s[name]
                self.at(back, self._heard, (gateway, name, loads, now))
        self._again(now, world.report_s, self._report, value)

    def _heard(self, now: float, value: tuple[Gateway, str, Mapping[str, Load], float]) -> None:
        gateway, name, loads, at = value
        gateway.heard(name, loads, at)

    def _price_changes(self, now: float, change: PriceChange) -> None:
        place = self._places[change.target]
        usd_per_s, usd_per_byte = change.usd_per_s, change.usd_per_byte
        for node in place.nodes:
            node.spec = replace(node.spec, usd_per_s=usd_per_s, usd_per_byte=usd_per_byte)
        place.spec = place.nodes[0].spec
        for gateway in self._all_gateways():
            for table in gateway.tables.values():
                if place.name in table:
                    table.change(place.name, usd_per_s=usd_per_s, usd_per_byte=usd_per_byte)

    def _check(self, now: float, gateway: Gateway) -> None:
        gateway.check(now, self.plan.world.dead_s - CHECK_S)
        self._probes.ask_if_idle(gateway, now)
        self._again(now, CHECK_S, self._check, gateway)

    def _again(self, now: float, every_s: float, call: Callable[..., None], value: Any) -> None:
        """Call again after a while; what nobody would see of it in a long quiet is left out."""
        if now >= self._end_s + 60.0:
            return
        turns = 1.0
        is_quiet = self._open == len(self.jobs) - self._upcoming
        if is_quiet and self._upcoming < len(self.jobs):
            next_at = self.jobs[self._upcoming].arrived
            if next_at - now > QUIET_S:
                next_at = min([next_at, *(at for at in self._edges if at > now)])
                turns = max(1.0, (next_at - _AWAKE_S - now) // every_s)
        self.at(now + turns * every_s, call, value)

    def _omniscient(self, job: Job, request: Request, now: float) -> Node | None:
        """Return where this request would finish first, or cost least, all being known."""
        gateway: Gateway = job.gateway
        nodes: list[Node] = []
        found: list[Verdict] = []
        for name, node in self._nodes.items():
            spec = node.spec
            if self.plan.world.cut_since(gateway.site, spec.site, now) is not None:
                continue
            if (
                node.starts_at > now
                or not spec.serves(job.model)
                or job.tier not in (None, spec.tier)
            ):
                continue
            way_s = gateway.ways_s[spec.target]
            job.due = job.deadline - 0.5 * way_s
            node.measure(job)
            ends = finish_at(node, job, now, now + 0.5 * way_s) + 0.5 * way_s
            usd = spec.usd_per_s * node.batch_s((job.work,))
            if spec.site != job.origin_site:
                usd += spec.usd_per_byte * request.moved_bytes
            nodes.append(node)
            found.append(Verdict(name, ends - now, None, float(ends > job.deadline), usd))
        if not nodes or (self.plan.drops and all(verdict.late for verdict in found)):
            return None
        score = [verdict.expected_s for verdict in found]
        if self.plan.oracle == "cost":
            table = gateway.tables[job.model]
            targets = [table[node.spec.target] for node in nodes]
            every = range(len(nodes))
            price = table.risk_price("balanced")
            score = scores(request, targets, found, every, WEIGHTS["balanced"], price)
        best = min(zip(score, [verdict.target for verdict in found], strict=True))[1]
        return self._nodes[best]

    def _outcomes(self) -> Outcomes:
        jobs = self.jobs
        self._hedges.settle()
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
            busy={name: node.busy_s / (self._end_s or 1.0) for name, node in self._nodes.items()},
            dead_sends=self._dead_sends,
            copies=len(self._hedges.copies),
        )
