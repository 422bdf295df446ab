"""Routing on a real cluster whose edge box goes away, and then becomes slow: `load.routing.faults`.

    python -m load.routing.faults --partition 300

Starts a cluster of its own on this machine: the cloud tier, and an edge box with a fake Hailo
device, on which requests of its own site are cheapest. Requests with a deadline come at a constant
mean rate, whatever becomes of those before. Then every process of the box is stopped for a while
(it neither answers nor refuses, as behind a network that is cut), continued, and its device made
three times slower. The cloud alone can take all of the requests, so none has a reason to be late.

Marks: nothing is sent to the box from 2 s after it went away until it is back; of the requests that
came from then on, 95 % are answered in time, and as many while the device is slow. Requests of
those first 2 s are shown beside. Writes routing-faults.json and .md; exit status 1 when a mark does
not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from cluster.config import Settings, load_settings
from cluster.home import Home
from cluster.nodes import EDGE
from cluster.processes import belonging
from cluster.state import read_state
from load import owncluster
from load.access import Access, example
from load.bench.machine import describe
from load.bench.stats import percentile
from load.demo import accelerator
from load.edge.marks import Found, Mark, Verdict, judge
from load.edge.soak import line
from load.fake_hailo.device import DRIVER_PATH, FakeDevice
from load.http1 import Connection, Response, connect
from load.oip import binary_request

CHECKOUT: Final = Path(__file__).resolve().parents[2]
DETECTED_S: Final = 2.0
BACK_S: Final = 90.0
GOOD: Final = 0.95
SLOWER: Final = 3.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Seconds of each phase; rate: requests a second; late_ms: their deadline."""

    calm_s: float
    partition_s: float
    slow_s: float
    rate: float
    late_ms: int
    device_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A request: when it was due (unix seconds), how long after it was answered, and by whom."""

    at: float
    taken_s: float
    status: int
    target: str


class Traffic:
    """Sends one request again and again when it is due, on as many connections as that takes."""

    def __init__(self, access: Access, request: bytes, rate: float, seed: int) -> None:
        self._access = access
        self._request = request
        self._rate = rate
        self._random = random.Random(seed)  # noqa: S311 (when requests come)
        self._free: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.seen: list[Seen] = []

    async def run(self) -> None:
        """Send until cancelled, then wait for what is under way."""
        due = time.time()
        try:
            while True:
                due += self._random.expovariate(self._rate)
                await asyncio.sleep(max(0.0, due - time.time()))
                task = asyncio.create_task(self._send(due))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            await asyncio.gather(*self._tasks)
            for connection in self._free:
                connection.close()

    async def _send(self, due: float) -> None:
        answer: Response | None = None
        try:
            connection = await self._connection()
            answer = await connection.ask(self._request)
            self._free.append(connection)
        except OSError:
            pass  # it counts as lost
        status = 0 if answer is None else answer.status
        target = b"" if answer is None else answer.headers.get(b"prime-spark-target", b"")
        self.seen.append(Seen(due, time.time() - due, status, target.decode("ascii")))

    async def _connection(self) -> Connection:
        while self._free:
            found = self._free.pop()
            if found.is_open:
                return found
        return await connect(self._access.host, self._access.port)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, judge and write; 0 when every mark holds."""
    parser = argparse.ArgumentParser(
        prog="load.routing.faults",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--calm", type=float, default=30.0, help="seconds before and between")
    parser.add_argument("--partition", type=float, default=300.0, help="seconds without the box")
    parser.add_argument("--slow", type=float, default=60.0, help="seconds with a slow device")
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second")
    parser.add_argument("--deadline-ms", type=int, default=400)
    parser.add_argument("--device-ms", type=float, default=8.0, help="of a frame on the device")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    options = parser.parse_args(arguments)
    plan = Plan(
        options.calm, options.partition, options.slow, options.rate, options.deadline_ms,
        options.device_ms / 1e3, options.seed,
    )  # fmt: skip
    began = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="ps-"))
    try:
        document = _run(plan, root)
    except OSError as error:
        print(f"the run ended early: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(root, ignore_errors=True)
    document |= {"machine": describe(CHECKOUT), "took_s": time.monotonic() - began}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "routing-faults.json").write_text(json.dumps(document) + "\n")
    (options.out / "routing-faults.md").write_text(markdown(document))
    for verdict in document["marks"]:
        print(line(verdict))
    return 0 if all(verdict["is_met"] for verdict in document["marks"]) else 1


