"""Predictive scaling against Ray Serve's own policy on a real cluster: `load.scaling.real`.

    python -m load.scaling.real --out docs/benchmarks

For each of the two a cluster of its own is started on this machine, with one model on the cloud
tier, and the same requests are sent to it at the same moments (open loop): days of some 100 s with
a peak at noon. What counts is what ran: replicas as Serve lists them, twice a second, and answers
as a client sees them. A request misses when its answer is an error or takes longer than --late.

So that a small machine can do it, a replica is planned with a small share of its time (--busy).
Delays of Serve's policy are shorter than usual, as the days are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from cluster.config import Settings, load_settings
from cluster.home import Home
from cluster.status import read_deployments
from edge_runtime.errors import PrimeSparkError
from load import owncluster
from load.access import Access, NoGateway, example
from load.bench.machine import describe
from load.bench.stats import percentile
from load.oip import binary_request
from load.openloop import ClosedLoop, OpenLoop, Sent
from load.simulator.trace import diurnal

CHECKOUT: Final = Path(__file__).resolve().parents[2]
OK: Final = 200
POLL_S: Final = 0.5
Scaling = Literal["predictive", "reactive"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What to send and how replicas are planned; times in seconds.

    rate: requests a second on average; busy: share of its time that a replica is planned with;
    most: replicas.
    """

    model: str
    day_s: float
    days: int
    rate: float
    busy: float
    most: int
    start_s: float
    up_s: float
    down_s: float
    late_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One run. alone_ms: median of a client alone before it; replica_s: of the cloud tier, all that
    were started; forecast_followed: share of changes that the forecast decided; curve: (second,
    requests a second, replicas) by 5 s.
    """

    scaling: Scaling
    alone_ms: float
    requests: int
    replica_s: float
    mean_replicas: float
    changes: int
    misses: float
    errors: int
    p50_ms: float
    p99_ms: float
    client_late_p99_ms: float
    forecast_followed: float
    curve: tuple[tuple[float, float, float], ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both and write the page; 0 when both ran to their end."""
    parser = argparse.ArgumentParser(
        prog="load.scaling.real", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="resnet18", help="of the zoo")
    parser.add_argument("--day", type=float, default=100.0, help="length of a day, seconds")
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--rate", type=float, default=7.0, help="requests a second on average")
    parser.add_argument("--busy", type=float, default=0.3, help="planned share of a replica's time")
    parser.add_argument("--most", type=int, default=3, help="replicas")
    parser.add_argument("--start", type=float, default=8.0, help="a replica's start, seconds")
    parser.add_argument("--up", type=float, default=5.0, help="Serve's delay up, seconds")
    parser.add_argument("--down", type=float, default=20.0, help="Serve's delay down, seconds")
    parser.add_argument("--late", type=float, default=0.5, help="a miss takes longer, seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    parser.add_argument("--name", default="scaling-real", help="of the files written")
    options = parser.parse_args(arguments)
    shape = Shape(
        options.model, options.day, options.days, options.rate, options.busy, options.most,
        options.start, options.up, options.down, options.late, options.seed,
    )  # fmt: skip
    signal.signal(signal.SIGTERM, _end)  # or the cluster would outlive this
    began = time.monotonic()
    try:
        found = [run(shape, scaling) for scaling in ("predictive", "reactive")]
    except (PrimeSparkError, NoGateway, OSError) as error:
        print(f"the run ended early: {error}", file=sys.stderr)
        return 1
    document = {
        "machine": describe(CHECKOUT),
        "shape": asdict(shape),
        "took_s": time.monotonic() - began,
        "runs": [asdict(seen) for seen in found],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.name}.json").write_text(json.dumps(document) + "\n")
    (options.out / f"{options.name}.md").write_text(markdown(options.name, document))
    print(markdown(options.name, document))
    return 0


def run(shape: Shape, scaling: Scaling) -> Seen:
    """Start a cluster, send, look, and end it. Raises what a command or the gateway fails with."""
    root = Path(tempfile.mkdtemp(prefix="ps-"))
    environment = _environment(shape, scaling, root)
    try:
        owncluster.must(environment, "cluster.cli.main", "up")
        owncluster.must(environment, "train.zoo.publish", shape.model, "--home", str(root))
        served = ("model", "serve", f"{shape.model}@production", "--placement", "cloud")
        owncluster.must(environment, "cluster.cli.main", *served)
        return asyncio.run(_measure(shape, scaling, load_settings(environment), environment))
    finally:
        owncluster.must(environment, "cluster.cli.main", "down")
        shutil.rmtree(root, ignore_errors=True)


def _environment(shape: Shape, scaling: Scaling, root: Path) -> dict[str, str]:
    inference = {
        "MAX_REPLICAS": shape.most,
        "TARGET_ONGOING_REQUESTS": shape.busy,  # of one slot, as busy is of its time
        "UPSCALE_DELAY_S": shape.up_s,
        "DOWNSCALE_DELAY_S": shape.down_s,
        "SCALING": scaling,
        "SEASON_S": shape.day_s,
        "START_S": shape.start_s,
        "UTILISATION": shape.busy,
    }
    settings = {f"INFERENCE__{name}": value for name, value in inference.items()}
    return owncluster.environment(root, {"EDGE__ENABLED": "false", **settings})


async def _measure(
    shape: Shape, scaling: Scaling, settings: Settings, environment: Mapping[str, str]
) -> Seen:
    token = owncluster.must(environment, "cluster.cli.main", "token").strip()
    access = Access(settings.address, settings.ports.rest, token)
    payload = await _ready(access, shape.model)
    request = binary_request(payload, access.authority, access.headers())
    alone = ClosedLoop(access.host, access.port, request, 1)
    await alone.run(5.0)
    work_s = statistics.median(sent.taken_s for sent in alone.sent)
    _say(f"{scaling}: {1e3 * work_s:.1f} ms alone")
    times = diurnal(shape.seed, shape.rate, shape.day_s, shape.days).times
    loop = OpenLoop(access.host, access.port, request, connections=128)
    watch = asyncio.create_task(_watch(settings))
    began = time.monotonic()
    try:
        await loop.replay(times.tolist())
    finally:
        watch.cancel()
    loop.close()
    ended = time.monotonic()
    counts = await watch
    home = Home.at(settings.home)
    return _seen(shape, scaling, work_s, loop, counts, began, ended, home)


async def _ready(access: Access, model: str) -> Any:
    until = time.monotonic() + 60.0
    while True:
        try:
            return await example(access, model)
        except NoGateway:
            if time.monotonic() > until:
                raise
        await asyncio.sleep(0.2)


async def _watch(settings: Settings) -> list[tuple[float, int]]:
    """Return (monotonic, replicas of the cloud tier), until cancelled."""
    found: list[tuple[float, int]] = []
    try:
        while True:
            rows = await asyncio.to_thread(read_deployments, settings)
            replicas = sum(row["replicas"] for row in rows if row["application"] == "cloud")
            found.append((time.monotonic(), replicas))
            await asyncio.sleep(POLL_S)
    except asyncio.CancelledError:
        return found


def _seen(
    shape: Shape,
    scaling: Scaling,
    work_s: float,
    loop: OpenLoop,
    counts: Sequence[tuple[float, int]],
    began: float,
    ended: float,
    home: Home,
) -> Seen:
    sent = loop.sent
    at = np.array([moment for moment, _ in counts])
    replicas = np.array([count for _, count in counts])
    grid = np.arange(began, ended, 0.1)
    there = replicas[np.clip(np.searchsorted(at, grid, "right") - 1, 0, None)]
    good = [each for each in sent if each.status == OK]
    late = sum(each.taken_s > shape.late_s for each in good)
    errors = len(sent) - len(good) + loop.unsent
    total = len(sent) + loop.unsent
    taken_ms = sorted(1e3 * each.taken_s for each in good)
    return Seen(
        scaling=scaling,
        alone_ms=1e3 * work_s,
        requests=total,
        replica_s=float(there.mean() * (ended - began)),
        mean_replicas=float(there.mean()),
        changes=int((np.diff(replicas) != 0).sum()),
        misses=(late + errors) / max(total, 1),
        errors=errors,
        p50_ms=percentile(taken_ms, 0.5),
        p99_ms=percentile(taken_ms, 0.99),
        client_late_p99_ms=1e3 * percentile(sorted(each.late_s for each in sent), 0.99),
        forecast_followed=_followed(home),
        curve=_curve(sent, grid - began, there),
    )


def _followed(home: Home) -> float:
    """Return the share of changes that the forecast decided; 0 where no log was written."""
    if not home.scaling_log.exists():
        return 0.0
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in home.scaling_log.read_text("utf-8").splitlines()
    ]
    return float(sum(line["rule"] == "predictive" for line in lines) / max(1, len(lines)))


