"""Latency against cost and carbon for one trace: `python -m load.routing.pareto --trace FILE`.

Simulates the reference fleet under our rule with one budget of risk after the other (the share of
requests that may be late for a lower price; 0 is the objective `latency`), and under classical
rules. Writes NAME.json (raw), NAME.md (a table) and NAME.svg (delays and misses over cost and over
carbon, each with its front) below the output folder, and prints the table. One seed and one
utilisation unless told otherwise: differences of a few percent are noise. Exit status 2 when the
trace or the price book cannot be read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from cluster.cost.prices import read_book
from edge_runtime.errors import PrimeSparkError
from load.bench.machine import describe
from load.routing.__main__ import CALM_SEED, CHECKOUT
from load.routing.cells import Cell, Result, run
from load.routing.plot import Point, draw_panels, front
from load.routing.rules import SERIOUS, SUBJECTS, Subject
from load.simulator.trace import Trace, calm, read_azure
from policies.cost import PriceBook
from policies.routing import WEIGHTS, Objective, choose

RISKS: Final = (0.0, 0.001, 0.004, 0.01, 0.02, 0.05, 0.1)
OURS: Final = frozenset({"latency", "balanced", "cost"})
COMPARED: Final = tuple(name for name in SERIOUS if name not in OURS)
BOUND: Final = "omniscient"

Figure = Callable[[Result], float]
# What is drawn: cost and carbon to the right, delays and misses upwards.
ACROSS: Final[Mapping[str, Figure]] = {
    "micro-dollars a request": lambda result: 1e6 * result.cost_usd,
    "milligrams of CO2e a request": lambda result: 1e3 * result.carbon_g,
}
UPWARDS: Final[Mapping[str, Figure]] = {
    "p50, ms": lambda result: 1e3 * result.p50_s,
    "p95, ms": lambda result: 1e3 * result.p95_s,
    "p99, ms": lambda result: 1e3 * result.p99_s,
    "misses, %": lambda result: 100 * result.misses,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, draw and write; 0 when that worked."""
    parser = argparse.ArgumentParser(
        prog="load.routing.pareto",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="CSV of the Azure LLM inference family; generated calm traffic when left out",
    )
    parser.add_argument(
        "--risks",
        type=_shares,
        default=RISKS,
        metavar="SHARE,...",
        help="budgets of risk to try, 0 to 1 (default: 0,0.001,0.004,0.01,0.02,0.05,0.1)",
    )
    parser.add_argument("--utilisation", type=float, default=0.6, help="0.6 is 60 %% (default)")
    parser.add_argument("--prices", type=Path, metavar="FILE", help="a price book of your own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--out", type=Path, default=Path(), help="folder; the present one")
    parser.add_argument("--name", default="pareto", help="of the files written")
    options = parser.parse_args(arguments)
    if not 0.0 < options.utilisation <= 2.0 or options.processes < 1:
        parser.error("a utilisation above 0, 2 at most, and at least one process")
    try:
        trace = read_azure(options.trace) if options.trace else calm(CALM_SEED)
        book = read_book(options.prices)
        options.out.mkdir(parents=True, exist_ok=True)
    except (PrimeSparkError, OSError) as error:
        print(f"load.routing.pareto: {error}", file=sys.stderr)
        return 2
    began = time.monotonic()
    results = sweep(
        trace, book, options.risks, options.utilisation, options.seed, options.processes
    )
    document = {
        "machine": describe(CHECKOUT),
        "trace": trace.name,
        "utilisation": options.utilisation,
        "seed": options.seed,
        "took_s": time.monotonic() - began,
        "points": [_point(result, results) for result in results],
    }
    text = table(results)
    stem = options.out / options.name
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    _draw(stem.with_suffix(".svg"), trace, results)
    print(json.dumps(document, indent=1) if options.json else text, end="")
    print(f"{stem}.svg, .md and .json, {document['took_s']:.0f} s", file=sys.stderr)
    return 0


