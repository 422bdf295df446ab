"""Which part of the gateway's processor time decisions take: `python -m load.routing.share`.

A cluster is started that serves a model in three places. Callers who ask again at once keep its
gateway at full load, first by one tier, then by another, then by any; the seconds that it counts
for its decisions are divided by the processor time that it uses meanwhile. Beside it stands what
all of routing takes for a request, the table that is kept of the targets included: a report, a
decision about a request that is like none before, a send and an answer with a load, timed here over
a table of as many targets. Writes share.json and share.md below the output folder; exit status 1
when the limit does not hold, 2 when the cluster does not serve.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import psutil
from prometheus_client.parser import text_string_to_metric_families

from cluster.config import load_settings
from edge_runtime.protocol.context import TIER_HEADER
from load import owncluster
from load.access import Access, NoGateway, example
from load.bench.machine import describe, measured_on
from load.edge.marks import Found, Mark, Verdict, judge
from load.edge.soak import line
from load.fuzz.cluster import gateway_pids
from load.http1 import connect, request_bytes
from load.oip import binary_request
from load.openloop import ClosedLoop
from load.routing.decision import example_load, example_request, full_table
from policies.routing import Decision, decide

CHECKOUT: Final = Path(__file__).resolve().parents[2]
LIMIT: Final = 0.02
WARM_UP_S: Final = 2.0
DECIDED: Final = "prime_spark_gateway_decision_seconds_total"
ANY: Final = "any"
ROADS: Final = ("cloud", "colocated", ANY)
TARGETS: Final = 3  # the model is served by the cloud tier, the gateway itself and an edge box


def routing_s(targets: int, requests: int, seed: int) -> float:
    """Return processor seconds that routing takes for a request."""
    table, rng = full_table(targets, seed), random.Random(seed)  # noqa: S311 (which request comes)
    here = table.targets[0].name
    now = table.targets[0].heard_at
    asked = [example_request(rng) for _ in range(64)]
    loads = [example_load(rng, 0.02) for _ in range(64)]
    began = time.process_time()
    for index in range(requests):
        now += 0.001
        request, load = asked[index % 64], loads[index % 64]
        table.heard(here, load, now)
        decision = decide(request, table, now)
        if not isinstance(decision, Decision):
            raise RuntimeError("a table in which nothing may serve is no measure")
        sent = table.sent(decision.target, request, now)
        table.answered(sent, now + 0.05, load, now + 0.05, 0.002)
    return (time.process_time() - began) / requests


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. seconds: of full load in a round; clients: who ask again at once."""

    model: str
    rounds: int
    seconds: float
    clients: int


@dataclass(frozen=True, slots=True)
class Round:
    """Microseconds of a request: of the gateway's processor time, and of its decisions.

    road: the tier that was asked for, `any` for none.
    """

    road: str
    gateway_us: float
    decision_us: float
    routing_us: float
    answers_per_s: float

    @property
    def share(self) -> float:
        return self.decision_us / self.gateway_us


