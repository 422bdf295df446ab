"""What is measured of a real cluster: its parameters, and what becomes of requests under rules."""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from load.bench.stats import percentile
from load.openloop import ClosedLoop
from load.routing.fidelity import calibration, models
from load.routing.fidelity.calibration import Alone, Busy, Parameters
from load.routing.fidelity.cluster import BATCH, LOG_S, Cluster, Shape
from load.routing.fidelity.judge import Figures, Seen
from load.routing.fidelity.traffic import CLASSES, Arrival, Client, part
from load.simulator.trace import Trace
from policies.routing import Objective

SUBJECTS: Final[Mapping[str, tuple[str, Objective]]] = {
    "latency": ("utility", "latency"),
    "balanced": ("utility", "balanced"),
    "weighted_least_outstanding": ("weighted_least_outstanding", "balanced"),
    "shortest_delay": ("shortest_delay", "balanced"),
    "least_outstanding": ("least_outstanding", "balanced"),
    "weighted_round_robin": ("weighted_round_robin", "balanced"),
    "round_robin": ("round_robin", "balanced"),
    "random": ("random", "balanced"),
}
ALONE_S: Final = 4.0
BUSY_S: Final = 3.0
WARM_S: Final = 1.5
CALLERS: Final = (2, 5, 10)  # at once, at a busy place
CROWD: Final = 16  # at once, where everything is quick
LOOKS: Final = 40  # at how old reports are, while nothing happens
REST_S: Final = 2.0
# To look into what went on; nothing of it reaches the simulator.
LOGGED: Final = ("at", "attempt", "target", "slack_ms", "expected_ms", "taken_ms", "outcome")
DEPTH: Final = 2  # batches that the engine has on an accelerator at once


def measure_all(
    plan: Mapping[str, Any], trace: Trace, state: dict[str, Any], path: Path, until: float
) -> bool:
    """Measure one turn after another, each a round of a rule; False when time was up before."""
    rules = list(dict.fromkeys(SUBJECTS[name][0] for name in plan["subjects"]))
    turns = [(number, rule) for number in range(1, plan["rounds"] + 1) for rule in rules]
    left = [turn for turn in turns if f"{turn[0]} {turn[1]}" not in state["turns"]]
    if not left:
        return True
    root = Path(tempfile.mkdtemp(prefix="ps-"))
    edge_s, edge_further_s, cloud_s, cloud_fixed = plan["shape"]
    try:
        if "products" not in state:
            state["products"] = models.settle(root, cloud_s, cloud_fixed)
        cluster = Cluster(root, Shape(edge_s, edge_further_s, *state["products"]))
        for number, rule in left:
            began = time.monotonic()
            if began + _turn_s(plan, rule) > until:
                return False
            with cluster.running(rule):
                _say(f"{rule}, round {number}: up after {time.monotonic() - began:.0f} s")
                asyncio.run(_turn(plan, trace, state, cluster, number, rule))
            state["took_s"] += time.monotonic() - began
            path.write_text(json.dumps(state) + "\n")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return True


def _turn_s(plan: Mapping[str, Any], rule: str) -> float:
    """Return about how long a turn takes, its cluster's start included."""
    count = sum(SUBJECTS[name][0] == rule for name in plan["subjects"])
    each_s = float(plan["lead"] + plan["seconds"]) + REST_S
    return 60.0 + count * len(plan["utilisations"]) * each_s


async def _turn(
    plan: Mapping[str, Any],
    trace: Trace,
    state: dict[str, Any],
    cluster: Cluster,
    number: int,
    rule: str,
) -> None:
    known = await cluster.targets()
    priors_s = {name: one["prior_ms"] / 1e3 for name, one in known.items()}
    # At each start anew: the same model may run some percent slower in another process.
    turn: dict[str, Any] = {"priors_s": priors_s, "calibration": {}}
    parameters = await _calibrated(cluster, turn["calibration"])
    turn["parameters"] = parameters.document()
    state.setdefault("capacity", parameters.capacity)
    runs: list[dict[str, Any]] = []
    turn_began = time.time()
    for utilisation in plan["utilisations"]:
        for subject in plan["subjects"]:
            if SUBJECTS[subject][0] != rule:
                continue
            arrivals = arrivals_of(plan, trace, state["capacity"], utilisation, number)
            objective = SUBJECTS[subject][1]
            requests = {
                slack_s: cluster.request(
                    {
                        "prime-spark-timeout-ms": str(round(1e3 * slack_s)),
                        "prime-spark-objective": objective,
                    }
                )
                for _, slack_s in CLASSES
            }
            began = time.time()
            client = Client(cluster.access.host, cluster.access.port, requests)
            answers = await client.replay(arrivals)
            client.close()
            found = [
                (
                    one.arrival.slack_s,
                    round(one.taken_s - one.late_s, 5) if one.status == 200 else None,
                    one.target,
                )
                for one in answers
                if one.arrival.at_s >= plan["lead"]
            ]
            late_ms = 1e3 * percentile(sorted(one.late_s for one in answers), 0.99)
            figures = Figures.of([Seen(*one) for one in found])
            statuses = dict(Counter(one.status for one in answers))
            _say(
                f"  {subject}, {utilisation:.0%}: {_short(figures)}, "
                f"client late {late_ms:.1f} ms, {statuses}"
            )
            runs.append(
                {
                    "subject": subject,
                    "utilisation": utilisation,
                    "begins_s": began - turn_began,
                    "sent_s": [round(one.arrival.at_s + one.late_s, 5) for one in answers],
                    "seen": found,
                    "client_late_p99_ms": late_ms,
                    "statuses": Counter(str(one.status) for one in answers),
                }
            )
            await asyncio.sleep(REST_S)
            runs[-1]["log"] = [[one[key] for key in LOGGED] for one in cluster.logged(began)]
    state["turns"][f"{number} {rule}"] = {**turn, "runs": runs}


