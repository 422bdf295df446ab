"""Keeps a wish within the bounds, and the money within the budget."""

from __future__ import annotations

from policies.scaling.types import Bounds, Decision, Observed

HOUR_S = 3600.0
GUARD_S = 120.0  # what is left must pay for that long; a decision has to come within it


def bounded(wanted: int, reason: str, rule: str, seen: Observed, bounds: Bounds) -> Decision:
    """Return a decision that the bounds allow.

    The budget is of any 60 minutes, not of hours by the clock. So many replicas are allowed beyond
    the minimum that what is left of it would pay for them for `GUARD_S`: as long as decisions come
    more often and replicas end when they should, it is never exceeded, and a burst gets much of
    what calm minutes have saved. The first replica is paid for in any case, also where there may be
    none: one that ends as soon as it was started serves nobody.
    """
    target = wanted
    if target > bounds.maximum:
        target, reason = bounds.maximum, "maximum"
    if target < bounds.minimum:
        target, reason = bounds.minimum, "minimum"
    if bounds.budget is not None:
        left = bounds.budget - HOUR_S * bounds.paid - seen.extra_spent
        most = bounds.paid + max(0, int(left / GUARD_S))
        if target > most:
            target, reason = most, "budget"
    if target == seen.target and reason in {"forecast", "load", "less_load"}:
        reason = "steady"
    return Decision(target, wanted, reason, rule, seen)
