"""Which targets may serve a request at all: rules that no price and no delay outweighs."""

from __future__ import annotations

from typing import Final

from policies.routing.types import Request, Target

SILENT: Final = "silent"
EJECTED: Final = "ejected"

RULES: Final = (
    "not_placed",  # the model is not meant to be there
    "other_tier",  # the caller insists on another one
    "already_tried",  # it has failed this very request
    "model_not_loaded",
    "zone_not_allowed",  # data of this request may not rest there
    "tenant_not_served",
    "down",
    "draining",
    SILENT,  # taken when nothing else is left
    EJECTED,  # likewise
)


def ruled_out(request: Request, target: Target) -> str | None:
    """Return the first rule of `RULES` that forbids a target; None when it may serve."""
    if request.tiers is not None and target.tier not in request.tiers:
        return "not_placed"
    if request.tier is not None and target.tier != request.tier:
        return "other_tier"
    if target.name in request.excluded:
        return "already_tried"
    if not target.has_model:
        return "model_not_loaded"
    if request.zones is not None and target.zone not in request.zones:
        return "zone_not_allowed"
    if target.tenants is not None and request.tenant not in target.tenants:
        return "tenant_not_served"
    if not target.is_up:
        return "down"
    if target.is_draining:
        return "draining"
    if target.is_silent:
        return SILENT
    if target.is_ejected:
        return EJECTED
    return None