def _run(plan: Plan, root: Path) -> dict[str, Any]:
    device = FakeDevice(root / "fake-hailo")
    device.create(latency_s=plan.device_s)
    environment = owncluster.environment(root)
    accelerated = {
        "kind": "hailo",
        "python": sys.executable,
        "driver_path": str(DRIVER_PATH),
        "environment": f"[FAKE_HAILO_DIR={device.folder}]",
    }
    flags = [
        word
        for name, value in accelerated.items()
        for word in ("--set", f"edge.accelerator.{name}={value}")
    ]
    try:
        owncluster.must(environment, "cluster.cli.main", *flags, "up")
        owncluster.must(environment, "train.zoo.publish", "digits", "--home", str(root))
        from train.zoo import digits

        home = Home.at(str(root))
        version = accelerator.register(home, digits.load(root))
        served = ("model", "serve", f"{accelerator.MODEL}@{version}", "--placement", "edge,cloud")
        owncluster.must(environment, "cluster.cli.main", *served)
        return asyncio.run(_measure(plan, load_settings(environment), environment, device))
    finally:
        owncluster.must(environment, "cluster.cli.main", "down")


async def _measure(
    plan: Plan, settings: Settings, environment: Mapping[str, str], device: FakeDevice
) -> dict[str, Any]:
    token = owncluster.must(environment, "cluster.cli.main", "token").strip()
    access = Access(settings.address, settings.ports.rest, token)
    payload = await example(access, accelerator.MODEL)
    headers = {
        "prime-spark-timeout-ms": str(plan.late_ms),
        "prime-spark-site": settings.edge.site,
    }
    request = binary_request(payload, access.authority, access.headers(headers))
    traffic = Traffic(access, request, plan.rate, plan.seed)
    sending = asyncio.create_task(traffic.run())
    home = Home.at(settings.home)
    try:
        _say(f"calm for {plan.calm_s:g} s")
        calm_at = time.time() + 5.0  # the first requests warm it up
        await asyncio.sleep(5.0 + plan.calm_s)
        box = belonging(home, read_state(home).sessions)[EDGE]
        _say(f"the box is away for {plan.partition_s:g} s ({len(box)} processes)")
        gone_at = time.time()
        _signal(box, signal.SIGSTOP)
        await asyncio.sleep(plan.partition_s)
        back_at = time.time()
        _signal(box, signal.SIGCONT)
        returned_s = await _until_served_by(traffic, f"edge/{settings.edge.site}", back_at)
        _say(f"back after {returned_s:.1f} s; calm for {plan.calm_s:g} s")
        await asyncio.sleep(plan.calm_s)
        _say(f"the device is {SLOWER:g} times slower for {plan.slow_s:g} s")
        slow_at = time.time()
        device.slow(SLOWER)
        await asyncio.sleep(plan.slow_s)
        end_at = time.time()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    await asyncio.sleep(2.0)  # the request log is written twice a second
    sends = _sends(home, f"edge/{settings.edge.site}")
    phases = {
        "calm": (calm_at, gone_at),
        "going away": (gone_at, gone_at + DETECTED_S),
        "away": (gone_at + DETECTED_S, back_at),
        "slow": (slow_at, end_at),
    }
    found = {name: _phase(traffic.seen, plan, *span) for name, span in phases.items()}
    dead = sum(gone_at + DETECTED_S < at < back_at for at in sends)
    return {
        "plan": asdict(plan),
        "phases": found,
        "returned_s": returned_s,
        "sends_to_dead": dead,
        "marks": [asdict(verdict) for verdict in verdicts(found, dead, returned_s)],
    }


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


