"""The rules that others use, to compare with and to choose where they fit.

Each has a form that knows what a request is said to take at a place (`prior_s`): counting requests
without that, on places of different speed, is losing from the start, and no fair comparison.

random, weighted: probability 1/prior. round_robin: weighted by 1/prior as well; turns are placed
along the golden-ratio sequence, which spreads each target's turns evenly (Weyl, 1916).
least_outstanding: (n + 1) x prior. two_choices: the better of two drawn (Mitzenmacher, "The Power
of Two Choices", 2001). peak_ewma: moving peak of the latency x (n + 1) (Finagle). shortest_delay:
way + reported work + own work. nearest: the caller's site, else the edge, while its queue is short;
the cloud otherwise, which is how most edge products decide. prequal: hot-cold by probes
(module `prequal`), drawn where too few have answered. None of them waits for a place that sleeps
while another is awake.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final

from policies.routing.delay import expected_delay
from policies.routing.draws import uniform
from policies.routing.filters import EJECTED, SILENT, ruled_out
from policies.routing.table import RoutingTable, Rule, moving_peak
from policies.routing.types import Decision, NoTarget, Outcome, Request, Target, Verdict

Pick = Callable[[Request, Sequence[Target], float], int]

PROBED: Final = frozenset({"prequal", "weighted_prequal"})  # go by probes that somebody has to send
BY_RULE: Final = "by_rule"  # the reason of a choice that asks for no deadline and no price
_GOLDEN: Final = 0.6180339887498949
_UNKNOWN_S: Final = 1e-3  # prior of a place that nobody has told anything of
_NO_ANSWER_S: Final = 1e6  # what Finagle counts such a place as
_SHORT_QUEUE: Final = 4  # own outstanding requests with which `nearest` spills


def _prior(target: Target, *, weighted: bool) -> float:
    return (target.prior_s or _UNKNOWN_S) if weighted else 1.0


def _at(point: float, targets: Sequence[Target], *, weighted: bool) -> int:
    """Return the index under a point of [0, 1) when targets share it by 1/prior."""
    ends = list(accumulate(1.0 / _prior(t, weighted=weighted) for t in targets))
    return next((i for i, end in enumerate(ends) if point * ends[-1] < end), len(ends) - 1)


def _least(request: Request, targets: Sequence[Target], cost: Callable[[Target], float]) -> int:
    """Return the index of the least cost; ties are drawn."""
    return min(range(len(targets)), key=lambda i: (cost(targets[i]), uniform(request.draw, i + 2)))


def _random(*, weighted: bool) -> Pick:
    return lambda request, targets, _: _at(uniform(request.draw), targets, weighted=weighted)


def _round_robin(*, weighted: bool) -> Pick:
    return lambda request, targets, _: _at(
        (request.turn * _GOLDEN) % 1.0, targets, weighted=weighted
    )


def _least_outstanding(*, weighted: bool) -> Pick:
    def pick(request: Request, targets: Sequence[Target], now: float) -> int:
        return _least(
            request, targets, lambda t: (t.outstanding + 1) * _prior(t, weighted=weighted)
        )

    return pick


def _two_choices(*, weighted: bool) -> Pick:
    def pick(request: Request, targets: Sequence[Target], now: float) -> int:
        first = _at(uniform(request.draw, 0), targets, weighted=weighted)
        others = [i for i in range(len(targets)) if i != first]
        if not others:
            return first
        second = others[
            _at(uniform(request.draw, 1), [targets[i] for i in others], weighted=weighted)
        ]
        return min(
            (first, second),
            key=lambda i: (targets[i].outstanding + 1) * _prior(targets[i], weighted=weighted),
        )

    return pick


def _peak_ewma(*, weighted: bool) -> Pick:
    def pick(request: Request, targets: Sequence[Target], now: float) -> int:
        def cost(target: Target) -> float:
            if weighted:
                least_s = target.rtt_s + _prior(target, weighted=True)
            else:  # one that never answered is asked once, and not again before it answers
                least_s = _NO_ANSWER_S if target.outstanding and not target.peak_at else 0.0
            return max(least_s, moving_peak(target, now, 0.0)) * (target.outstanding + 1)

        return _least(request, targets, cost)

    return pick


def _shortest_delay(request: Request, targets: Sequence[Target], now: float) -> int:
    return _least(request, targets, lambda t: expected_delay(t, request, now))


def _nearest(request: Request, targets: Sequence[Target], now: float) -> int:
    def far(target: Target) -> tuple[bool, bool, bool, float]:
        is_full = target.outstanding >= _SHORT_QUEUE and target.tier != "cloud"
        is_away = target.site != request.origin_site
        return is_full, is_away, target.tier == "cloud", target.rtt_s

    return min(range(len(targets)), key=lambda i: (far(targets[i]), targets[i].outstanding))


def _ruled(pick: Pick) -> Rule:
    def rule(request: Request, table: RoutingTable, now: float) -> Outcome:
        usable: list[Target] = []
        spare: list[Target] = []
        verdicts: list[Verdict] = []
        for target in table.targets:
            why = ruled_out(request, target)
            expected_s = expected_delay(target, request, now)
            verdicts.append(Verdict(target.name, expected_s, why))
            if why is None and not target.is_asleep:
                usable.append(target)
            elif why in (None, SILENT, EJECTED):
                spare.append(target)
        found = tuple(verdicts)
        if not usable and not spare:
            return NoTarget(found)
        reason = BY_RULE if usable else "last_resort"
        chosen = (usable or spare)[pick(request, usable or spare, now)]
        return Decision(chosen.name, reason, expected_delay(chosen, request, now), found)

    return rule


def _prequal(*, weighted: bool) -> Rule:
    drawn = _random(weighted=weighted)

    def rule(request: Request, table: RoutingTable, now: float) -> Outcome:
        def pick(request: Request, targets: Sequence[Target], now: float) -> int:
            best = table.probes.best(targets, request.draw, now, weighted=weighted)
            return drawn(request, targets, now) if best is None else best

        return _ruled(pick)(request, table, now)

    return rule


RULES: Final[dict[str, Rule]] = {
    "random": _ruled(_random(weighted=False)),
    "weighted_random": _ruled(_random(weighted=True)),
    "round_robin": _ruled(_round_robin(weighted=False)),
    "weighted_round_robin": _ruled(_round_robin(weighted=True)),
    "least_outstanding": _ruled(_least_outstanding(weighted=False)),
    "weighted_least_outstanding": _ruled(_least_outstanding(weighted=True)),
    "two_choices": _ruled(_two_choices(weighted=False)),
    "weighted_two_choices": _ruled(_two_choices(weighted=True)),
    "peak_ewma": _ruled(_peak_ewma(weighted=False)),
    "weighted_peak_ewma": _ruled(_peak_ewma(weighted=True)),
    "prequal": _prequal(weighted=False),
    "weighted_prequal": _prequal(weighted=True),
    "shortest_delay": _ruled(_shortest_delay),
    "nearest": _ruled(_nearest),
}
