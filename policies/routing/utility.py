"""The default rule: the least expected cost of a request, lateness included.

For each target that may serve, the score is what the request costs there, in dollars:

    price + miss * P(late) + overdue * expected lateness + delay * expected delay

The price is of moving bytes and of work (`policies.cost`). P(late) is read from observed errors
(`lateness`), never from an assumed spread. The lateness term settles among places that are late
anyway: by price and risk alone all of those would go to the cheapest and slowest one. The weights
make the objectives:

- `latency` looks at the expected delay and at nothing else;
- `balanced` takes what is cheap for as long as it is nearly as safe;
- `cost` accepts more risk for a lower price.

A request whose deadline nobody can meet may be refused at once (`refuse_at`), which costs it
nothing that it still had, and spares those who can be served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from policies.routing.delay import wait_s
from policies.routing.filters import EJECTED, SILENT, ruled_out
from policies.routing.lateness import corrected, late_share, situation
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
    """What an objective counts. Dollars, and dollars a second.

    price: multiplies what a request costs; miss_usd: of being late; overdue_usd_per_s: of each
    second that it is expected to be late; delay_usd_per_s: of each second until the answer.
    refuse_at: the least P(late) with which a request is refused; above 1 none is.
    """

    price: float = 1.0
    miss_usd: float = 2e-3
    overdue_usd_per_s: float = 1e-3
    delay_usd_per_s: float = 2e-6
    refuse_at: float = 2.0


WEIGHTS: Final[Mapping[Objective, Weights]] = MappingProxyType(
    {
        "latency": Weights(price=0.0, miss_usd=0.0, overdue_usd_per_s=0.0, delay_usd_per_s=1.0),
        "balanced": Weights(),
        "cost": Weights(miss_usd=2e-4, overdue_usd_per_s=1e-4),
    }
)


def price_usd(target: Target, request: Request, work_s: float) -> float:
    """Return what a request costs at a target. work_s: seconds it occupies the place."""
    return (
        target.usd + target.usd_per_s * work_s + target.usd_per_byte * request.moved_bytes
    )


def choose(
    request: Request,
    table: RoutingTable,
    now: float,
    weights: Mapping[Objective, Weights] = WEIGHTS,
) -> Outcome:
    """Choose a target; equal scores are settled by name, so that order is irrelevant."""
    weight = weights[request.objective]
    bucket, slack_s = request.bucket, request.slack_s
    verdicts: list[Verdict] = []
    best: tuple[float, str] | None = None
    best_index = last_index = -1
    last: tuple[float, str] | None = None
    fastest_s = least_late = float("inf")
    candidates = 0
    for index, target in enumerate(table.targets):
        rule = ruled_out(request, target)
        rtt_s = target.rtt_s
        relative = target.sizes[bucket] if target.sizes else 1.0
        work_s = target.service_s * relative
        waits_s = wait_s(target, slack_s - rtt_s, now)
        there_s = waits_s + work_s
        service_s = target.service_s
        index_of = situation(slack_s, there_s, service_s)
        expected_s = rtt_s + corrected(target.bias[index_of], there_s, service_s)
        late = late_share(target.errors[index_of], there_s, service_s, slack_s - rtt_s)
        usd = price_usd(target, request, work_s)
        verdicts.append(Verdict(target.name, expected_s, rule, late, usd))
        if rule is not None:
            if rule in (SILENT, EJECTED):
                key = (expected_s, target.name)
                if last is None or key < last:
                    last, last_index = key, index
            continue
        candidates += 1
        overdue_s = expected_s - slack_s
        score = (
            weight.price * usd
            + weight.miss_usd * late
            + (weight.overdue_usd_per_s * overdue_s if overdue_s > 0.0 else 0.0)
            + weight.delay_usd_per_s * expected_s
        )
        key = (score, target.name)
        if best is None or key < best:
            best, best_index = key, index
        if expected_s < fastest_s:
            fastest_s = expected_s
        if late < least_late:
            least_late = late
    found = tuple(verdicts)
    if best is None:
        if last is None:
            return NoTarget(found)
        return _decision("last_resort", found, last_index)
    if least_late >= weight.refuse_at:
        return Hopeless(found, least_late, max(MIN_RETRY_S, fastest_s - slack_s))
    chosen = found[best_index]
    if candidates == 1:
        reason = "tier_requested" if request.tier is not None else "only_candidate"
    elif fastest_s > slack_s:
        reason = "least_late"
    elif table.targets[best_index].site == request.origin_site:
        reason = "origin_site"
    elif chosen.expected_s <= fastest_s:
        reason = "least_expected"
    else:
        reason = "least_cost"
    return _decision(reason, found, best_index)


def _decision(reason: str, verdicts: tuple[Verdict, ...], index: int) -> Decision:
    chosen = verdicts[index]
    return Decision(
        chosen.target, reason, chosen.expected_s, verdicts, chosen.late, chosen.usd
    )


