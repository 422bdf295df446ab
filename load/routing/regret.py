"""What the learned rule costs, and what it is worth: `python -m load.routing.regret`.

Replays the same requests with each rule and with an omniscient router, and adds up by how much each
rule's cost is more (regret). The cost of a request is its price, and --miss-usd for a missed
deadline. The omniscient routers are greedy: one takes the shortest true delay, one the least score
of the default rule with true delays; who is cheaper over all seeds is what is compared with. It is
no true optimum, so regret may be below nothing.

Traffic: recorded traces (--trace) and generated calm traffic in the fleet of the benchmarks, calm
traffic in a world that drifts, in one where edge and cloud take turns at being slow, and with a
model that for a while is told the contrary of what it says. Writes NAME.json, NAME.md and NAME.svg
below the output folder. Exit status 2 when a trace cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import PrimeSparkError
from load.bench.machine import describe
from load.options import add_traces
from load.routing.regret_page import draw, markdown
from load.routing.rules import SUBJECTS, Subject
from load.routing.scenarios import WORLDS, Misled
from load.simulator.run import Plan, Simulation
from load.simulator.trace import Trace, calm, read_azure
from load.simulator.world import reference
from policies.routing import Decision, Outcome, Request, RoutingTable, learned
from policies.routing.learned import LEARNED

CHECKOUT: Final = Path(__file__).resolve().parents[2]
CALM_SEED: Final = 29
BINS: Final = 60  # of time, in what is written
RULES: Final = (
    "learned",
    "balanced",
    "learned_latency",
    "latency",
    "weighted_least_outstanding",
    "shortest_delay",
)
ORACLES: Final[dict[str, Literal["delay", "cost"]]] = {
    "omniscient, delay": "delay",
    "omniscient, cost": "cost",
}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """What is replayed. world: a name of `scenarios.WORLDS`; is_misled: models are told lies."""

    name: str
    trace: Trace
    world: str
    is_misled: bool = False


@dataclass(frozen=True, eq=False)
class Run:
    """One rule's run. at_s, usd, missed: by request, in order of arrival.

    decisions: at what time, whether the model was believed, whether it changed the choice; none
    where no model decides.
    """

    at_s: Floats
    usd: Floats
    missed: Floats
    decisions: Sequence[tuple[float, bool, bool]]

    def cost(self, miss_usd: float) -> Floats:
        """Return dollars by request. miss_usd: of a missed deadline."""
        found: Floats = self.usd + miss_usd * self.missed
        return found


def run(scenario: Scenario, utilisation: float, name: str, seed: int) -> Run:
    """Simulate one rule or oracle, queues by deadline that drop the hopeless."""
    decisions: list[tuple[float, bool, bool]] = []
    subject = Subject(None) if name in ORACLES else SUBJECTS[name]
    rule = subject.rule

    def watched(request: Request, table: RoutingTable, now: float) -> Outcome:
        if scenario.is_misled and table.learner is None and rule is learned.choose:
            table.learner = Misled()
        outcome = subject.rule(request, table, now)  # type: ignore[misc]
        if table.learner is not None:
            is_changed = isinstance(outcome, Decision) and outcome.reason == LEARNED
            is_believed = table.learner.is_believed(request.objective)
            decisions.append((now, is_believed, is_changed))
        return outcome

    fleet = reference()
    scaled = scenario.trace.scaled(utilisation * fleet.capacity / len(fleet.sites))
    found = Simulation(
        Plan(
            world=WORLDS[scenario.world](scaled.duration_s),
            trace=scenario.trace,
            utilisation=utilisation,
            rule=None if rule is None else watched,
            objective=subject.objective,
            discipline="edf",
            drops=True,
            load_in_replies=subject.replies,
            seed=seed,
            oracle=ORACLES.get(name, "delay"),
        )
    ).run()
    is_late = ~(found.delay_s <= found.slack_s)
    return Run(found.arrived, found.cost_usd, is_late.astype(np.float64), decisions)


def summary(
    runs: dict[str, list[Run]], oracle: str, miss_usd: float, sensitivity: Sequence[float]
) -> dict[str, Any]:
    """Return the figures of a scenario: means over seeds, regret against one of the runs.

    regret_usd: of a request, by seed; curve_usd: cumulative regret over the time of `BINS` equal
    parts, mean over seeds.
    """
    bound = runs[oracle]
    found: dict[str, Any] = {}
    for name, ours in runs.items():
        found[name] = {
            "misses": float(np.mean([r.missed.mean() for r in ours])),
            "usd": float(np.mean([r.usd.mean() for r in ours])),
            "regret_usd": [_regret(a, b, miss_usd) for a, b in zip(ours, bound, strict=True)],
            "regret_by_miss_usd": {
                f"{price:g}": float(
                    np.mean([_regret(a, b, price) for a, b in zip(ours, bound, strict=True)])
                )
                for price in sensitivity
            },
            "curve_usd": np.mean(
                [_curve(a, b, miss_usd) for a, b in zip(ours, bound, strict=True)], axis=0
            ).tolist(),
            "believed": _shares([r.decisions for r in ours], 1),
            "changed": _shares([r.decisions for r in ours], 2),
        }
    return found


def cheapest(runs: dict[str, list[Run]], names: Sequence[str], miss_usd: float) -> str:
    """Return which of some runs cost least in all."""
    return min(names, key=lambda name: sum(float(r.cost(miss_usd).sum()) for r in runs[name]))


def _regret(ours: Run, bound: Run, miss_usd: float) -> float:
    return float((ours.cost(miss_usd) - bound.cost(miss_usd)).mean())


def _curve(ours: Run, bound: Run, miss_usd: float) -> Floats:
    lost = np.cumsum(ours.cost(miss_usd) - bound.cost(miss_usd))
    ends = np.linspace(0.0, ours.at_s[-1], BINS + 1)[1:]
    found: Floats = lost[np.searchsorted(ours.at_s, ends, "right") - 1]
    return found


def _shares(decisions: Sequence[Sequence[tuple[float, bool, bool]]], which: int) -> list[float]:
    """Return the share of decisions with a mark in each part of the time; [] without a model."""
    rows = np.array([row for one in decisions for row in one], np.float64)
    if not len(rows):
        return []
    part = np.minimum((rows[:, 0] / rows[:, 0].max() * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(part, minlength=BINS)
    marked = np.bincount(part, weights=rows[:, which], minlength=BINS)
    found: list[float] = (marked / np.maximum(counts, 1)).tolist()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate and write."""
    parser = argparse.ArgumentParser(
        prog="load.routing.regret",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    add_traces(parser)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--utilisation", type=float, default=0.6)
    parser.add_argument(
        "--calm-s", type=float, default=2400.0, help="seconds of calm traffic before scaling"
    )
    parser.add_argument(
        "--miss-usd",
        type=float,
        default=3e-4,
        help="what a missed deadline costs; default 0.0003, 15 times what the cloud costs more",
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="of a scenario, such as calm"
    )
    parser.add_argument("--json", action="store_true", help="print the results as well")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "benchmarks")
    parser.add_argument("--name", default="regret", help="of the files written")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error("at least one seed")
    if not 0.0 < options.utilisation <= 2.0:
        parser.error("--utilisation is above 0 and at most 2")
    if options.calm_s < 10.0 or not 0.0 <= options.miss_usd < np.inf:
        parser.error("--calm-s is at least 10, --miss-usd at least 0")
    try:
        traces = [read_azure(file) for file in options.trace]
    except (PrimeSparkError, OSError) as error:
        print(f"a trace cannot be read: {error}", file=sys.stderr)
        return 2
    quiet = calm(CALM_SEED, duration_s=options.calm_s)
    scenarios = [
        *(Scenario(trace.name, trace, "throttled") for trace in traces),
        Scenario("calm", quiet, "throttled"),
        Scenario("calm, drifting", quiet, "drifting"),
        Scenario("calm, swinging", quiet, "swinging"),
        Scenario("calm, misled", quiet, "throttled", is_misled=True),
    ]
    names = [scenario.name for scenario in scenarios]
    if not set(options.only) <= set(names):
        parser.error(f"--only is one of: {'; '.join(names)}")
    began = time.monotonic()
    document: dict[str, Any] = {
        "machine": describe(CHECKOUT),
        "plan": {
            "seeds": options.seeds,
            "utilisation": options.utilisation,
            "calm_s": options.calm_s,
            "miss_usd": options.miss_usd,
        },
        "scenarios": [
            _scenario(scenario, options)
            for scenario in scenarios
            if not options.only or scenario.name in options.only
        ],
    }
    document["took_s"] = time.monotonic() - began
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.name}.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.out / f"{options.name}.md").write_text(markdown(options.name, document))
    draw(options.out / f"{options.name}.svg", document)
    if options.json:
        print(json.dumps(document, indent=1))
    print(f"{options.out / options.name}.md, {document['took_s']:.0f} s", file=sys.stderr)
    return 0


def _scenario(scenario: Scenario, options: argparse.Namespace) -> dict[str, Any]:
    runs: dict[str, list[Run]] = {}
    for name in (*RULES, *ORACLES):
        print(f"{scenario.name}: {name}", file=sys.stderr, flush=True)
        seeds = range(1, options.seeds + 1)
        runs[name] = [run(scenario, options.utilisation, name, seed) for seed in seeds]
    oracle = cheapest(runs, list(ORACLES), options.miss_usd)
    sensitivity = (options.miss_usd / 3, options.miss_usd, 3 * options.miss_usd)
    return {
        "name": scenario.name,
        "oracle": oracle,
        "requests": len(runs[oracle][0].at_s),
        "duration_s": float(runs[oracle][0].at_s[-1]),
        "rules": summary(runs, oracle, options.miss_usd, sensitivity),
    }


if __name__ == "__main__":
    sys.exit(main())
