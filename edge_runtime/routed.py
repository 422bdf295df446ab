"""What routing has to know of a request, at the gateway and on a box that may send it on."""

from __future__ import annotations

from edge_runtime.protocol.service import CallContext
from edge_runtime.protocol.types import InferRequest
from policies.routing import Objective, Request
from policies.routing.sizes import bucket


def wanted(
    request: InferRequest,
    context: CallContext,
    now: float,
    *,
    origin_site: str | None,
    objective: Objective = "balanced",
    tiers: frozenset[str] | None = None,
    draw: int = 0,
    turn: int = 0,
) -> Request:
    """Return what matters for choosing where a request runs.

    now: on the clock of the deadline; objective: unless the caller says one; tiers: where the model
    is placed; draw, turn: see `Request`. Its slack may be negative: then it is late already.
    """
    moved_bytes = sum(tensor.data.nbytes for tensor in request.inputs)
    return Request(
        slack_s=context.deadline - now,
        bucket=bucket(moved_bytes),
        moved_bytes=moved_bytes,
        objective=context.objective or objective,
        tiers=tiers,
        tier=context.tier,
        origin_site=origin_site,
        tenant=context.principal.tenant,
        session=context.session,
        draw=draw,
        turn=turn,
    )
