"""One run of the simulator and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np

from load.routing.rules import SUBJECTS, Subject, taking_all
from load.simulator.run import Outcomes, Plan, Simulation
from load.simulator.trace import Trace
from load.simulator.world import Cut, Throttle, World, reference, reference_rates
from policies.cost import FREE, PriceBook, Rates, cost_of, standing

Fault = Literal["throttle", "cut"]
INTERACTIVE_S: Final = 0.5  # a deadline below this is that of somebody who waits
BINS: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
CUT_S: Final = 300.0
_BEGIN_S: Final = 20.0


@dataclass(frozen=True)
class Cell:
    """What to run.

    by_deadline: queues by deadline that drop the hopeless, else by arrival; hedge: requests that
    take long get a second copy.
    """

    trace: str
    utilisation: float
    by_deadline: bool
    subject: str
    seed: int
    fault: Fault = "throttle"
    hedge: bool = False


@dataclass(frozen=True)
class Result:
    """A run in figures; times in seconds, shares from 0 to 1, cost in dollars a request.

    joules, carbon_g: of computing, a request; standing_j: of nodes that waited, a request of all.
    misses: late, refused, dropped or lost; interactive: those of requests with short deadlines;
    calibration: for each bin of `BINS`, requests, mean predicted share, observed share; fault: the
    misses of requests that came while the site was cut off, dead_sends: to targets that were known
    to be out of reach; copies: sent besides, for each request; busy: seconds of work by all nodes
    for each request.
    """

    cell: Cell
    requests: int
    p50_s: float
    p95_s: float
    p99_s: float
    misses: float
    interactive: float
    cost_usd: float
    calibration: tuple[tuple[int, float, float], ...]
    cut_misses: float
    dead_sends: int
    joules: float = 0.0
    carbon_g: float = 0.0
    standing_j: float = 0.0
    copies: float = 0.0
    busy: float = 0.0

    def document(self) -> dict[str, Any]:
        return asdict(self)


def world_of(cell: Cell, duration_s: float, book: PriceBook | None = None) -> World:
    """Return the fleet with the fault of a cell: a slow node time and again, or a site cut off."""
    world = reference(book)
    if cell.fault == "cut":
        end_s = min(_BEGIN_S + CUT_S, 0.9 * duration_s)
        return replace(world, cuts=(Cut(world.sites[0], _BEGIN_S, end_s),))
    begins = np.arange(60.0, duration_s, 240.0).tolist()
    slow = tuple(Throttle(world.nodes[0].name, at, at + 60.0, 3.0) for at in begins)
    return replace(world, throttles=slow)


def run(
    trace: Trace, cell: Cell, subject: Subject | None = None, book: PriceBook | None = None
) -> Result:
    """Simulate a cell. subject: in place of the one it names; book: prices, if not the default."""
    subject = subject or SUBJECTS[cell.subject]
    rate = cell.utilisation * reference().capacity / len(reference().sites)
    world = world_of(cell, trace.scaled(rate).duration_s, book)
    plan = Plan(
        world=world,
        trace=trace,
        utilisation=cell.utilisation,
        rule=subject.rule if cell.by_deadline else taking_all(subject.rule),
        objective=subject.objective,
        discipline="edf" if cell.by_deadline else "fifo",
        drops=cell.by_deadline,
        load_in_replies=subject.replies,
        seed=cell.seed,
        probes=subject.probes,
        hedge=cell.hedge,
    )
    return _summary(cell, world, Simulation(plan).run(), reference_rates(book))


def run_all(
    traces: dict[str, Trace], cells: Sequence[Cell], processes: int, done: Callable[[int], None]
) -> list[Result]:
    """Simulate cells in several processes; results are in their order. done: told how many."""
    found: list[Result] = []
    with ProcessPoolExecutor(processes) as pool:
        for result in pool.map(partial(_one, traces), cells, chunksize=4):
            found.append(result)
            done(len(found))
    return found


def _one(traces: dict[str, Trace], cell: Cell) -> Result:
    return run(traces[cell.trace], cell)


def _summary(cell: Cell, world: World, found: Outcomes, rates: Mapping[str, Rates]) -> Result:
    is_answered = ~np.isnan(found.delay_s)
    is_late = ~is_answered | (np.nan_to_num(found.delay_s, nan=np.inf) > found.slack_s)
    delays = np.sort(found.delay_s[is_answered])
    p50, p95, p99 = np.percentile(delays, (50, 95, 99)).tolist()
    during = np.zeros(len(is_late), bool)
    for cut in world.cuts:
        during |= (found.arrived >= cut.begin_s) & (found.arrived < cut.end_s)
    requests = len(is_late)
    busy, waiting = FREE, FREE
    for name, share in found.busy.items():
        busy = busy.plus(cost_of(rates[name], share * found.duration_s, 0.0))
        waiting = waiting.plus(standing(rates[name], max(0.0, 1.0 - share) * found.duration_s))
    return Result(
        cell=cell,
        requests=requests,
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        misses=float(is_late.mean()),
        interactive=float(is_late[found.slack_s < INTERACTIVE_S].mean()),
        cost_usd=float(found.cost_usd.mean()),
        calibration=tuple(_calibration(found.late, is_late)),
        cut_misses=float(is_late[during].mean()) if during.any() else 0.0,
        dead_sends=found.dead_sends,
        joules=busy.joules / requests,
        carbon_g=busy.carbon_g / requests,
        standing_j=waiting.joules / requests,
        copies=found.copies / requests,
        busy=sum(found.busy.values()) * found.duration_s / requests,
    )


def _calibration(
    predicted: np.ndarray[Any, Any], is_late: np.ndarray[Any, Any]
) -> Iterable[tuple[int, float, float]]:
    for least, most in pairwise(BINS):
        chosen = (predicted >= least) & (predicted < most)
        count = int(chosen.sum())
        if count:
            yield count, float(predicted[chosen].mean()), float(is_late[chosen].mean())
        else:
            yield 0, 0.0, 0.0
