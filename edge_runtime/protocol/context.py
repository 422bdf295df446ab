"""From what a caller says about a call to the `CallContext` that travels with it.

Shared by REST (headers) and gRPC (metadata), so that both mean the same by it.
"""

from __future__ import annotations

import asyncio
import re

from edge_runtime.auth import Principal
from edge_runtime.errors import InvalidInput
from edge_runtime.protocol.service import CallContext, Limits
from edge_runtime.protocol.types import Parameters
from policies.routing.types import OBJECTIVES

TIMEOUT_HEADER = "prime-spark-timeout-ms"
SITE_HEADER = "prime-spark-site"
TIER_HEADER = "prime-spark-tier"
TRACE_HEADER = "traceparent"
SESSION_HEADER = "prime-spark-session"
OBJECTIVE_HEADER = "prime-spark-objective"
LOAD_HEADER = "prime-spark-load"  # "1": the answer's parameters are to say how busy the model is
CLIENT_HEADER = "x-forwarded-for"  # the gateway's front door writes it, whatever a client said
TIERS = ("edge", "cloud", "colocated")

_TRACE = re.compile(r"(?!ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


def call_context(
    principal: Principal,
    limits: Limits,
    parameters: Parameters,
    *,
    timeout_s: float | None,
    site: str | None,
    tier: str | None,
    protocol: str,
    trace: str | None = None,
    load: str | None = None,
    session: str | None = None,
    objective: str | None = None,
    address: str | None = None,
) -> CallContext:
    """Settle deadline, priority and preferences of a call; shared by REST and gRPC.

    timeout_s wins over the parameter `timeout` (microseconds, Triton's scheduling policy
    extension), which wins over the configured default; all are cut at the configured maximum.
    trace: a `traceparent`; one that is not well-formed counts as none (W3C Trace Context, 3.2).
    Raises InvalidInput naming the parameter or header.
    """
    if timeout_s is None and "timeout" in parameters:
        timeout_us = parameters["timeout"]
        if type(timeout_us) is not int or timeout_us < 0:
            raise InvalidInput("timeout must be a whole number of microseconds", field="timeout")
        timeout_s = timeout_us / 1e6 if timeout_us else None
    priority = parameters.get("priority", 0)
    if type(priority) is not int or not 0 <= priority < 2**32:
        raise InvalidInput("priority must be a whole number, 0 or more", field="priority")
    if tier is not None and tier not in TIERS:
        raise InvalidInput(f"tier must be one of {', '.join(TIERS)}", field=TIER_HEADER)
    if site is not None and not (0 < len(site) <= 64 and _is_plain(site)):
        raise InvalidInput("site must be 1 to 64 printable characters", field=SITE_HEADER)
    if session is not None and not (0 < len(session) <= 128 and _is_plain(session)):
        raise InvalidInput("session must be 1 to 128 printable characters", field=SESSION_HEADER)
    if objective is not None and objective not in OBJECTIVES:
        raise InvalidInput(
            f"objective must be one of {', '.join(OBJECTIVES)}", field=OBJECTIVE_HEADER
        )
    chosen = limits.default_timeout_s if timeout_s is None else timeout_s
    return CallContext(
        principal=principal,
        deadline=asyncio.get_running_loop().time() + min(chosen, limits.max_timeout_s),
        priority=priority,
        origin_site=site,
        tier=tier,
        protocol=protocol,
        trace=trace if trace is not None and _TRACE.fullmatch(trace) else "",
        wants_load=load == "1",
        session=session or "",
        objective=objective,
        address=address or "",
    )


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def header_timeout_s(value: str | None) -> float | None:
    """Read `prime-spark-timeout-ms`; None when absent. Raises InvalidInput."""
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and 0 < len(value) <= 9) or int(value) == 0:
        raise InvalidInput(
            f"{TIMEOUT_HEADER} must be a positive whole number of milliseconds",
            field=TIMEOUT_HEADER,
        )
    return int(value) / 1e3
