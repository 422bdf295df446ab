"""Which part of the gateway's processor time routing takes: `python -m load.routing.share`.

Needs a running cluster that serves a model (`make demo`). Callers who ask again at once keep the
gateway at full load; its processor time is divided by the requests that it answered. In the same
round the work of routing is timed over a table of as many targets: the look at the engine here, a
decision, a send and an answer with a load. Writes share.json below the output folder; exit status 1
when the limit does not hold, 2 when no gateway runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import psutil

from load.access import NoGateway, command, example, find
from load.bench.machine import describe
from load.edge.marks import Found, Mark, judge
from load.edge.soak import line
from load.fuzz.cluster import gateway_pids
from load.oip import binary_request
from load.openloop import ClosedLoop
from load.routing.decision import example_load, example_request, full_table
from policies.routing import Decision, decide

CHECKOUT: Final = Path(__file__).resolve().parents[2]
LIMIT: Final = 0.02
WARM_UP_S: Final = 2.0


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


async def gateway_s(model: str, clients: int, seconds: float) -> tuple[float, float]:
    """Return processor seconds of the gateway for a request, and requests answered a second."""
    access = find()
    request = binary_request(await example(access, model), access.authority, access.headers({}))
    gateways = [psutil.Process(pid) for pid in gateway_pids()]

    async def run(duration_s: float) -> int:
        phase = ClosedLoop(access.host, access.port, request, clients)
        await phase.run(duration_s)
        return sum(sent.status == 200 for sent in phase.sent)

    await run(WARM_UP_S)
    before = [_used_s(process) for process in gateways]
    answered = await run(seconds)
    used_s = sum(_used_s(process) for process in gateways) - sum(before)
    if not answered:
        raise NoGateway(f"model '{model}' answers nothing; see `prime-spark status`")
    return used_s / answered, answered / seconds


def _used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


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
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    options = parser.parse_args(arguments)
    rounds: list[dict[str, float]] = []
    try:
        targets = len(json.loads(command("status", "--json"))["targets"])
        for number in range(1, options.rounds + 1):
            used_s, rate = asyncio.run(gateway_s(options.model, options.clients, options.seconds))
            routed_s = routing_s(targets, 20_000, number)
            rounds.append(
                {
                    "gateway_us": 1e6 * used_s,
                    "routing_us": 1e6 * routed_s,
                    "share": routed_s / used_s,
                    "answers_per_s": rate,
                }
            )
            print({name: round(value, 4) for name, value in rounds[-1].items()}, file=sys.stderr)
    except (NoGateway, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    mark = Mark(f"{targets} targets", "routing's share of the gateway", "", "at_most", LIMIT)
    verdict = judge(mark, Found.median([each["share"] for each in rounds]))
    document: dict[str, Any] = {
        "machine": describe(CHECKOUT),
        "plan": {"model": options.model, "clients": options.clients, "seconds": options.seconds},
        "rounds": rounds,
        "marks": [asdict(verdict)],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "share.json").write_text(json.dumps(document, indent=1) + "\n")
    share = statistics.median(each["share"] for each in rounds)
    print(f"routing takes {share:.1%} of the gateway's processor time")
    print(line(asdict(verdict)))
    return 0 if verdict.is_met else 1


if __name__ == "__main__":
    sys.exit(main())
