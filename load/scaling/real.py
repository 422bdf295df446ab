"""Predictive scaling against Ray Serve's own policy on a real cluster: `load.scaling.real`.

    python -m load.scaling.real --out docs/benchmarks

A cluster is started on this machine for each policy in turn, with one model on the cloud tier, and
both get the same requests (open loop): days with a peak at noon. With --beside both run at once,
but then the replicas that one starts make requests of the other wait for a processor. What counts
is what ran: replicas as Serve lists them, twice a second, and answers as a client sees them. A
request misses when its answer is an error or takes longer than its work and --patience.

So that a small machine can hold so many replicas, their model waits instead of computing
(`load.waiting`); everything else is as it always is. Serve's policy has the delays of a tuned one
and replicas filled to --filled, as in the simulator (`load.scaling`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from load.bench.machine import describe, measured_on
from load.bench.stats import percentile
from load.edge.marks import Found, Mark, Verdict, judge
from load.oip import binary_request
from load.openloop import ClosedLoop, OpenLoop, Sent
from load.simulator.trace import diurnal
from load.waiting import python_path

CHECKOUT: Final = Path(__file__).resolve().parents[2]
OK: Final = 200
POLL_S: Final = 0.5
LEAST: Final = 0.92  # of the replica-seconds of Serve's policy, at most
MISSES: Final = 0.001
Scaling = Literal["predictive", "reactive"]
SCALINGS: Final[tuple[Scaling, ...]] = ("predictive", "reactive")


@dataclass(frozen=True, slots=True)
class Shape:
    """What to send and how replicas are planned; times in seconds.

    work_s: of a request, of which a replica does `slots` at once; load: replicas that the mean of
    the work keeps fully busy; filled, utilisation: share of its time that Serve's policy, and the
    forecast, plan a replica with; most: replicas.
    """

    model: str
    day_s: float
    days: int
    work_s: float
    slots: int
    load: float
    filled: float
    utilisation: float
    most: int
    start_s: float
    up_s: float
    down_s: float
    patience_s: float
    seed: int

    @property
    def rate(self) -> float:
        """Requests a second on average."""
        return self.load * self.slots / self.work_s


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
    """Run both, judge, and write the page; 0 when every mark holds."""
    parser = argparse.ArgumentParser(
        prog="load.scaling.real", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="digits", help="of the zoo")
    parser.add_argument("--day", type=float, default=600.0, help="length of a day, seconds")
    parser.add_argument("--days", type=int, default=2)
    parser.add_argument("--work", type=float, default=0.5, help="of a request, seconds")
    parser.add_argument("--slots", type=int, default=8, help="requests that a replica does at once")
    parser.add_argument("--load", type=float, default=2.0, help="replicas' work on average")
    parser.add_argument("--filled", type=float, default=0.7, help="share that Serve plans with")
    parser.add_argument(
        "--utilisation", type=float, default=1.0, help="share that the forecast plans with"
    )
    parser.add_argument("--most", type=int, default=12, help="replicas")
    parser.add_argument("--start", type=float, default=15.0, help="a replica's start, seconds")
    parser.add_argument("--up", type=float, default=5.0, help="Serve's delay up, seconds")
    parser.add_argument("--down", type=float, default=60.0, help="Serve's delay down, seconds")
    parser.add_argument("--patience", type=float, default=0.5, help="beyond the work, seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--beside", action="store_true", help="both at once, in half the time")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    parser.add_argument("--name", default="scaling-real", help="of the files written")
    options = parser.parse_args(arguments)
    if options.slots < 1 or min(options.work, options.load, options.day) <= 0.0 or options.days < 1:
        parser.error("at least one slot and one day, some work, some load and a day of some length")
    shape = Shape(
        model=options.model,
        day_s=options.day,
        days=options.days,
        work_s=options.work,
        slots=options.slots,
        load=options.load,
        filled=options.filled,
        utilisation=options.utilisation,
        most=options.most,
        start_s=options.start,
        up_s=options.up,
        down_s=options.down,
        patience_s=options.patience,
        seed=options.seed,
    )
    owncluster.end_when_told()
    began, machine = time.monotonic(), describe(CHECKOUT)
    try:
        found = run_both(shape, beside=options.beside)
    except (PrimeSparkError, NoGateway, OSError) as error:
        print(f"the run ended early: {error}", file=sys.stderr)
        return 1
    marks = [asdict(verdict) for verdict in verdicts(*found)]
    document = {
        "machine": machine,
        "shape": asdict(shape),
        "beside": options.beside,
        "took_s": time.monotonic() - began,
        "runs": [asdict(seen) for seen in found],
        "marks": marks,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.name}.json").write_text(json.dumps(document) + "\n")
    (options.out / f"{options.name}.md").write_text(markdown(options.name, document))
    print(markdown(options.name, document))
    return 0 if all(mark["is_met"] for mark in marks) else 1


def run_both(shape: Shape, *, beside: bool) -> list[Seen]:
    """Run both, side by side or in turn. Raises what a command or a gateway fails with."""
    if not beside:
        return [seen for scaling in SCALINGS for seen in _run(shape, (scaling,))]
    return _run(shape, SCALINGS)


def _run(shape: Shape, scalings: Sequence[Scaling]) -> list[Seen]:
    with ExitStack() as clusters:
        found = {scaling: clusters.enter_context(_cluster(shape, scaling)) for scaling in scalings}
        return asyncio.run(_measure(shape, found))


@contextmanager
def _cluster(shape: Shape, scaling: Scaling) -> Iterator[Mapping[str, str]]:
    """Start a cluster that serves the model, yield its environment, and end it."""
    root = Path(tempfile.mkdtemp(prefix="ps-"))
    environment = _environment(shape, scaling, root)
    try:
        # What waits too long is a miss; the engine refuses only what is far beyond that.
        wait_ms = 1e3 * (shape.work_s + 10.0 * shape.patience_s)
        model = ("max_batch_size=1", f"instances={shape.slots}", f"max_queue_wait_ms={wait_ms:g}")
        with owncluster.serving(environment, root, shape.model, "cloud", *model):
            yield environment
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _environment(shape: Shape, scaling: Scaling, root: Path) -> dict[str, str]:
    inference = {
        "MAX_REPLICAS": shape.most,
        "TARGET_ONGOING_REQUESTS": shape.filled * shape.slots,
        "UPSCALE_DELAY_S": shape.up_s,
        "DOWNSCALE_DELAY_S": shape.down_s,
        "SCALING": scaling,
        "SEASON_S": shape.day_s,
        "START_S": shape.start_s,
        "UTILISATION": shape.utilisation,
    }
    settings = {f"INFERENCE__{name}": value for name, value in inference.items()}
    settings["ENGINE__THREADS"] = shape.slots
    found = owncluster.environment(root, {"EDGE__ENABLED": "false", **settings})
    return found | {"PYTHONPATH": python_path(root / "waiting", shape.work_s)}


@dataclass(frozen=True, slots=True)
class _Ready:
    """A cluster that may be measured. work_s: of a client alone."""

    scaling: Scaling
    settings: Settings
    work_s: float
    loop: OpenLoop


async def _measure(shape: Shape, clusters: Mapping[Scaling, Mapping[str, str]]) -> list[Seen]:
    ready = [await _prepare(shape, scaling, found) for scaling, found in clusters.items()]
    return list(await asyncio.gather(*(_replay(shape, each) for each in ready)))


async def _prepare(shape: Shape, scaling: Scaling, environment: Mapping[str, str]) -> _Ready:
    settings = load_settings(environment)
    token = owncluster.must(environment, "cluster.cli.main", "token").strip()
    access = Access(settings.address, settings.ports.rest, token)
    payload = await _when_ready(access, shape.model)
    request = binary_request(payload, access.authority, access.headers())
    alone = ClosedLoop(access.host, access.port, request, 1)
    await alone.run(5.0)
    work_s = statistics.median(sent.taken_s for sent in alone.sent)
    _say(f"{scaling}: {1e3 * work_s:.1f} ms alone")
    loop = OpenLoop(access.host, access.port, request, connections=512)
    return _Ready(scaling, settings, work_s, loop)


async def _replay(shape: Shape, ready: _Ready) -> Seen:
    times = diurnal(shape.seed, shape.rate, shape.day_s, shape.days).times
    watch = asyncio.create_task(_watch(ready.settings))
    began = time.monotonic()
    try:
        await ready.loop.replay(times.tolist())
    finally:
        watch.cancel()
    ready.loop.close()
    ended = time.monotonic()
    return _seen(shape, ready, await watch, began, ended)


async def _when_ready(access: Access, model: str) -> Any:
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
    shape: Shape, ready: _Ready, counts: Sequence[tuple[float, int]], began: float, ended: float
) -> Seen:
    loop, sent = ready.loop, ready.loop.sent
    at = np.array([moment for moment, _ in counts])
    replicas = np.array([count for _, count in counts])
    grid = np.arange(began, ended, 0.1)
    there = replicas[np.clip(np.searchsorted(at, grid, "right") - 1, 0, None)]
    good = [each for each in sent if each.status == OK]
    late = sum(each.taken_s > shape.work_s + shape.patience_s for each in good)
    errors = len(sent) - len(good) + loop.unsent
    total = len(sent) + loop.unsent
    taken_ms = sorted(1e3 * each.taken_s for each in good)
    return Seen(
        scaling=ready.scaling,
        alone_ms=1e3 * ready.work_s,
        requests=total,
        replica_s=float(there.mean() * (ended - began)),
        mean_replicas=float(there.mean()),
        changes=int((np.diff(replicas) != 0).sum()),
        misses=(late + errors) / max(total, 1),
        errors=errors,
        p50_ms=percentile(taken_ms, 0.5),
        p99_ms=percentile(taken_ms, 0.99),
        client_late_p99_ms=1e3 * percentile(sorted(each.late_s for each in sent), 0.99),
        forecast_followed=_followed(Home.at(ready.settings.home)),
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


def verdicts(predictive: Seen, reactive: Seen) -> list[Verdict]:
    """Judge what ran."""
    share = predictive.replica_s / reactive.replica_s
    marks = [
        (Mark("predictive", "replica-seconds / those of Serve", "", "at_most", LEAST), share),
        (Mark("predictive", "share of misses", "", "at_most", MISSES), predictive.misses),
    ]
    return [judge(mark, Found(value, value, value)) for mark, value in marks]


def markdown(name: str, document: Mapping[str, Any]) -> str:
    """Return the page. name: of the JSON file beside it."""
    machine, shape = document["machine"], document["shape"]
    lines = [
        "# Scaling on a real cluster",
        "",
        f"{measured_on(machine)}. One run each. Raw results: [{name}.json]({name}.json).",
        "",
        f"A cluster for each, {'side by side' if document['beside'] else 'in turn'}, the same "
        "requests: "
        f"{shape['days']} days of {shape['day_s']:g} s with a peak at noon, {shape['load']:g} "
        f"replicas' work on average, at most {shape['most']} replicas. A request takes "
        f"{1e3 * shape['work_s']:g} ms, of which a replica does {shape['slots']} at once; "
        "the model waits instead of computing. Serve's policy fills a replica to "
        f"{shape['filled']:.0%}, waits {shape['up_s']:g} s to add one and "
        f"{shape['down_s']:g} s to remove one, over its usual look-back of 30 s; the "
        f"forecast to {shape['utilisation']:.0%}, and it is told of the day and of a start of "
        f"{shape['start_s']:g} s. "
        f"A miss is an error or takes longer than its work and {1e3 * shape['patience_s']:g} ms.",
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
        "| what | found | limit | |",
        "|---|---|---|---|",
        *(
            f"| {found['mark']['title']} | {found['found']['value']:.4g} "
            f"| {found['mark']['limit']:g} | {'held' if found['is_met'] else '**not held**'} |"
            for found in document["marks"]
        ),
        "",
    ]
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
