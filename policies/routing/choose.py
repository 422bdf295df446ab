"""Shortest expected delay with a preference for the caller's own site.

The delay of a target is way + wait + work (shortest expected delay, Whitt 1986). A wait that
was reported is old when it is used, so it is never believed to be less than what this gateway
itself has outstanding there, and it fades with age towards that figure (Mitzenmacher, "How
useful is old information?", 2000). A target at the caller's site is taken while it meets the
deadline and is not much slower than the best, because data that stays on the site costs no
uplink and survives its loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from policies.routing.types import Decision, NoTarget, Request, Target, Verdict

REASONS: Final = (
    "tier_requested",  # the caller insisted, and one target of that tier was left
    "only_candidate",  # nothing else could serve it
    "origin_site",  # at the caller's site, in time and not much slower than the best
    "least_expected",  # the shortest expected delay
    "least_late",  # none is expected to meet the deadline; the least bad
    "last_resort",  # only silent targets were left: slow is likelier than dead
)

SILENT: Final = "silent"
HALF_LIFE_S: Final = 1.0  # of a reported wait
SITE_FACTOR: Final = 4.0  # how much slower than the best the caller's site may be ...
SITE_MARGIN_S: Final = 0.020  # ... plus what nobody notices


def expected_delay(target: Target) -> float:
    """Return expected seconds from sending to the answer."""
    own_s = target.outstanding * target.service_s
    reported_s = target.wait_s * math.exp2(-max(0.0, target.report_age_s) / HALF_LIFE_S)
    return target.rtt_s + max(own_s, reported_s) + target.service_s


def choose(request: Request, targets: Sequence[Target]) -> Decision | NoTarget:
    """Choose a target for a request; equal delays are settled by name, so order is irrelevant."""
    verdicts: list[Verdict] = []
    candidates: list[tuple[float, str, Target]] = []
    silent: list[tuple[float, str]] = []
    for target in targets:
        rule = _ruled_out(request, target)
        expected_s = expected_delay(target)
        verdicts.append(Verdict(target.name, expected_s, rule))
        if rule is None:
            candidates.append((expected_s, target.name, target))
        elif rule == SILENT:
            silent.append((expected_s, target.name))
    found = tuple(verdicts)
    if not candidates and silent:
        expected_s, name = min(silent)
        return Decision(name, "last_resort", expected_s, found)
    if not candidates:
        return NoTarget(found)
    expected_s, name, _ = best = min(candidates, key=lambda c: (c[0], c[1]))
    if len(candidates) == 1:
        reason = "tier_requested" if request.tier is not None else "only_candidate"
        return Decision(name, reason, expected_s, found)
    in_time = [c for c in candidates if c[0] <= request.slack_s]
    if not in_time:
        return Decision(name, "least_late", expected_s, found)
    bound_s = SITE_FACTOR * best[0] + SITE_MARGIN_S
    local = [c for c in in_time if c[2].site == request.origin_site and c[0] <= bound_s]
    if local:
        expected_s, name, _ = min(local, key=lambda c: (c[0], c[1]))
        return Decision(name, "origin_site", expected_s, found)
    return Decision(name, "least_expected", expected_s, found)


def _ruled_out(request: Request, target: Target) -> str | None:
    if request.tier is not None and target.tier != request.tier:
        return "other_tier"
    if target.name in request.excluded:
        return "already_tried"
    if not target.has_model:
        return "model_not_loaded"
    if not target.is_up:
        return "down"
    if target.is_draining:
        return "draining"
    if target.is_silent:
        return SILENT
    return None
