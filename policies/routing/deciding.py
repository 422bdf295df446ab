"""One decision, as the gateway and the edge box make it: a rule, a session, and what it spent."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from policies.routing import classical, sessions
from policies.routing.table import RoutingTable, Rule
from policies.routing.types import Decision, Outcome, Request
from policies.routing.utility import choose

UTILITY: Final = "utility"
RULES: Final[Mapping[str, Rule]] = MappingProxyType({UTILITY: choose, **classical.RULES})


def decide(request: Request, table: RoutingTable, now: float, rule: Rule = choose) -> Outcome:
    """Choose by a rule, keep a session at its place, and let the table know what was spent."""
    outcome = rule(request, table, now)
    if isinstance(outcome, Decision):
        if request.session:
            outcome = sessions.kept(outcome, request, table, now)
        table.decided(outcome, request.objective)
    return outcome
