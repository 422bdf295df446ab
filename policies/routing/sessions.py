"""Keeping the requests of a session at one place, where their caller asks for it.

The place of a session is the first of all that may serve it by rendezvous hashing (Thaler and
Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998): no state, the same at every
gateway, and only the sessions of a place that goes away move. It is left for as long as going there
would make the request late, which a session is not worth.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from policies.routing.filters import ruled_out
from policies.routing.table import RoutingTable
from policies.routing.types import Decision, Request
from policies.routing.utility import look

SESSION: Final = "session"
RISK: Final = 0.05  # by how much likelier a request may be late for being kept at its place


def home_of(session: str, names: list[str]) -> str:
    """Return the place of a session among some; names may come in any order, but one at least."""
    return max(names, key=lambda name: (_rank(session, name), name))


def kept(decision: Decision, request: Request, table: RoutingTable, now: float) -> Decision:
    """Return a decision for the session's place where that is no risk, else the decision."""
    usable = [t.name for t in table.targets if not t.is_asleep and ruled_out(request, t) is None]
    if len(usable) < 2:
        return decision
    home = home_of(request.session, usable)
    if home == decision.target:
        return decision._replace(reason=SESSION)
    found, _ = look(request, table[home], table.reliability(request.slack_s), now)
    if found.late > decision.late + RISK:
        return decision
    others = tuple(verdict for verdict in decision.verdicts if verdict.target != home)
    return Decision(
        home, SESSION, found.expected_s, (found, *others), late=found.late, usd=found.usd
    )


def _rank(session: str, name: str) -> bytes:
    return blake2b(name.encode(), digest_size=8, key=session.encode()[:64]).digest()