def arrivals_of(
    plan: Mapping[str, Any], trace: Trace, capacity: float, utilisation: float, number: int
) -> list[Arrival]:
    """Return what is sent in a round at a utilisation, whatever the rule.

    capacity: requests a second without batching, as it was measured first.
    """
    return part(trace, utilisation * capacity, plan["lead"] + plan["seconds"], number)


def _short(figures: Figures) -> str:
    return (
        f"{figures.requests} requests, p50 {1e3 * figures.p50_s:.1f} ms, "
        f"p99 {1e3 * figures.p99_s:.0f} ms, misses {figures.misses:.1%}"
    )


async def _calibrated(cluster: Cluster, kept: dict[str, Any]) -> Parameters:
    """Measure each place by itself, and how old reports become; what was seen is kept."""
    known = await cluster.targets()
    heard_s: list[float] = []
    for _ in range(LOOKS):
        heard_s += [one["heard_s"] for one in (await cluster.targets()).values()]
        await asyncio.sleep(0.05)
    places: list[calibration.PlaceParameters] = []
    alone: list[Alone] = []
    for name, target in known.items():
        await _ask(cluster, target["tier"], 1, WARM_S)
        alone.append(await _alone(cluster, target["tier"]))
        busy = [await _busy(cluster, target["tier"], callers) for callers in CALLERS]
        kept[name] = [asdict(alone[-1]), *(asdict(one) for one in busy)]
        is_device = target["tier"] == "edge"
        workers = DEPTH if is_device else 1
        found = calibration.place(
            name, target, alone[-1], busy, is_serial=is_device, workers=workers
        )
        _say(
            f"  {name}: {1e3 * found.base_s:.1f} ms, of them {found.fixed:.0%} once a batch, "
            f"way {1e3 * found.way_s:.1f} ms, spread {found.spread:.1%}"
        )
        places.append(found)
    door_s = calibration.door_s(alone)
    report_s = 2.0 * statistics.fmean(heard_s)
    _say(f"  door {1e3 * door_s:.1f} ms, reports every {1e3 * report_s:.0f} ms")
    gateway_s = await _gateway_s(cluster)
    _say(f"  the gateway takes {1e3 * gateway_s:.2f} ms of each request for itself")
    return Parameters(tuple(places), door_s, gateway_s, report_s, cluster.settings.site, BATCH)


async def _gateway_s(cluster: Cluster) -> float:
    """Return what passing a request on takes at most pace: by a model that takes no time."""
    access = cluster.access
    request = cluster.request({"prime-spark-tier": "cloud"}, models.INSTANT)
    passed: list[float] = []
    for seconds in (WARM_S, BUSY_S):
        loop = ClosedLoop(access.host, access.port, request, CROWD)
        await loop.run(seconds)
        passed.append(seconds / sum(sent.status == 200 for sent in loop.sent))
    return passed[-1]


async def _ask(cluster: Cluster, tier: str, callers: int, seconds: float) -> list[float]:
    """Return what callers waited that ask a tier again and again."""
    access = cluster.access
    request = cluster.request({"prime-spark-tier": tier})
    loop = ClosedLoop(access.host, access.port, request, callers)
    await loop.run(seconds)
    return [sent.taken_s for sent in loop.sent if sent.status == 200]


async def _alone(cluster: Cluster, tier: str) -> Alone:
    before, began = await cluster.batches(), time.time()
    client_s = await _ask(cluster, tier, 1, ALONE_S)
    runs, computed_s = _since(before, await cluster.batches(), 1)
    await asyncio.sleep(LOG_S)
    taken_s = [1e-3 * one["taken_ms"] for one in cluster.logged(began)]
    return Alone(taken_s, client_s, computed_s / runs)


async def _busy(cluster: Cluster, tier: str, callers: int) -> Busy:
    before, began = await cluster.batches(), time.monotonic()
    await _ask(cluster, tier, callers, BUSY_S)
    passed_s = time.monotonic() - began
    after = await cluster.batches()
    runs = {rows: _since(before, after, rows)[0] for rows in after}
    return Busy(passed_s, sum(runs.values()), sum(rows * count for rows, count in runs.items()))


def _since(
    before: Mapping[int, tuple[int, float]], after: Mapping[int, tuple[int, float]], rows: int
) -> tuple[int, float]:
    """Return runs of so many rows and their seconds between two looks."""
    count, seconds = before.get(rows, (0, 0.0))
    return after[rows][0] - count, after[rows][1] - seconds


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
