"""The default rule: the least expected cost of a request, lateness included.

For each target that may serve, the score in dollars is

    price + scarcity + risk * P(late) + overdue + haste

The price is of moving bytes and of work. P(late) is read from observed errors (`lateness`), never
from an assumed spread. The other terms keep a rule that looks at one request from harming those
that come after it:

- scarcity: a busy cheap place is worth more than its price to somebody who has nowhere else to go,
  so a part of the difference to the dearest place is added as it gets busier (bid prices of
  revenue management; Awerbuch, Azar, Plotkin, 1993, for routing);
- overdue: expected lateness in seconds; by price and risk alone everybody who is late anyway would
  go to the cheapest and slowest place;
- haste: the share of its time that a request uses up, so that it is not spent for nothing.

What a missed deadline is worth nobody can say in dollars. `balanced` and `cost` therefore have a
budget, the share of requests that may be late for the sake of a lower price, and the price of risk
follows from it: `table` raises it while decisions spend more than the budget and lowers it while
they spend less (a Lagrange multiplier by stochastic subgradient; Neely, "Stochastic Network
Optimization", 2010). `latency` looks at the expected delay alone.

A request whose deadline nobody can meet may be refused at once (`refuse_at`): it loses nothing
that it still had, and those who can be served are spared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from policies.routing.delay import wait_s
from policies.routing.filters import EJECTED, SILENT, ruled_out
from policies.routing.lateness import corrected, late_share
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


@dataclass(frozen=True, slots=True)
class Weights:
    """What an objective counts.

    budget: the share of requests that may be late for a lower price; 0: the price is no matter,
    and the expected delay decides. scarcity: the part of the price difference that a place which
    is always busy adds; haste: of the price difference for using up all the time that is left;
    overdue: of the price of risk for each second that it is expected to be late. refuse_at: the
    least P(late) with which a request is refused; above 1 none is.
    """

    budget: float = 0.0
    scarcity: float = 0.4
    haste: float = 0.5
    overdue: float = 0.5
    refuse_at: float = 2.0


WEIGHTS: Final[Mapping[Objective, Weights]] = MappingProxyType(
    {"latency": Weights(), "balanced": Weights(budget=0.006), "cost": Weights(budget=0.02)}
)


def choose(
    request: Request,
    table: RoutingTable,
    now: float,
    weights: Mapping[Objective, Weights] = WEIGHTS,
) -> Outcome:
    """Choose a target; equal scores are settled by name, so that order is irrelevant."""
    weight = weights[request.objective]
    bucket, slack_s, moved = request.bucket, request.slack_s, request.moved_bytes
    verdicts: list[Verdict] = []
    candidates: list[int] = []
    spares: list[int] = []
    targets = table.targets
    for index, target in enumerate(targets):
        rule = ruled_out(request, target)
        rtt_s, service_s = target.rtt_s, target.service_s
        work_s = service_s * target.sizes[bucket] if target.sizes else service_s
        there_s = wait_s(target, slack_s - rtt_s, now) + work_s
        expected_s = rtt_s + corrected(target.bias, there_s, service_s)
        late = late_share(target.errors, there_s, service_s, slack_s - rtt_s)
        usd = target.usd + target.usd_per_s * work_s + target.usd_per_byte * moved
        verdicts.append(Verdict(target.name, expected_s, rule, late, usd))
        if rule is None:
            candidates.append(index)
        elif rule in (SILENT, EJECTED):
            spares.append(index)
    found = tuple(verdicts)
    if not candidates:
        if not spares:
            return NoTarget(found)
        return _decision(found, min(spares, key=lambda i: found[i][1::-1]), "last_resort", 0.0)
    fastest_s = min(found[i].expected_s for i in candidates)
    least_late = min(found[i].late for i in candidates)
    if least_late >= weight.refuse_at:
        return Hopeless(found, least_late, max(MIN_RETRY_S, fastest_s - slack_s))
    if weight.budget:
        dearest = max(found[i].usd for i in candidates)
        cheapest = min(found[i].usd for i in candidates)
        risk_usd = table.risk_price(request.objective) * (dearest - cheapest)
        hurry_usd = weight.haste * (dearest - cheapest) / max(slack_s, 1e-3)
        overdue_usd = weight.overdue * risk_usd
        best = float("inf")
        best_index = -1
        for i in candidates:
            name, expected_s, _, late, usd = found[i]
            overdue_s = expected_s - slack_s
            score = (
                usd
                + weight.scarcity * (dearest - usd) * targets[i].busy ** 2
                + risk_usd * late
                + (overdue_usd * overdue_s if overdue_s > 0.0 else 0.0)
                + hurry_usd * expected_s
            )
            if score < best or (score == best and name < found[best_index].target):
                best, best_index = score, i
    else:
        best_index = min(candidates, key=lambda i: (_cautious_s(found[i], targets[i]), found[i][0]))
    chosen = found[best_index]
    if len(candidates) == 1:
        reason = "only_candidate" if request.tier is None else "tier_requested"
    elif fastest_s > slack_s:
        reason = "least_late"
    elif targets[best_index].site == request.origin_site:
        reason = "origin_site"
    elif chosen.expected_s <= fastest_s:
        reason = "least_expected"
    else:
        reason = "least_cost"
    return _decision(found, best_index, reason, chosen.late - least_late)


def _cautious_s(verdict: Verdict, target: Target) -> float:
    """Return the expected delay with half of the correction for the usual error.

    Corrected in full, a place that was misjudged for a while is avoided and stays misjudged.
    """
    plain_s = target.rtt_s + (verdict.expected_s - target.rtt_s + target.service_s) / target.bias
    return 0.5 * (verdict.expected_s + plain_s - target.service_s)


def _decision(
    verdicts: tuple[Verdict, ...], index: int, reason: str, extra_late: float
) -> Decision:
    chosen = verdicts[index]
    return Decision(
        chosen.target,
        reason,
        chosen.expected_s,
        verdicts,
        chosen.late,
        chosen.usd,
        extra_late,
    )
