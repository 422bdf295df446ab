"""One decision, as the gateway and the edge box make it: a rule, a session, and what it spent.

A gateway at full load decides thousands of times a second about requests that are alike. Where
nothing can have changed, the default rule's last decision is taken again: within `AGAIN_S`, as long
as what was sent there since is less work than `AGAIN_WORK_S`, and no target was added, changed or
gave a request up. Where there is one candidate alone, work does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from policies.routing import classical, learned, sessions
from policies.routing.table import Recent, RoutingTable, Rule
from policies.routing.types import Decision, Outcome, Request
from policies.routing.utility import choose

UTILITY: Final = "utility"
RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {UTILITY: choose, learned.LEARNED: learned.choose, **classical.RULES}
)


AGAIN_S: Final = 0.004
AGAIN_WORK_S: Final = 0.001
_ONLY: Final = frozenset({"only_candidate", "tier_requested"})
_MANY: Final = 1 << 30
_ALIKE: Final = slice(1, Request._fields.index("draw"))  # all but the time left and chance
_SLACK: Final = 0.1  # by which part of it the time left may differ


def decide(request: Request, table: RoutingTable, now: float, rule: Rule = choose) -> Outcome:
    """Choose by a rule, keep a session at its place, and let the table know what was spent."""
    recent = table.recent
    if rule is choose and recent is not None and _is_good(recent, request, table, now):
        outcome: Outcome = recent.decision
    else:
        outcome = rule(request, table, now)
        if isinstance(outcome, Decision):
            if request.session:
                outcome = sessions.kept(outcome, request, table, now)
            uses = _uses(outcome, table)
            table.recent = Recent(request, outcome, now, table.generation, uses) if uses else None
    if isinstance(outcome, Decision):
        table.decided(outcome, request.objective)
    return outcome


def _uses(decision: Decision, table: RoutingTable) -> int:
    """Return how often a decision may be taken again."""
    if decision.reason in _ONLY:
        return _MANY
    work_s = table[decision.target].row_s
    return int(AGAIN_WORK_S / work_s) if work_s > 0.0 else 0


def _is_good(recent: Recent, request: Request, table: RoutingTable, now: float) -> bool:
    """Tell whether a decision holds for another request, and count that it is used."""
    if (
        recent.uses <= 0
        or now - recent.at >= AGAIN_S
        or recent.generation != table.generation
        or abs(request.slack_s - recent.request.slack_s) > _SLACK * recent.request.slack_s
        or request[_ALIKE] != recent.request[_ALIKE]
    ):
        return False
    recent.uses -= 1
    return True
