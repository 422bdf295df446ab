"""Twice the load that the gateway can carry, for a minute: does it bend and come back?

    python -m load.overload --model resnet18 --tier cloud

Measured one after the other: an unloaded client, saturation (closed loop), twice that rate (open
loop), and a client again. What must hold: accepted requests keep p99 within 3 times the
unloaded p99 plus the queue bound; all others get 503 with Retry-After; nothing else comes back,
no connection is lost; and within 5 s of the end there is a second in which every answer is well
and none takes longer than twice the unloaded p99. Exit status 1 when one of these does not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from cluster.config import load_settings
from load.access import Access, NoGateway, example, find
from load.bench.stats import percentile
from load.oip import binary_request
from load.openloop import LOST, ClosedLoop, OpenLoop, Sent

OK: Final = 200
REFUSED: Final = 503
WARM_UP_S: Final = 2.0
P99_FACTOR: Final = 3.0
RECOVERY_S: Final = 5.0
RECOVERED_FACTOR: Final = 2.0
LATE_S: Final = 0.1  # a client this late at p99 measures itself


@dataclass(frozen=True, slots=True)
class Experiment:
    """What to do. factor: of the sustainable rate."""

    model: str
    tier: str | None
    unloaded_s: float
    saturation_s: float
    overload_s: float
    factor: float
    clients: int
    connections: int
    seed: int


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen; latencies in ms. recovered_s: None when it did not."""

    unloaded_p50_ms: float
    unloaded_p99_ms: float
    sustainable_per_s: float
    offered_per_s: float
    accepted: int
    accepted_p50_ms: float
    accepted_p99_ms: float
    refused: int
    refused_p50_ms: float
    refused_p99_ms: float
    refused_without_retry_after: int
    other_statuses: dict[int, int]
    lost: int
    unsent: int
    client_late_p99_ms: float
    recovered_s: float | None


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold."""

    what: str
    found: str
    holds: bool


def main() -> int:
    """Run the experiment on the running gateway; 0 when everything holds."""
    parser = argparse.ArgumentParser(prog="load.overload", description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--tier", choices=("edge", "cloud", "colocated"))
    parser.add_argument("--duration-s", type=float, default=60.0, help="of the overload")
    parser.add_argument("--factor", type=float, default=2.0, help="times the sustainable rate")
    parser.add_argument("--rate", type=float, help="sustainable rate, instead of measuring it")
    parser.add_argument("--clients", type=int, default=8, help="that saturate the gateway")
    parser.add_argument("--connections", type=int, default=1024, help="at most, in the overload")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write what was seen to this file")
    options = parser.parse_args()
    console = Console(highlight=False)
    experiment = Experiment(
        model=options.model,
        tier=options.tier,
        unloaded_s=max(5.0, options.duration_s / 6),
        saturation_s=max(5.0, options.duration_s / 6),
        overload_s=options.duration_s,
        factor=options.factor,
        clients=options.clients,
        connections=options.connections,
        seed=options.seed,
    )
    bound_ms = load_settings(env=os.environ).engine.max_queue_wait_ms
    try:
        observed = asyncio.run(observe(find(), experiment, options.rate, console))
    except (NoGateway, OSError) as error:
        console.print(f"[red]{error}")
        return 1
    checks = judge(observed, bound_ms)
    table = Table("what must hold", "found", "holds", show_edge=False)
    for check in checks:
        table.add_row(check.what, check.found, "yes" if check.holds else "[red]no")
    console.print(table)
    holds = all(check.holds for check in checks)
    if options.json:
        document = {
            "experiment": asdict(experiment),
            "queue_bound_ms": bound_ms,
            "observed": asdict(observed),
            "checks": [asdict(check) for check in checks],
            "holds": holds,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return 0 if holds else 1


async def observe(
    access: Access, experiment: Experiment, rate_per_s: float | None, console: Console
) -> Observed:
    """Go through the phases. rate_per_s: the sustainable rate where it is known.

    Raises NoGateway, OSError.
    """
    payload = await example(access, experiment.model)
    tier = {"prime-spark-tier": experiment.tier} if experiment.tier else None
    request = binary_request(payload, access.authority, access.headers(tier))

    async def closed(clients: int, duration_s: float) -> list[Sent]:
        phase = ClosedLoop(access.host, access.port, request, clients)
        await phase.run(duration_s)
        return phase.sent

    await closed(1, WARM_UP_S)
    unloaded = _taken_ms(await closed(1, experiment.unloaded_s), OK)
    if not unloaded:
        raise NoGateway(f"model '{experiment.model}' answers nothing; see `prime-spark status`")
    p99_ms = percentile(unloaded, 0.99)
    console.print(f"unloaded: p50 {percentile(unloaded, 0.5):.1f} ms, p99 {p99_ms:.1f} ms")
    if rate_per_s is None:
        answers = _taken_ms(await closed(experiment.clients, experiment.saturation_s), OK)
        rate_per_s = len(answers) / experiment.saturation_s
    offered = rate_per_s * experiment.factor
    console.print(f"sustainable: {rate_per_s:.1f}/s; sending {offered:.1f}/s ...")
    storm = OpenLoop(access.host, access.port, request, experiment.connections)
    await storm.run(offered, experiment.overload_s, random.Random(experiment.seed))  # noqa: S311
    storm.close()
    after = await closed(1, RECOVERY_S + 1.0)
    return summarise(unloaded, rate_per_s, offered, storm, after)


def summarise(
    unloaded: Sequence[float],
    sustainable_per_s: float,
    offered_per_s: float,
    storm: OpenLoop,
    after: Sequence[Sent],
) -> Observed:
    """Reduce what was sent to figures. unloaded: latencies in ms, in order."""
    accepted, refused = _taken_ms(storm.sent, OK), _taken_ms(storm.sent, REFUSED)
    others = [sent.status for sent in storm.sent if sent.status not in (OK, REFUSED, LOST)]
    unloaded_p99_ms = percentile(unloaded, 0.99)
    return Observed(
        unloaded_p50_ms=percentile(unloaded, 0.5),
        unloaded_p99_ms=unloaded_p99_ms,
        sustainable_per_s=sustainable_per_s,
        offered_per_s=offered_per_s,
        accepted=len(accepted),
        accepted_p50_ms=percentile(accepted, 0.5) if accepted else 0.0,
        accepted_p99_ms=percentile(accepted, 0.99) if accepted else 0.0,
        refused=len(refused),
        refused_p50_ms=percentile(refused, 0.5) if refused else 0.0,
        refused_p99_ms=percentile(refused, 0.99) if refused else 0.0,
        refused_without_retry_after=sum(
            sent.status == REFUSED and not sent.has_retry_after for sent in storm.sent
        ),
        other_statuses={status: others.count(status) for status in sorted(set(others))},
        lost=sum(sent.status == LOST for sent in storm.sent),
        unsent=storm.unsent,
        client_late_p99_ms=percentile(sorted(s.late_s for s in storm.sent), 0.99) * 1e3,
        recovered_s=recovery(after, unloaded_p99_ms * RECOVERED_FACTOR / 1e3),
    )


def recovery(after: Sequence[Sent], bound_s: float) -> float | None:
    """Return the end of the first whole second in which every answer was well and in time."""
    second = 0
    while second < RECOVERY_S:
        window = [sent for sent in after if second <= sent.due_s < second + 1]
        if window and all(sent.status == OK and sent.taken_s <= bound_s for sent in window):
            return second + 1.0
        second += 1
    return None


def judge(observed: Observed, bound_ms: float) -> list[Check]:
    """Compare with what must hold. bound_ms: how long the engine lets a request wait."""
    limit_ms = P99_FACTOR * observed.unloaded_p99_ms + bound_ms
    total = observed.accepted + observed.refused
    odd = [f"{count} with status {status}" for status, count in observed.other_statuses.items()]
    odd += [f"{observed.lost} lost"] if observed.lost else []
    recovered = observed.recovered_s
    return [
        Check(
            f"p99 of accepted requests ≤ {limit_ms:.0f} ms",
            f"{observed.accepted_p99_ms:.0f} ms over {observed.accepted} accepted",
            observed.accepted > 0 and observed.accepted_p99_ms <= limit_ms,
        ),
        Check(
            "it was an overload: some requests were refused",
            f"{observed.refused} of {total}",
            observed.refused > 0,
        ),
        Check(
            "refusals come quickly: p99 ≤ that of accepted requests",
            f"p50 {observed.refused_p50_ms:.1f} ms, p99 {observed.refused_p99_ms:.1f} ms",
            observed.refused_p99_ms <= max(observed.accepted_p99_ms, observed.unloaded_p99_ms),
        ),
        Check(
            "every refusal says when to come back",
            f"{observed.refused_without_retry_after} without Retry-After",
            observed.refused_without_retry_after == 0,
        ),
        Check("nothing but 200 and 503", ", ".join(odd) or "nothing else", not odd),
        Check(
            f"recovered within {RECOVERY_S:g} s",
            "no" if recovered is None else f"after {recovered:g} s",
            recovered is not None,
        ),
        Check(
            "the client kept up",
            f"p99 {observed.client_late_p99_ms:.1f} ms late, {observed.unsent} not sent",
            observed.client_late_p99_ms <= LATE_S * 1e3 and observed.unsent == 0,
        ),
    ]


def _taken_ms(sent: Sequence[Sent], status: int) -> list[float]:
    return sorted(s.taken_s * 1e3 for s in sent if s.status == status)


if __name__ == "__main__":
    sys.exit(main())