def _curve(
    sent: Sequence[Sent], seconds: Any, there: Any
) -> tuple[tuple[float, float, float], ...]:
    ends = np.arange(5.0, float(seconds[-1]), 5.0)
    due = np.array([each.due_s for each in sent])
    return tuple(
        (
            float(end),
            float(((due >= end - 5) & (due < end)).sum() / 5),
            round(float(there[(seconds >= end - 5) & (seconds < end)].mean()), 2),
        )
        for end in ends
    )


def markdown(name: str, document: Mapping[str, Any]) -> str:
    """Return the page. name: of the JSON file beside it."""
    machine, shape = document["machine"], document["shape"]
    lines = [
        "# Scaling on a real cluster",
        "",
        f"{machine['date']}, commit `{machine['commit'][:12]}`"
        f"{' with local changes' if machine['has_local_changes'] else ''}, "
        f"{machine['cores']} processors; load average before: {machine['load_before'][0]:g}. One "
        "run each. "
        f"Raw results: [{name}.json]({name}.json).",
        "",
        f"`{shape['model']}` on the cloud tier, {shape['days']} days of {shape['day_s']:g} s with "
        f"a peak at noon, at most {shape['most']} replicas, each planned with "
        f"{shape['busy']:.0%} of its time. Serve's policy waits {shape['up_s']:g} s to add a "
        f"replica and {shape['down_s']:g} s to remove one, over its usual look-back of 30 s; the "
        f"predictive one is told of the day and of a start of {shape['start_s']:g} s. A miss is an "
        f"error or takes longer than {1e3 * shape['late_s']:g} ms.",
        "",
        "| policy | replica-seconds | mean replicas | changes | misses % | errors | p50 ms "
        "| p99 ms | requests | alone ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {seen['scaling']} | {seen['replica_s']:.0f} | {seen['mean_replicas']:.2f} "
            f"| {seen['changes']} | {100 * seen['misses']:.2f} | {seen['errors']} "
            f"| {seen['p50_ms']:.1f} | {seen['p99_ms']:.1f} | {seen['requests']} "
            f"| {seen['alone_ms']:.1f} |"
            for seen in document["runs"]
        ),
        "",
    ]
    return "\n".join(lines)


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
