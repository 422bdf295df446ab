"""The demo: start a hybrid cluster, serve a real model through it, break it, mend it.

    python -m load.demo            (what `make demo` runs)

Every step is checked; the exit status is 0 only if accuracy through the gateway equals the
local accuracy on each tier, and no request failed while the edge node was killed and came back, and
while the accelerator of the edge box (a fake one) was taken away and put back.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from cluster.config import Settings, load_settings
from cluster.home import Home
from cluster.registry import EmbeddedRegistry
from load.demo import accelerator
from load.demo.accuracy import TierResult, accuracy, local_logits, measure
from load.demo.gateway import Access, GrpcCaller, RestCaller, command, command_json
from load.demo.traffic import Traffic
from serve_apps.model_sync import runnable_artifact

MODEL = "digits"
TIERS = ("edge", "cloud", "colocated")
RATE_PER_S = 20.0
BEFORE_KILL_S = 4.0
AFTER_KILL_S = 6.0
AFTER_RETURN_S = 4.0
RETURN_TIMEOUT_S = 90.0
PIPED_WIDTH = 120


def main() -> int:
    """Run the demo; 0 when every check held."""
    parser = argparse.ArgumentParser(prog="load.demo", description=__doc__)
    parser.parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
    began = time.monotonic()
    settings = load_settings(env=os.environ)
    home = Home.at(settings.home)
    try:
        console.rule("[bold]1  Start a hybrid cluster")
        command([*accelerator.flags(home), "up"], show=True)
        console.rule("[bold]2  Train and register a model, and serve it on every tier")
        _publish(console, home)
        access, status = _access()
        console.rule("[bold]3  The real test images, over REST and gRPC, on every tier")
        is_exact = _accuracy(console, home, access)
        console.rule("[bold]4  Kill the edge node under traffic, then bring it back")
        failed = _kill_and_return(console, settings, home, access)
        console.rule("[bold]5  Take the edge box's accelerator away under traffic (a fake Hailo-8)")
        failed += accelerator.show(console, settings, home, access, _data(home))
    except subprocess.CalledProcessError as error:
        console.print(
            f"[red]`prime-spark {' '.join(error.cmd[3:])}` failed:[/]\n{error.stderr or ''}"
        )
        return 1
    is_good = is_exact and failed == 0
    console.rule("[bold]Done" if is_good else "[bold red]Not as it should be")
    taken_s = time.monotonic() - began
    verdict = "exactly the local accuracy on every tier" if is_exact else "accuracy differs"
    console.print(f"{verdict}; {failed} failed requests; {taken_s:.0f} s\n")
    _what_next(console, status)
    return 0 if is_good else 1


def _publish(console: Console, home: Home) -> None:
    subprocess.run(
        [sys.executable, "-m", "train.zoo.publish", MODEL, "--home", str(home.root)], check=True
    )
    placement = ",".join(TIERS)
    command(["model", "serve", f"{MODEL}@production", "--placement", placement], show=True)


def _access() -> tuple[Access, Mapping[str, Any]]:
    status = command_json(["status"])
    token = command(["token"]).strip()
    endpoints = status["endpoints"]
    return (
        Access(
            rest=endpoints["rest"].removeprefix("http://"),
            grpc=endpoints["grpc"].removeprefix("grpc://"),
            token=token,
        ),
        status,
    )


def _test_set(home: Home) -> tuple[Any, Any]:
    data = _data(home)
    return data.test.images.astype(np.float32), data.test.labels


def _data(home: Home) -> Any:
    from train.zoo import digits

    return digits.load(home.root)


def _accuracy(console: Console, home: Home, access: Access) -> bool:
    images, labels = _test_set(home)
    registry = EmbeddedRegistry(home.registry)
    version = registry.resolve(MODEL, None)
    expected = local_logits(registry.artifact_path(runnable_artifact(version)), images)
    local = accuracy(expected, labels)
    console.print(f"{MODEL}:{version.version}, {len(images)} images, local accuracy {local:.4f}")
    callers = (RestCaller(access), GrpcCaller(access))
    results: list[TierResult] = []
    columns = (TextColumn("{task.description:18}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        total = len(images) * len(TIERS) * len(callers)
        task = progress.add_task("", total=total)

        def advance(what: str) -> None:
            progress.update(task, advance=1, description=what)

        results.extend(measure(callers, TIERS, MODEL, images, labels, expected, advance))
    for caller in callers:
        caller.close()
    table = Table("tier", "protocol", "accuracy", "as local", "p50 ms", "p95 ms", "target, reason")
    for result in results:
        where = "; ".join(f"{t}, {r} ({n})" for t, r, n in result.targets)
        table.add_row(
            result.tier,
            result.protocol,
            f"{result.accuracy:.4f}",
            "exactly" if result.is_exact else "[red]no",
            f"{result.p50_ms:.2f}",
            f"{result.p95_ms:.2f}",
            where,
        )
    console.print(table)
    return all(result.is_exact and result.accuracy == local for result in results)


def _kill_and_return(console: Console, settings: Settings, home: Home, access: Access) -> int:
    images, _ = _test_set(home)
    edge = f"edge/{settings.edge.site}"
    traffic = Traffic(access, MODEL, images, settings.edge.site, RATE_PER_S)
    traffic.start()
    try:
        time.sleep(BEFORE_KILL_S)
        killed_s = traffic.elapsed_s
        command(["node", "kill", "edge"])
        console.print(f"{killed_s:5.1f} s  the edge node was killed (SIGKILL)")
        time.sleep(AFTER_KILL_S)
        command([*accelerator.flags(home), "node", "start", "edge"])
        console.print(f"{traffic.elapsed_s:5.1f} s  a new edge node has joined")
        returned_s = _wait_for_return(traffic, edge, killed_s)
        if returned_s is None:
            console.print(f"[red]the edge did not serve again within {RETURN_TIMEOUT_S:.0f} s")
        else:
            console.print(f"{returned_s:5.1f} s  the edge serves again")
            time.sleep(AFTER_RETURN_S)
    finally:
        traffic.stop()
    _show_traffic(console, traffic, killed_s, returned_s, edge)
    return len(traffic.failures) + (returned_s is None)


def _wait_for_return(traffic: Traffic, edge: str, killed_s: float) -> float | None:
    from_s = traffic.elapsed_s
    while traffic.elapsed_s - from_s < RETURN_TIMEOUT_S:
        if traffic.served_by(from_s)[edge]:
            return traffic.elapsed_s
        time.sleep(0.2)
    return None


def _show_traffic(
    console: Console, traffic: Traffic, killed_s: float, returned_s: float | None, edge: str
) -> None:
    table = Table("span", "requests", "failed", "served by", "slowest ms")
    bounds = [("before the kill", 0.0, killed_s), ("edge gone", killed_s, returned_s or 1e9)]
    if returned_s is not None:
        bounds.append(("edge back", returned_s, 1e9))
    for name, since_s, until_s in bounds:
        samples = [s for s in traffic.samples if since_s <= s.at_s < until_s]
        served = traffic.served_by(since_s, until_s)
        table.add_row(
            name,
            str(len(samples)),
            str(sum(s.error is not None for s in samples)),
            ", ".join(f"{target or 'nobody'} {count}" for target, count in served.most_common()),
            f"{max((s.taken_ms for s in samples), default=0.0):.0f}",
        )
    console.print(table)
    for sample in traffic.failures[:5]:
        console.print(f"[red]{sample.at_s:.2f} s: {sample.error}")


def _what_next(console: Console, status: Mapping[str, Any]) -> None:
    endpoints = status["endpoints"]
    rest, dashboard = endpoints["rest"], endpoints["dashboard"]
    zeros = ",".join(["0"] * 64)
    prefix = _shortest(Path(sys.executable).parent / "prime-spark")
    console.print("The cluster goes on running. Try:\n")
    console.print(
        f"  curl -s {rest}/v2/models/{MODEL}/infer"
        f' -H "Authorization: Bearer $({prefix} token)"'
        f' -d \'{{"inputs":[{{"name":"image","datatype":"FP32","shape":[1,1,8,8],'
        f'"data":[{zeros}]}}]}}\'',
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    rows = (
        (f"{prefix} status", "nodes, targets, models, endpoints"),
        (f"{prefix} edge status", "the edge box: models, accelerator, what computes"),
        (f"{prefix} doctor", "who listens where, and who may call it"),
        (dashboard, f"Ray's dashboard; its token: {prefix} token --ray"),
        ("make load", "mixed traffic with a summary"),
        ("docs/tutorial/index.md", "where to go from here"),
        ("make down", "stop everything"),
    )
    width = max(len(what) for what, _ in rows)
    console.print()
    for what, why in rows:
        console.print(f"  {what:<{width}}  {why}", soft_wrap=True, highlight=False, markup=False)


def _shortest(program: Path) -> str:
    """Return a program's path as one would type it here."""
    here = Path.cwd()
    return str(program.relative_to(here)) if program.is_relative_to(here) else str(program)


if __name__ == "__main__":
    sys.exit(main())
