"""The simulator against a real cluster, side by side: `python -m load.routing.fidelity`.

Starts a cluster of its own on this machine: an edge box with a fake accelerator that waits, and a
cloud tier that computes, both with batches that pay. First it measures the simulator's parameters
there, each place by itself. Then a part of a trace is sent to it (open loop, each request when it
was due) with one routing rule after the other, at several utilisations, in rounds that begin at
different parts of the trace; and the same arrivals are replayed in the simulator with the same
rules and those parameters. What is measured while rules are judged never reaches the simulator,
but for what the gateway takes the places for when it starts (`prior_ms`).

A rule needs a restart, and all of it takes longer than one may want to wait: after --minutes it
ends, and the same call goes on from there (--state). When all is there it writes
routing-fidelity.json, .md and .svg; exit status 0 when every mark holds, 1 when one does not, 2
when a call was wrong, 3 when there is more to do.

examples:
  python -m load.routing.fidelity --trace trace.csv
  python -m load.routing.fidelity --rounds 1 --seconds 15 --utilisation 0.5 --subject latency
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from edge_runtime.errors import InvalidInput, PrimeSparkError
from load import owncluster
from load.bench.machine import describe
from load.edge.soak import line
from load.routing.fidelity.calibration import Parameters
from load.routing.fidelity.judge import Cell, Figures, Seen, orders, verdicts
from load.routing.fidelity.measure import SUBJECTS, arrivals_of, measure_all
from load.routing.fidelity.page import draw, markdown, table
from load.routing.fidelity.replayed import Stretch, simulate
from load.simulator.trace import Trace, calm, read_azure

CHECKOUT: Final = Path(__file__).resolve().parents[3]
USUAL: Final = ("latency", "balanced", "weighted_least_outstanding", "random")
CALM_SEED: Final = 29


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing; judge and write when nothing is."""
    options = _parser().parse_args(arguments)
    owncluster.end_when_told()
    try:
        trace = read_azure(options.trace) if options.trace else calm(CALM_SEED)
        plan = _plan(options, trace)
    except (PrimeSparkError, OSError) as error:
        print(f"fidelity: {error}", file=sys.stderr)
        return 2
    state = _read(options.state, plan)
    until = time.monotonic() + 60.0 * options.minutes
    try:
        is_done = measure_all(plan, trace, state, options.state, until)
    except (PrimeSparkError, OSError) as error:
        print(f"fidelity: the run ended early: {error}", file=sys.stderr)
        return 1
    if not is_done:
        print(f"fidelity: not all yet; the same call goes on ({options.state})", file=sys.stderr)
        return 3
    document = _judged(plan, trace, state)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.name}.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.out / f"{options.name}.md").write_text(markdown(options.name, document))
    draw(options.out / f"{options.name}.svg", document)
    print("\n".join(table(document)))
    for verdict in document["marks"]:
        print(line(verdict))
    return 0 if all(verdict["is_met"] for verdict in document["marks"]) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="load.routing.fidelity",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add = parser.add_argument
    add("--trace", type=Path, metavar="FILE", help="Azure LLM trace; default: calm, generated")
    add("--utilisation", type=float, action="append", metavar="SHARE",
        help="of the capacity without batching; default 0.35, 0.7")  # fmt: skip
    add("--subject", action="append", choices=sorted(SUBJECTS), metavar="RULE",
        help=f"of {', '.join(SUBJECTS)};\ndefault {', '.join(USUAL)}")  # fmt: skip
    add("--rounds", type=int, default=3, help="each with another part of the trace; default 3")
    add("--seconds", type=float, default=30.0, help="that are judged, of each run; default 30")
    add("--lead", type=float, default=3.0, help="seconds before that are not; default 3")
    add("--edge-ms", type=float, default=90.0, help="a row on the edge's device; default 90")
    add("--edge-further-ms", type=float, default=40.0,
        help="each more of a batch there; default 40")  # fmt: skip
    add("--cloud-ms", type=float, default=30.0, help="a row in the cloud, roughly; default 30")
    add("--cloud-fixed", type=float, default=0.5, help="share that a batch takes once; default 0.5")
    add("--simulations", type=int, default=3, help="of each run, by seed; default 3")
    add("--minutes", type=float, default=7.5, help="after which no more is begun; default 7.5")
    add("--state", type=Path, default=Path(tempfile.gettempdir()) / "routing-fidelity-state.json",
        help="what was measured so far; another plan begins it anew")  # fmt: skip
    add("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    add("--name", default="routing-fidelity", help="of the files written")
    return parser


def _plan(options: argparse.Namespace, trace: Trace) -> dict[str, Any]:
    utilisations = options.utilisation or [0.35, 0.7]
    if not all(0.0 < one <= 2.0 for one in utilisations):
        raise InvalidInput("a utilisation is above 0 and at most 2", field="utilisation")
    if min(options.rounds, options.simulations) < 1 or not 0 <= options.lead < options.seconds:
        raise InvalidInput("at least one round and simulation, and more seconds than lead")
    return {
        "trace": trace.name,
        "utilisations": utilisations,
        "subjects": options.subject or list(USUAL),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "lead": options.lead,
        "simulations": options.simulations,
        "shape": [
            options.edge_ms / 1e3,
            options.edge_further_ms / 1e3,
            options.cloud_ms / 1e3,
            options.cloud_fixed,
        ],
    }


def _read(path: Path, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was measured for this plan so far."""
    try:
        state: dict[str, Any] = json.loads(path.read_text("utf-8"))
        measured = {k: v for k, v in state["plan"].items() if k != "simulations"}
        if measured == {k: v for k, v in plan.items() if k != "simulations"}:
            return state
    except (OSError, ValueError, KeyError):
        pass
    return {"plan": plan, "machine": describe(CHECKOUT), "took_s": 0.0, "turns": {}}


def _judged(plan: Mapping[str, Any], trace: Trace, state: Mapping[str, Any]) -> dict[str, Any]:
    """Replay everything in the simulator and compare."""
    real: dict[tuple[str, float], list[list[Seen]]] = {}
    simulated: dict[tuple[str, float], list[list[Seen]]] = {}
    for name, turn in sorted(state["turns"].items()):
        number, rule = name.split()
        for run, seen in zip(
            turn["runs"],
            _simulated(plan, trace, state["capacity"], int(number), rule, turn),
            strict=True,
        ):
            key = run["subject"], run["utilisation"]
            real.setdefault(key, []).append([Seen(*one) for one in run["seen"]])
            simulated.setdefault(key, []).append(seen)
    cells = [
        Cell(
            subject,
            utilisation,
            Figures.of([one for seen in real[subject, utilisation] for one in seen]),
            Figures.of([one for seen in simulated[subject, utilisation] for one in seen]),
            [Figures.of(seen) for seen in real[subject, utilisation]],
            [Figures.of(seen) for seen in simulated[subject, utilisation]],
        )
        for utilisation in plan["utilisations"]
        for subject in plan["subjects"]
    ]
    return {
        "machine": state["machine"],
        "plan": plan,
        "took_s": state["took_s"],
        "capacity": state["capacity"],
        "parameters": {name: turn["parameters"] for name, turn in state["turns"].items()},
        "priors_s": {name: turn["priors_s"] for name, turn in state["turns"].items()},
        "client_late_p99_ms": max(
            run["client_late_p99_ms"] for turn in state["turns"].values() for run in turn["runs"]
        ),
        "cells": [asdict(cell) for cell in cells],
        "orders": [
            {"utilisation": utilisation, "by": by, **asdict(found)}
            for utilisation, by, found in orders(cells)
        ],
        "marks": [asdict(verdict) for verdict in verdicts(cells)],
    }


def _simulated(
    plan: Mapping[str, Any],
    trace: Trace,
    capacity: float,
    number: int,
    rule: str,
    turn: Mapping[str, Any],
) -> list[list[Seen]]:
    """Return what becomes of each run of a turn in the simulator, all seeds together."""
    parameters = Parameters.of(turn["parameters"])
    stretches = [
        Stretch(
            run["begins_s"],
            SUBJECTS[run["subject"]][1],
            [
                replace(one, at_s=sent_s)
                for one, sent_s in zip(
                    arrivals_of(plan, trace, capacity, run["utilisation"], number),
                    run["sent_s"],
                    strict=True,
                )
            ],
        )
        for run in turn["runs"]
    ]
    edge = next(place.site for place in parameters.places if place.tier == "edge")
    found: list[list[Seen]] = [[] for _ in stretches]
    for seed in range(1, plan["simulations"] + 1):
        by_run = simulate(
            parameters, turn["priors_s"], stretches, rule,
            origin_site=edge, judged_from_s=plan["lead"], seed=seed,
        )  # fmt: skip
        for those, more in zip(found, by_run, strict=True):
            those += more
    return found


if __name__ == "__main__":
    sys.exit(main())
