"""`python -m load.fuzz`: send malformed requests to a live server and judge its answers.

Ends with 1 when anything was answered with a 5xx other than 503 and 504, or with a gRPC code
that means a broken server, or not within the patience, or when the connection was dropped
without need; with `--pids` also when memory does not come back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from load.access import NoGateway
from load.fuzz.cluster import fill_in
from load.fuzz.memory import resident_bytes, settled_bytes
from load.fuzz.run import Findings, Target, attack
from load.fuzz.seeds import find_seeds

MAX_GROWTH: Final = 0.10
SETTLE_S: Final = 30.0
TOLD_EVERY: Final = 2_000
WARM_UP_SEED_SHIFT: Final = 1_000_003  # so that the warm-up sends other attacks


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        fill_in(options, ("infer", "models:write"))
    except NoGateway as error:
        print(error, file=sys.stderr)
        return 1
    credentials = {"authorization": f"Bearer {options.token}"}
    rest = urlsplit(options.rest).netloc
    seeds = find_seeds(options.rest, credentials)
    target = Target(rest, options.grpc, credentials, seeds)
    names = ", ".join(seed.model for seed in seeds)
    print(f"models {names} at {options.rest}, gRPC {options.grpc or 'not attacked'}", flush=True)

    def progress(number: int) -> None:
        if number and number % TOLD_EVERY == 0:
            print(f"{number} attacks sent", file=sys.stderr, flush=True)

    def run(seed: int, numbers: Sequence[int]) -> Findings:
        return asyncio.run(
            attack(target, seed, numbers, options.connections, options.patience, progress)
        )

    if options.only is not None:
        findings = run(options.seed, [options.only])
        _print(findings, 0.0)
        return bool(findings.violations)
    run(options.seed + WARM_UP_SEED_SHIFT, range(options.warm_up))
    before = resident_bytes(options.pids) if options.pids else None
    began = time.monotonic()
    findings = run(options.seed, range(options.requests))
    taken_s = time.monotonic() - began
    growth = None
    if before is not None:
        after = settled_bytes(options.pids, before * (1 + MAX_GROWTH), SETTLE_S)
        growth = after / before - 1
        print(f"memory {before / 2**20:.1f} MiB before, {after / 2**20:.1f} after: {growth:+.1%}")
    _print(findings, taken_s)
    if options.json:
        options.json.write_text(json.dumps(_report(options, findings, taken_s, growth), indent=2))
    return bool(findings.violations) or (growth or 0.0) > MAX_GROWTH


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m load.fuzz", description=__doc__)
    parser.add_argument("--rest", help="URL of the REST server (default: the cluster here)")
    parser.add_argument("--grpc", help="host:port of the gRPC server")
    parser.add_argument("--token", help="token with the scopes infer, models:write")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="send this attack of the seed alone")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--patience", type=float, default=10.0, help="seconds before it is a hang")
    parser.add_argument("--warm-up", type=int, default=1000, help="attacks before memory is read")
    parser.add_argument(
        "--pids", type=_pids, default=(), help="processes to watch, comma separated"
    )
    parser.add_argument("--json", type=Path, help="write the report there")
    return parser.parse_args(arguments)


def _pids(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def _print(findings: Findings, taken_s: float) -> None:
    total = findings.outcomes.total()
    counts = ", ".join(f"{outcome} {count}" for outcome, count in findings.outcomes.most_common())
    print(f"{total} attacks in {taken_s:.0f} s: {counts}")
    for kind, outcomes in sorted(findings.kinds.items()):
        each = ", ".join(f"{outcome} {count}" for outcome, count in outcomes.most_common())
        print(f"  {kind:30} {each}")
    for violation in findings.violations[:20]:
        print(f"VIOLATION {violation.outcome}: {violation.kind}, --only {violation.number}")
    print(f"{len(findings.violations)} violations")


def _report(
    options: argparse.Namespace, findings: Findings, taken_s: float, growth: float | None
) -> Mapping[str, Any]:
    return {
        "seed": options.seed,
        "requests": findings.outcomes.total(),
        "taken_s": round(taken_s, 1),
        "outcomes": dict(findings.outcomes),
        "kinds": {kind: dict(found) for kind, found in sorted(findings.kinds.items())},
        "violations": [
            {"number": v.number, "kind": v.kind, "outcome": v.outcome} for v in findings.violations
        ],
        "memory_growth": growth,
    }


if __name__ == "__main__":
    sys.exit(main())
