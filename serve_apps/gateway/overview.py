"""What the gateway thinks of its targets, as JSON: `GET /v2/prime-spark/targets`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edge_runtime.engine import LoadReport
from serve_apps.gateway.targets import AnyTarget, TargetTable
from serve_apps.wire import Failure


def target_overview(targets: TargetTable) -> Callable[[Mapping[str, str]], dict[str, Any]]:
    """Return a reader of the target table; it takes no query parameters."""
    return lambda _: {"targets": [_document(target) for target in targets]}


def _document(target: AnyTarget) -> dict[str, Any]:
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
        "state": _state(target),
        "problem": target.problem,
        "replicas": len(target.reports),
        "models": [
            {
                "model": model,
                "version": version,
                "replicas": len(loads),
                "queued": sum(load.queued for load in loads),
                "running": sum(load.running for load in loads),
            }
            for (model, version), loads in sorted(models.items())
        ],
        "failures": [
            {"model": model, "version": version, "code": why.code, "why": why.message}
            for (model, version), why in sorted(failures.items())
        ],
    }


def _state(target: AnyTarget) -> str:
    if not target.is_up:
        return "down"
    return "silent" if target.is_silent else "up"
