"""One simulated run and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from load.scaling.rules import SUBJECTS
from load.scaling.shapes import DAY_S, SHAPES, SHORT_DAY_S
from load.scaling.simulation import COLD_S, PATIENCE_S, WORK_PER_S, Plan, Traffic, simulate
from load.simulator.trace import Trace, calm, diurnal, read_azure
from policies.scaling import Season

Variant = Literal["plain", "refusing", "slow_start", "slower"]
LOAD: Final = 5.0  # replicas that the mean of the work would keep fully busy
SLOW_S: Final = 40.0
SLOWER: Final = 1.5
GENERATED: Final[Mapping[str, Callable[[int, float], Trace]]] = {
    "seasonal": diurnal,
    "calm": calm,
    **SHAPES,
}
VARIANTS: Final[Mapping[Variant, str]] = {
    "plain": "",
    "refusing": ", what waited for 0.5 s is refused",
    "slow_start": f", cold start of {SLOW_S:g} s",
    "slower": f", replicas {SLOWER:g} x slower from the middle on",
}


@dataclass(frozen=True)
class Cell:
    """What to run. trace: a name of `GENERATED`, or the file of a recorded one."""

    trace: str
    variant: Variant
    subject: str
    seed: int


@dataclass(frozen=True)
class Result:
    """A run in figures. misses: share of requests; replicas: mean of those paid for; trusted: share
    of the time in which a forecast was followed; changes: of the number of replicas; curve: means
    over 60 s of (work in replicas, replicas), of the first seed only.
    """

    cell: Cell
    requests: int
    misses: float
    replicas: float
    trusted: float
    changes: int
    p99_wait_s: float
    reasons: Mapping[str, int]
    curve: tuple[tuple[float, float], ...]

    def document(self) -> dict[str, Any]:
        return asdict(self)


def season_of(trace: str, cold_s: float) -> Season:
    """Return the season a rule is told of: a day, right or wrong."""
    return Season.of(SHORT_DAY_S if trace == "weekly" else DAY_S, cold_s)


def run(cell: Cell) -> Result:
    """Simulate a cell."""
    slower = SLOWER if cell.variant == "slower" else 1.0
    traffic = _traffic(cell.trace, cell.seed, slower)
    subject = SUBJECTS[cell.subject]
    cold_s = SLOW_S if cell.variant == "slow_start" else COLD_S
    found = simulate(
        Plan(
            traffic=traffic,
            rule=subject.make(traffic, cold_s),
            season=season_of(cell.trace, cold_s) if subject.has_season else None,
            cold_s=cold_s,
            refuse_s=PATIENCE_S if cell.variant == "refusing" else None,
            seed=cell.seed,
        )
    )
    waits = sorted(found.waits[found.waits >= 0].tolist())
    whole = len(found.came) // 60 * 60
    work = (found.came / traffic.capacity())[:whole].reshape(-1, 60).mean(axis=1)
    there = found.replicas[:whole].reshape(-1, 60).mean(axis=1)
    curve = zip(work.round(3).tolist(), there.round(3).tolist(), strict=True)
    return Result(
        cell=cell,
        requests=len(traffic.times),
        misses=found.misses,
        replicas=float(found.replicas.mean()),
        trusted=found.trusted,
        changes=found.changes,
        p99_wait_s=waits[int(0.99 * (len(waits) - 1))],
        reasons=found.reasons,
        curve=tuple(curve) if cell.seed == 1 else (),
    )


def run_all(cells: Sequence[Cell], processes: int, done: Callable[[int], None]) -> list[Result]:
    """Simulate cells in several processes; results are in their order. done: told how many."""
    found: list[Result] = []
    with ProcessPoolExecutor(processes) as pool:
        for result in pool.map(run, cells, chunksize=4):
            found.append(result)
            done(len(found))
    return found


@cache
def _recorded(file: str) -> Trace:
    return read_azure(Path(file))


def _traffic(name: str, seed: int, slower: float) -> Traffic:
    make = GENERATED.get(name)
    trace = make(seed, LOAD * WORK_PER_S) if make else _recorded(name)
    return Traffic.of(trace, LOAD, seed, slower)