def sweep(
    trace: Trace,
    book: PriceBook,
    risks: Sequence[float],
    utilisation: float,
    seed: int,
    processes: int,
) -> list[Result]:
    """Simulate every budget of risk and every rule to compare with, in this order."""
    cells = [
        Cell(trace.name, utilisation, True, name, seed)
        for name in (*(named(risk) for risk in risks), *COMPARED)
    ]
    found: list[Result] = []
    with ProcessPoolExecutor(processes) as pool:
        for result in pool.map(partial(_one, trace, book, tuple(risks)), cells):
            found.append(result)
            end = "\n" if len(found) == len(cells) else ""
            print(f"\r{len(found)} of {len(cells)} runs", end=end, file=sys.stderr, flush=True)
    return found


def named(risk: float) -> str:
    """Return the name of our rule with a budget of risk, that of its objective where it is one."""
    for objective, weights in WEIGHTS.items():
        if weights.budget == risk:
            return f"{objective} ({risk:g})"
    return f"risk {risk:g}"


def with_risk(risk: float) -> Subject:
    """Return our rule with a budget of risk."""
    objective: Objective = "balanced"
    weights = {**WEIGHTS, objective: replace(WEIGHTS[objective], budget=risk)}
    return Subject(partial(choose, weights=weights), objective, replies=True)


def _one(trace: Trace, book: PriceBook, risks: Sequence[float], cell: Cell) -> Result:
    ours = {named(risk): with_risk(risk) for risk in risks}
    return run(trace, cell, ours.get(cell.subject) or SUBJECTS[cell.subject], book)


def is_on_front(result: Result, results: Sequence[Result], across: Figure, up: Figure) -> bool:
    """True when no other rule beats a result in both figures; the omniscient router is no rule."""
    rules = [one for one in results if one.cell.subject != BOUND]
    line = front([(across(one), up(one)) for one in rules])
    return result.cell.subject != BOUND and (across(result), up(result)) in line


def table(results: Sequence[Result]) -> str:
    """Return the results as a Markdown table; a star: nobody beats it in misses and that price."""
    misses = UPWARDS["misses, %"]
    lines = [
        "| rule | p50 ms | p95 ms | p99 ms | misses % | micro-$ | mg CO2e | J | J idle |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        cells = [f"{up(result):.4g}" for up in UPWARDS.values()]
        for across in ACROSS.values():
            star = "*" if is_on_front(result, results, across, misses) else ""
            cells.append(f"{across(result):.4g}{star}")
        cells += [f"{result.joules:.3g}", f"{result.standing_j:.3g}"]
        lines.append(f"| {result.cell.subject} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _point(result: Result, results: Sequence[Result]) -> dict[str, Any]:
    fronts = {
        f"{up_name} over {name}": is_on_front(result, results, across, up)
        for name, across in ACROSS.items()
        for up_name, up in UPWARDS.items()
    }
    return {**result.document(), "on_front": fronts}


def _draw(path: Path, trace: Trace, results: Sequence[Result]) -> None:
    rows = [
        [
            [
                Point(
                    result.cell.subject,
                    across(result),
                    up(result),
                    result.cell.subject not in COMPARED,
                    result.cell.subject == BOUND,
                )
                for result in results
            ]
            for up in UPWARDS.values()
        ]
        for across in ACROSS.values()
    ]
    title = f"{trace.name}, {results[0].cell.utilisation:.0%}"
    labels = [[(across, up) for up in UPWARDS] for across in ACROSS]
    titles = [[title] * len(UPWARDS)] * len(ACROSS)
    draw_panels(path, rows, titles, labels, is_from_zero=False)


def _shares(text: str) -> tuple[float, ...]:
    try:
        found = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"numbers with commas between them, not '{text}'"
        ) from None
    if not all(0.0 <= share <= 1.0 for share in found):
        raise argparse.ArgumentTypeError("shares are from 0 to 1")
    return found


if __name__ == "__main__":
    sys.exit(main())