async def _until_served_by(traffic: Traffic, target: str, since: float) -> float:
    """Return seconds until a request that came since was answered there; BACK_S at most."""
    while time.time() - since < BACK_S:
        if any(s.at >= since and s.target == target for s in reversed(traffic.seen[-500:])):
            break
        await asyncio.sleep(0.1)
    return time.time() - since


def _sends(home: Home, target: str) -> list[float]:
    """Return when requests were sent to a target, by the request log."""
    lines = [
        json.loads(text)
        for path in sorted(home.requests.glob("*.jsonl"))
        for text in path.read_text("utf-8").splitlines()
    ]
    return [found["at"] for found in lines if found["attempt"] and found["target"] == target]


def _phase(seen: Sequence[Seen], plan: Plan, since: float, until: float) -> dict[str, Any]:
    mine = [each for each in seen if since <= each.at < until]
    good = [s for s in mine if s.status == 200 and s.taken_s <= plan.late_ms / 1e3]
    taken_ms = sorted(1e3 * each.taken_s for each in mine if each.status == 200)
    return {
        "requests": len(mine),
        "in_time": len(good) / max(1, len(mine)),
        "p50_ms": percentile(taken_ms, 0.5) if taken_ms else 0.0,
        "p99_ms": percentile(taken_ms, 0.99) if taken_ms else 0.0,
        "statuses": dict(Counter(str(each.status) for each in mine)),
        "targets": dict(Counter(each.target or "none" for each in mine)),
    }


def verdicts(
    phases: Mapping[str, Mapping[str, Any]], dead: int, returned_s: float
) -> list[Verdict]:
    """Judge a run."""
    marks = [
        (Mark("away", "requests sent to the box after 2 s", "", "at_most", 0.0), float(dead)),
        (Mark("away", "answered in time", "", "at_least", GOOD), phases["away"]["in_time"]),
        (Mark("slow", "answered in time", "", "at_least", GOOD), phases["slow"]["in_time"]),
        (Mark("back", "seconds until it is used again", "s", "at_most", BACK_S - 1), returned_s),
    ]
    return [judge(mark, Found(value, value, value)) for mark, value in marks]


def markdown(document: Mapping[str, Any]) -> str:
    """Return the page."""
    machine, plan = document["machine"], document["plan"]
    rows = [
        f"| {name} | {found['requests']} | {100 * found['in_time']:.2f} | {found['p50_ms']:.1f} "
        f"| {found['p99_ms']:.1f} | "
        + ", ".join(f"{target} {count}" for target, count in sorted(found["targets"].items()))
        + " |"
        for name, found in document["phases"].items()
    ]
    marks = [
        f"| {verdict['mark']['subject']} | {verdict['mark']['title']} "
        f"| {verdict['found']['value']:.4g} | {verdict['mark']['limit']:g} "
        f"| {'held' if verdict['is_met'] else '**not held**'} |"
        for verdict in document["marks"]
    ]
    return "\n".join(
        [
            "# Routing when the edge goes away",
            "",
            f"{machine['date']}, commit `{machine['commit'][:12]}`"
            f"{' with local changes' if machine['has_local_changes'] else ''}, "
            f"{machine['cores']} processors; load average before: {machine['load_before'][0]:g}. "
            "One run. Raw results: [routing-faults.json](routing-faults.json).",
            "",
            "A cluster on one machine: the cloud tier, and an edge box with a fake Hailo device of "
            f"{1e3 * plan['device_s']:g} ms a frame, nearest and cheapest. {plan['rate']:g} "
            f"requests a second of its site, each with {plan['late_ms']} ms. All processes of the "
            f"box are stopped for {plan['partition_s']:g} s, then the device is {SLOWER:g} times "
            f"slower for {plan['slow_s']:g} s. The first 2 s after it went away are `going away`.",
            "",
            "| phase | requests | in time % | p50 ms | p99 ms | answered by |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"The box was used again {document['returned_s']:.1f} s after it was continued.",
            "",
            "| phase | what | found | limit | |",
            "|---|---|---|---|---|",
            *marks,
            "",
        ]
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
