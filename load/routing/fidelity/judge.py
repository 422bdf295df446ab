"""Figures of a run, real or simulated, and whether one foresees the other."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from load.bench.stats import percentile
from load.edge.marks import Found, Mark, Verdict, judge

P50_WITHIN: Final = 0.15
P99_WITHIN: Final = 0.30
TIE: Final = 0.10  # rules whose real figures are nearer than this have no order


@dataclass(frozen=True, slots=True)
class Seen:
    """A request. slack_s: to its deadline; taken_s: to its answer, None without one in time."""

    slack_s: float
    taken_s: float | None
    target: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds to the answer at percentiles of those that were answered.

    mean_s: of all, a miss counted with all the time that it had; misses: share without an answer;
    share: of those answered, by place.
    """

    requests: int
    p50_s: float
    p95_s: float
    p99_s: float
    mean_s: float
    misses: float
    share: Mapping[str, float]

    @classmethod
    def of(cls, seen: Sequence[Seen]) -> Figures:
        """Raises ValueError when nobody was answered."""
        answered = [(one.taken_s, one.target) for one in seen if one.taken_s is not None]
        ordered = sorted(taken_s for taken_s, _ in answered)
        places = Counter(target for _, target in answered)
        return cls(
            requests=len(seen),
            p50_s=percentile(ordered, 0.50),
            p95_s=percentile(ordered, 0.95),
            p99_s=percentile(ordered, 0.99),
            mean_s=statistics.fmean(
                one.slack_s if one.taken_s is None else one.taken_s for one in seen
            ),
            misses=1.0 - len(answered) / len(seen),
            share={name: count / len(answered) for name, count in sorted(places.items())},
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """A rule at a utilisation: all rounds together, and each by itself."""

    subject: str
    utilisation: float
    real: Figures
    simulated: Figures
    real_rounds: Sequence[Figures]
    simulated_rounds: Sequence[Figures]


@dataclass(frozen=True, slots=True)
class Order:
    """How two rankings of rules agree. tau: Kendall's, over pairs that have an order in truth, 1
    where there is none; tied: pairs that have none; wrong: pairs the other way round.
    """

    tau: float
    pairs: int
    tied: int
    wrong: Sequence[tuple[str, str]]


def order(real: Mapping[str, Sequence[float]], simulated: Mapping[str, float]) -> Order:
    """Compare the order of rules by a figure (Kendall, "A New Measure of Rank Correlation", 1938).

    real: by rule, the figure of all rounds and then that of each, in which all rules had the same
    arrivals. Two rules whose figures are within a tenth, or whose rounds do not agree, have no
    order.
    """
    tied = pairs = 0
    wrong: list[tuple[str, str]] = []
    for one, other in combinations(sorted(real, key=lambda name: real[name][0]), 2):
        low, high = real[one], real[other]
        agree = all(a < b for a, b in zip(low[1:], high[1:], strict=True))
        if high[0] <= low[0] * (1.0 + TIE) or not agree:
            tied += 1
            continue
        pairs += 1
        if simulated[one] >= simulated[other]:
            wrong.append((one, other))
    return Order(1.0 - 2.0 * len(wrong) / pairs if pairs else 1.0, pairs, tied, wrong)


def orders(cells: Sequence[Cell]) -> Iterator[tuple[float, str, Order]]:
    """Yield, for each utilisation, how the order of rules agrees by two figures of theirs."""
    for utilisation in dict.fromkeys(cell.utilisation for cell in cells):
        those = [cell for cell in cells if cell.utilisation == utilisation]
        for title, key in (("mean time", "mean_s"), ("p99", "p99_s")):
            real = {
                c.subject: [getattr(one, key) for one in (c.real, *c.real_rounds)] for c in those
            }
            simulated = {c.subject: getattr(c.simulated, key) for c in those}
            yield utilisation, title, order(real, simulated)


def verdicts(cells: Sequence[Cell]) -> Iterator[Verdict]:
    """Judge every cell and, for each utilisation, the order."""
    for cell in cells:
        where = f"{cell.subject}, {cell.utilisation:.0%}"
        for name, within in (("p50", P50_WITHIN), ("p99", P99_WITHIN)):
            apart = [
                abs(getattr(simulated, f"{name}_s") / getattr(real, f"{name}_s") - 1.0)
                for simulated, real in (
                    (cell.simulated, cell.real),
                    *zip(cell.simulated_rounds, cell.real_rounds, strict=True),
                )
            ]
            mark = Mark(where, f"{name} simulated apart from real", "", "at_most", within)
            yield judge(mark, Found(apart[0], min(apart[1:]), max(apart[1:])))
    for utilisation, title, found in orders(cells):
        mark = Mark(f"{utilisation:.0%}", f"order of rules by {title}, tau", "", "at_least", 1.0)
        yield judge(mark, Found(found.tau, found.tau, found.tau))
