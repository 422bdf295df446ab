"""The default rule: the least expected cost of a request, lateness included.

For each target that may serve, the score in dollars is

    price + scarcity + risk * P(late) + overdue + haste + away

The price is of moving bytes and of work. P(late) is read from observed errors (`lateness`), never
from an assumed spread. The other terms keep a rule that looks at one request from harming those
that come after it:

- scarcity: a busy cheap place is worth more than its price to somebody who has nowhere else to go,
  so a part of the difference to the dearest place is added as it gets busier (bid prices of
  revenue management; Awerbuch, Azar, Plotkin, 1993, for routing);
- overdue: expected lateness in seconds; by price and risk alone everybody who is late anyway would
  go to the cheapest and slowest place;
- haste: the share of its time that a request uses up, so that it is not spent for nothing; and a
  little for leaving the caller's site, which settles what prices and delays leave open.

What a missed deadline is worth nobody can say in dollars. `balanced` and `cost` therefore have a
budget, the share of requests that may be late for the sake of a lower price, and the price of risk
follows from it: `table` raises it while decisions spend more than the budget and lowers it while
they spend less (a Lagrange multiplier by stochastic subgradient; Neely, "Stochastic Network
Optimization", 2010). `latency` looks at the expected delay alone.

A request that is likely late wherever it goes is refused at once (`refuse_at`) while there is work
ahead everywhere: it loses little that it still had, and those who can be served are spared. The
more time it has, the less likely it need be: it is late because queues are long, and would hold up
those who have come since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from policies.routing.columns import Columns
from policies.routing.delay import wait_s
from policies.routing.filters import EJECTED, SILENT, ruled_out
from policies.routing.lateness import corrected, late_share
from policies.routing.reliability import Line, corrected_share
from policies.routing.table import RoutingTable
from policies.routing.types import (
    Decision,
    Hopeless,
    NoTarget,
    Objective,
    Outcome,
    Request,
    Target,
    Verdict,
)

MIN_RETRY_S: Final = 0.1
SHOWN: Final = 8  # targets that are shown with a decision among very many
_LONG_S: Final = 1.0  # more time than this does not make a delay matter less
_NO_HURRY_S: Final = 10.0  # a deadline that only bounds the wait, such as the default one
_HURRY: Final = 4.0  # who has less than so many times what a request takes is in a hurry
_PATIENT: Final = 1.0 / 3.0  # the part of `refuse_at` that is enough to refuse who has much time
_LEAST_S: Final = 1e-9
_LEAST_USD: Final = 1e-12  # a price difference; without prices the other terms decide


@dataclass(frozen=True, slots=True)
class Weights:
    """What an objective counts.

    budget: the share of requests that may be late for a lower price; 0: the price is no matter,
    and the expected delay decides. scarcity: the part of the price difference that a place which
    is always busy adds; haste: of it for using up all the time that is left, or a second of it;
    away: of it for leaving the caller's site; overdue: of the price of risk for each second that
    it is expected to be late. refuse_at: the least P(late) with which a request in a hurry is
    refused where there is work ahead everywhere, down to a third of it for one that has much time;
    above 3 none is.
    """

    budget: float = 0.0
    scarcity: float = 0.8
    haste: float = 1.0
    away: float = 0.02
    overdue: float = 0.5
    refuse_at: float = 0.6


WEIGHTS: Final[Mapping[Objective, Weights]] = MappingProxyType(
    {"latency": Weights(), "balanced": Weights(budget=0.004), "cost": Weights(budget=0.02)}
)


def choose(
    request: Request,
    table: RoutingTable,
    now: float,
    weights: Mapping[Objective, Weights] = WEIGHTS,
) -> Outcome:
    """Choose a target; equal scores are settled by name, so that order is irrelevant."""
    weight = weights[request.objective]
    if table.columns is not None:
        among_many = _choose_among_many(request, table, table.columns, now, weight)
        if among_many is not None:
            return among_many
    found, plain_s, candidates, spares = _look(request, table, now)
    if not candidates:
        return _last_resort(found, spares) if spares else NoTarget(found)
    fastest_s = min([found[i].expected_s for i in candidates])
    least_late = min([found[i].late for i in candidates])
    if _refuses(weight, request, least_late, table.targets, candidates, now):
        if spares and _all_asleep(table.targets, candidates):
            return _last_resort(found, spares)
        return Hopeless(found, least_late, max(MIN_RETRY_S, fastest_s - request.slack_s))
    if len(candidates) == 1:
        reason = "only_candidate" if request.tier is None else "tier_requested"
        return _decision(found, candidates[0], reason, None)
    if weight.budget:
        risk_price = table.risk_price(request.objective)
        score = scores(request, table.targets, found, candidates, weight, risk_price)
        best = min(zip(score, [found[i].target for i in candidates], candidates, strict=True))[2]
        spent = (found[best].late - least_late) / weight.budget
    else:
        # Half of the correction: in full, a place that was misjudged is avoided and stays so.
        best = min(candidates, key=lambda i: (found[i].expected_s + plain_s[i], found[i].target))
        spent = None
    reason = _reason(request, found[best], table.targets[best].site, fastest_s)
    return _decision(found, best, reason, spent)


def _reason(request: Request, chosen: Verdict, site: str, fastest_s: float) -> str:
    if fastest_s > request.slack_s:
        return "least_late"
    if site == request.origin_site:
        return "origin_site"
    is_fastest = request.objective == "latency" or chosen.expected_s <= fastest_s
    return "least_expected" if is_fastest else "least_cost"


def _look(
    request: Request, table: RoutingTable, now: float
) -> tuple[tuple[Verdict, ...], list[float], list[int], list[int]]:
    """Return what is found of each target, and the indexes of those that may, and might, serve.

    Second are the expected seconds without the correction by the usual error.
    """
    verdicts: list[Verdict] = []
    plain: list[float] = []
    candidates: list[int] = []
    spares: list[int] = []
    line = table.reliability(request.slack_s)
    for index, target in enumerate(table.targets):
        verdict, plain_s = look(request, target, line, now)
        verdicts.append(verdict)
        plain.append(plain_s)
        if verdict.ruled_out is None:
            candidates.append(index)
        elif verdict.ruled_out in (SILENT, EJECTED):
            spares.append(index)
    return tuple(verdicts), plain, candidates, spares


def look(request: Request, target: Target, line: Line, now: float) -> tuple[Verdict, float]:
    """Return what is found of a target, and expected seconds without the usual error's correction.

    line: what shares of past errors are put through (`RoutingTable.reliability`).
    """
    rtt_s, service_s = target.rtt_s, target.service_s
    left_s = request.slack_s - rtt_s
    work_s = service_s * target.sizes[request.bucket] if target.sizes else service_s
    there_s = wait_s(target, left_s, now) + work_s
    expected_s = rtt_s + corrected(target.bias, there_s, service_s)
    late = corrected_share(line, late_share(target.errors, there_s, service_s, left_s))
    usd = target.usd + target.usd_per_s * work_s
    if target.site != request.origin_site:
        usd += target.usd_per_byte * request.moved_bytes
    verdict = Verdict(target.name, expected_s, ruled_out(request, target), late, usd)
    return verdict, rtt_s + there_s


def scores(
    request: Request,
    targets: Sequence[Target],
    found: Sequence[Verdict],
    candidates: Sequence[int],
    weight: Weights,
    risk_price: float,
) -> list[float]:
    """Return the expected cost at each of the candidates, which are indexes of both sequences."""
    slack_s = request.slack_s
    prices = [found[i].usd for i in candidates]
    dearest = max(prices)
    cheapest = min(prices)
    span = max(dearest - cheapest, _LEAST_USD)
    fastest_s = min([found[i].expected_s for i in candidates])
    risk_usd = risk_price * span
    overdue_usd = weight.overdue * risk_usd
    haste_usd = weight.haste * span / _time_to_use_up(slack_s, fastest_s)
    away_usd = weight.away * span
    cost: list[float] = []
    for i in candidates:
        _, expected_s, _, late, usd = found[i][:5]
        target = targets[i]
        cost.append(
            (usd - cheapest)
            + weight.scarcity * (dearest - usd) * target.busy * target.busy
            + risk_usd * late
            + overdue_usd * max(0.0, expected_s - slack_s)
            + haste_usd * expected_s
            + (away_usd if target.site != request.origin_site else 0.0)
        )
    return cost


def _choose_among_many(
    request: Request, table: RoutingTable, columns: Columns, now: float, weight: Weights
) -> Outcome | None:
    """Do the same over arrays; None where nothing may serve in time, which the loop explains."""
    is_open = columns.open_to(request)
    for name in request.excluded:
        index = table.index(name)
        if index is not None:
            is_open[index] = False
    candidates = np.flatnonzero(is_open)
    if len(candidates) < 2:
        return None
    slack_s = request.slack_s
    figures = columns.look(request, now, table.reliability(slack_s))
    expected_s, plain_s, late, usd, busy, is_away = (array[candidates] for array in figures)
    fastest_s, least_late = float(expected_s.min()), float(late.min())
    if weight.budget:
        dearest = float(usd.max())
        cheapest = float(usd.min())
        span = max(dearest - cheapest, _LEAST_USD)
        risk_usd = table.risk_price(request.objective) * span
        score = (
            (usd - cheapest)
            + weight.scarcity * (dearest - usd) * busy * busy
            + risk_usd * late
            + weight.overdue * risk_usd * np.maximum(0.0, expected_s - slack_s)
            + weight.haste * span / _time_to_use_up(slack_s, fastest_s) * expected_s
            + weight.away * span * is_away
        )
    else:
        score = expected_s + plain_s
    shown = np.argpartition(score, min(SHOWN, len(score) - 1))[:SHOWN]
    targets = table.targets
    order = sorted(shown.tolist(), key=lambda i: (score[i], targets[candidates[i]].name))
    tied = np.flatnonzero(score == score[order[0]])
    if len(tied) > 1:
        first = min(tied.tolist(), key=lambda i: targets[candidates[i]].name)
        order = [first, *(i for i in order if i != first)][:SHOWN]
    found = tuple(
        Verdict(
            targets[candidates[i]].name, float(expected_s[i]), None, float(late[i]), float(usd[i])
        )
        for i in order
    )
    if _refuses(weight, request, least_late, targets, candidates.tolist(), now):
        if _all_asleep(targets, candidates.tolist()):
            return None  # and somebody may be left who is not
        return Hopeless(found, least_late, max(MIN_RETRY_S, fastest_s - slack_s))
    spent = (found[0].late - least_late) / weight.budget if weight.budget else None
    site = targets[candidates[order[0]]].site
    return _decision(found, 0, _reason(request, found[0], site, fastest_s), spent)


def _refuses(
    weight: Weights,
    request: Request,
    least_late: float,
    targets: Sequence[Target],
    candidates: Sequence[int],
    now: float,
) -> bool:
    """Tell whether a request is refused whose least P(late) is `least_late`.

    One that has many times the seconds which a request takes there, and is likely late all the
    same, comes to long queues. Served just before its deadline, it would go before those who have
    come by then and are in a hurry; so it takes less to refuse it.
    """
    if least_late < _PATIENT * weight.refuse_at:
        return False
    alone_s = min([targets[i].rtt_s + targets[i].service_s for i in candidates])
    hurry = _HURRY * alone_s / max(request.slack_s, _LEAST_S)
    if least_late < weight.refuse_at * min(1.0, max(_PATIENT, hurry)):
        return False
    return _all_wait(request, targets, candidates, now)


def _all_wait(
    request: Request, targets: Sequence[Target], candidates: Sequence[int], now: float
) -> bool:
    """Tell whether there is work ahead wherever a request may go.

    An idle place is tried whatever was late there before: how else would one learn that it is
    better now?
    """
    slack_s = request.slack_s
    return all(wait_s(targets[i], slack_s - targets[i].rtt_s, now) > 0.0 for i in candidates)


def _all_asleep(targets: Sequence[Target], candidates: Sequence[int]) -> bool:
    return all(targets[i].is_asleep for i in candidates)


def _last_resort(found: tuple[Verdict, ...], spares: Sequence[int]) -> Decision:
    return _decision(found, min(spares, key=lambda i: found[i][1::-1]), "last_resort", None)


def _time_to_use_up(slack_s: float, fastest_s: float) -> float:
    """Return the seconds whose loss counts as much as the dearest place's price.

    Without a deadline to speak of, what is slow is said by the fastest place.
    """
    if slack_s > _NO_HURRY_S:
        return 4.0 * fastest_s + 0.020
    return max(1e-3, min(slack_s, _LONG_S))


def _decision(
    verdicts: tuple[Verdict, ...], index: int, reason: str, spent: float | None
) -> Decision:
    chosen = verdicts[index]
    return Decision(
        chosen.target,
        reason,
        chosen.expected_s,
        verdicts,
        chosen.late,
        chosen.usd,
        spent,
    )
