"""What may leave a site: rules by model and by tenant, in shell patterns (fnmatch).

A request leaves only when its model and its tenant are both let out and neither is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class LeavingRules:
    """Patterns of what is let out, and of what is kept in spite of that."""

    models: tuple[str, ...] = ("*",)
    tenants: tuple[str, ...] = ("*",)
    keep_models: tuple[str, ...] = ()
    keep_tenants: tuple[str, ...] = ()


def may_leave(rules: LeavingRules, model: str, tenant: str) -> str | None:
    """Return why a request has to stay at the site; None when it may leave it."""
    if _matches(rules.keep_models, model):
        return "model_kept"
    if _matches(rules.keep_tenants, tenant):
        return "tenant_kept"
    if not _matches(rules.models, model):
        return "model_not_let_out"
    if not _matches(rules.tenants, tenant):
        return "tenant_not_let_out"
    return None


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
