"""What the gateway thinks of its targets, as JSON: `GET /v2/prime-spark/targets`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from edge_runtime.engine import LoadReport
from policies.routing import Target
from serve_apps.gateway.targets import AnyTarget, TargetTable
from serve_apps.wire import Failure


def target_overview(
    targets: TargetTable, clock: Callable[[], float] = time.monotonic
) -> Callable[[Mapping[str, str]], dict[str, Any]]:
    """Return a reader of the target table; it takes no query parameters. clock: the targets'."""

    def read(_: Mapping[str, str]) -> dict[str, Any]:
        ejected, now = targets.ejections.now(), clock()
        return {"targets": [_document(target, target.name in ejected, now) for target in targets]}

    return read


def _document(target: AnyTarget, is_ejected: bool, now: float) -> dict[str, Any]:
    models: dict[tuple[str, str], list[LoadReport]] = {}
    failures: dict[tuple[str, str], Failure] = {}
    for report in target.reports:
        for key, load in report.loads.items():
            models.setdefault(key, []).append(load)
        failures.update(report.failures)
    return {
        "name": target.name,
        "tier": target.tier,
        "site": target.site,
        "state": _state(target, is_ejected),
        "problem": target.problem,
        "replicas": len(target.reports),
        "models": [
            {
                "model": model,
                "version": version,
                "replicas": len(loads),
                "queued": sum(load.queued for load in loads),
                "running": sum(load.running for load in loads),
                **_known(target.view((model, version)), now),
            }
            for (model, version), loads in sorted(models.items())
        ],
        "failures": [
            {"model": model, "version": version, "code": why.code, "why": why.message}
            for (model, version), why in sorted(failures.items())
        ],
    }


def _known(known: Target, now: float) -> dict[str, Any]:
    """Return what routing goes by. heard_s: how old the last report is, None before the first."""
    return {
        "rtt_ms": round(known.rtt_s * 1e3, 3),
        "service_ms": round(known.service_s * 1e3, 3),
        "prior_ms": round(known.prior_s * 1e3, 3),
        "wait_ms": round(max(0.0, known.ahead_s[-1] - max(0.0, now - known.ahead_at)) * 1e3, 3),
        "busy": round(known.busy, 3),
        "outstanding": known.outstanding,
        "usual_error": round(known.bias, 3),
        "errors_kept": len(known.errors),
        "heard_s": round(now - known.heard_at, 3) if known.heard_at else None,
        "usd_per_s": known.usd_per_s,
        "usd_per_byte": known.usd_per_byte,
        "is_ejected": known.is_ejected,
    }


def _state(target: AnyTarget, is_ejected: bool) -> str:
    if not target.is_up:
        return "down"
    if target.sleep is not None and target.sleep.is_asleep:
        return "waking" if target.sleep.is_waking else "asleep"
    if target.is_silent:
        return "silent"
    return "ejected" if is_ejected else "up"
