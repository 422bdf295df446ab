"""Which part of the gateway's processor time decisions take: `python -m load.routing.share`.

Needs a running cluster that serves a model (`make demo`) with one gateway. Callers who ask again at
once keep the gateway at full load; the seconds that it counts for its decisions are divided by the
processor time that it uses meanwhile. Beside it stands what all of routing takes for a request, the
table that is kept of the targets included: a report, a decision about a request that is like none
before, a send and an answer with a load, timed here over a table of as many targets. Writes
share.json below the output folder; exit status 1 when the limit does not hold, 2 when no gateway
runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import psutil
from prometheus_client.parser import text_string_to_metric_families

from load.access import Access, NoGateway, command, example, find
from load.bench.machine import describe
from load.edge.marks import Found, Mark, judge
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
class Round:
    """Microseconds of a request: of the gateway's processor time, and of its decisions."""

    gateway_us: float
    decision_us: float
    routing_us: float
    answers_per_s: float

    @property
    def share(self) -> float:
        return self.decision_us / self.gateway_us


async def measured(
    model: str, headers: Mapping[str, str], clients: int, seconds: float, routed_s: float
) -> Round:
    """Load the gateway and return what it used. Raises NoGateway when it answers nothing."""
    access = find()
    request = binary_request(
        await example(access, model), access.authority, access.headers(headers)
    )
    pids = gateway_pids()
    if len(pids) != 1:
        raise NoGateway(f"{len(pids)} gateways run here; this takes one, which is asked for all")
    gateway = psutil.Process(pids[0])

    async def run(duration_s: float) -> int:
        phase = ClosedLoop(access.host, access.port, request, clients)
        await phase.run(duration_s)
        return sum(sent.status == 200 for sent in phase.sent)

    await run(WARM_UP_S)
    used_s, decided_s = -_used_s(gateway), -await _decided_s(access)
    answered = await run(seconds)
    used_s, decided_s = used_s + _used_s(gateway), decided_s + await _decided_s(access)
    if not answered:
        raise NoGateway(f"model '{model}' answers nothing; see `prime-spark status`")
    return Round(
        1e6 * used_s / answered, 1e6 * decided_s / answered, 1e6 * routed_s, answered / seconds
    )


async def _decided_s(access: Access) -> float:
    """Return the seconds that decisions have taken, by the gateway's metrics."""
    connection = await connect(access.host, access.port)
    try:
        headers = {"authorization": f"Bearer {command('token', '--scope', 'metrics:read').strip()}"}
        asked = request_bytes("GET", "/metrics", access.authority, headers)
        answer = await connection.ask(asked)
    finally:
        connection.close()
    if answer.status != HTTPStatus.OK:
        raise NoGateway(f"the gateway does not show its metrics: {answer.body.decode()}")
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            if sample.name == DECIDED:
                return float(sample.value)
    raise NoGateway(f"the gateway's metrics do not tell of {DECIDED}")


def _used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return name, value


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge and write; 0 when the limit holds."""
    parser = argparse.ArgumentParser(
        prog="load.routing.share",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--model", default="digits", help="that the cluster serves")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of full load in a round")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=VALUE",
        help="of each request, such as prime-spark-tier=cloud",
    )
    parser.add_argument("--name", default="share", help="of the file written")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    options = parser.parse_args(arguments)
    rounds: list[Round] = []
    headers = dict(options.header)
    try:
        targets = len(json.loads(command("status", "--json"))["targets"])
        for number in range(1, options.rounds + 1):
            routed_s = routing_s(targets, 20_000, number)
            found = asyncio.run(
                measured(options.model, headers, options.clients, options.seconds, routed_s)
            )
            rounds.append(found)
            print(f"{found}: {found.share:.2%}", file=sys.stderr)
    except (NoGateway, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    mark = Mark(f"{targets} targets", "decisions' share of the gateway", "", "at_most", LIMIT)
    verdict = judge(mark, Found.median([each.share for each in rounds]))
    document: dict[str, Any] = {
        "machine": describe(CHECKOUT),
        "plan": {
            "model": options.model,
            "headers": headers,
            "clients": options.clients,
            "seconds": options.seconds,
        },
        "rounds": [asdict(each) | {"share": each.share} for each in rounds],
        "marks": [asdict(verdict)],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.name}.json").write_text(json.dumps(document, indent=1) + "\n")
    whole = statistics.median(each.routing_us / each.gateway_us for each in rounds)
    print(
        f"decisions take {verdict.found.value:.2%} of the gateway's processor time, "
        f"all of routing {whole:.1%}"
    )
    print(line(asdict(verdict)))
    return 0 if verdict.is_met else 1


if __name__ == "__main__":
    sys.exit(main())