@dataclass(frozen=True, slots=True)
class _Gateway:
    """The one that is measured, and how to ask it, for its metrics too."""

    access: Access
    process: psutil.Process

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> _Gateway:
        """Find the gateway of a cluster. Raises NoGateway unless there is one."""
        pids = gateway_pids(environment)
        if len(pids) != 1:
            raise NoGateway(f"{len(pids)} gateways run there; it takes one, which is asked for all")
        settings = load_settings(environment)
        scopes = ("--scope", "infer", "--scope", "metrics:read")
        token = owncluster.must(environment, "cluster.cli.main", "token", *scopes).strip()
        access = Access(settings.address, settings.ports.rest, token)
        return cls(access, psutil.Process(pids[0]))

    async def measured(self, road: str, plan: Plan, routed_s: float) -> Round:
        """Load the gateway and return what it used. Raises NoGateway when it answers nothing."""
        headers = {} if road == ANY else {TIER_HEADER: road}
        payload = await example(self.access, plan.model)
        request = binary_request(payload, self.access.authority, self.access.headers(headers))

        async def answers(duration_s: float) -> int:
            phase = ClosedLoop(self.access.host, self.access.port, request, plan.clients)
            await phase.run(duration_s)
            return sum(sent.status == HTTPStatus.OK for sent in phase.sent)

        await answers(WARM_UP_S)
        used_s, deciding_s = self._used_s(), await self._decided_s()
        answered = await answers(plan.seconds)
        used_s, deciding_s = self._used_s() - used_s, await self._decided_s() - deciding_s
        if not answered:
            raise NoGateway(f"model '{plan.model}' answers nothing by the road '{road}'")
        each = 1e6 / answered
        return Round(
            road, each * used_s, each * deciding_s, 1e6 * routed_s, answered / plan.seconds
        )

    def _used_s(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system

    async def _decided_s(self) -> float:
        """Return the seconds that decisions have taken, by the gateway's metrics."""
        connection = await connect(self.access.host, self.access.port)
        try:
            asked = request_bytes("GET", "/metrics", self.access.authority, self.access.headers())
            answer = await connection.ask(asked)
        finally:
            connection.close()
        if answer.status != HTTPStatus.OK:
            raise NoGateway(f"the gateway does not show its metrics: {answer.body.decode()}")
        return decided_s(answer.body.decode())


def decided_s(metrics: str) -> float:
    """Return what a gateway's metrics say its decisions took. Raises NoGateway."""
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == DECIDED:
                return float(sample.value)
    raise NoGateway(f"the gateway's metrics do not tell of {DECIDED}")


def run(plan: Plan) -> list[Round]:
    """Measure every road in turn, round by round. Raises NoGateway, OSError."""
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="ps-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        environment = owncluster.environment(root)
        with owncluster.serving(environment, root, plan.model, "cloud,edge,colocated"):
            gateway = _Gateway.of(environment)
            for number in range(plan.rounds):
                routed_s = routing_s(TARGETS, 20_000, number)
                for road in ROADS:
                    rounds.append(asyncio.run(gateway.measured(road, plan, routed_s)))
                    print(f"{rounds[-1]}: {rounds[-1].share:.2%}", file=sys.stderr, flush=True)
    return rounds


def verdicts(rounds: Sequence[Round]) -> list[Verdict]:
    """Judge each road by the median of its rounds."""
    return [
        judge(
            Mark(f"road: {road}", "decisions' share of the gateway", "", "at_most", LIMIT),
            Found.median([each.share for each in rounds if each.road == road]),
        )
        for road in ROADS
    ]


def markdown(document: Mapping[str, Any]) -> str:
    """Return the page."""
    machine, plan = document["machine"], document["plan"]

    def median(road: str, name: str) -> float:
        of_road = [one[name] for one in document["rounds"] if one["road"] == road]
        return float(statistics.median(of_road))

    rows = [
        f"| {road} | {median(road, 'answers_per_s'):.0f} | {median(road, 'gateway_us'):.0f} "
        f"| {median(road, 'decision_us'):.2f} | {100 * verdict['found']['value']:.2f} "
        f"| {100 * verdict['found']['least']:.2f} to {100 * verdict['found']['most']:.2f} "
        f"| {median(road, 'routing_us'):.1f} | {'held' if verdict['is_met'] else '**not held**'} |"
        for road, verdict in zip(ROADS, document["marks"], strict=True)
    ]
    return "\n".join(
        [
            "# The gateway's share for decisions",
            "",
            f"{measured_on(machine)}. Raw results: [share.json](share.json).",
            "",
            f"{plan['clients']} callers ask model `{plan['model']}` again at once, "
            f"{plan['seconds']:g} s a round, {plan['rounds']} rounds by each road. Microseconds of "
            "a request, medians: of the gateway's processor time, and of the decisions in it, as "
            f"the gateway counts them (`{DECIDED}`; at most {LIMIT:.0%}). The last figure is "
            "all of routing for a request that is like none before, with what keeps the table of "
            "targets, timed by itself.",
            "",
            "| road | answers/s | gateway us | decisions us | share % | rounds | all of routing us "
            f"| ≤ {LIMIT:.0%} |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge and write; 0 when the limit holds."""
    parser = argparse.ArgumentParser(
        prog="load.routing.share",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--model", default="digits", help="of the zoo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of full load in a round")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.clients < 1 or options.seconds <= 0.0:
        parser.error("at least one round and one caller, and some seconds")
    plan = Plan(options.model, options.rounds, options.seconds, options.clients)
    machine = describe(CHECKOUT)
    owncluster.end_when_told()
    try:
        rounds = run(plan)
    except (NoGateway, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    marks = [asdict(verdict) for verdict in verdicts(rounds)]
    document: dict[str, Any] = {
        "machine": machine,
        "plan": asdict(plan),
        "rounds": [asdict(each) | {"share": each.share} for each in rounds],
        "marks": marks,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "share.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.out / "share.md").write_text(markdown(document))
    for mark in marks:
        print(line(mark))
    return 0 if all(mark["is_met"] for mark in marks) else 1


if __name__ == "__main__":
    sys.exit(main())
