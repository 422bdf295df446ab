"""What the edge runtime says of itself: one document for people and tools."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_runtime.accelerator.device import HailoAccelerator
    from edge_runtime.app import EdgeRuntime


def overview(runtime: EdgeRuntime) -> dict[str, object]:
    """Return health, models with their rungs, and work in progress."""
    health = runtime.service.health()
    models: list[dict[str, object]] = []
    for runner in runtime.engine.runners():
        best = runner.ladder.best()
        load = runtime.engine.load_of((runner.model, runner.version))
        stats = runner.stats
        models.append(
            {
                "model": runner.model,
                "version": runner.version,
                "origin": runtime.origins.get((runner.model, runner.version), ""),
                "options": asdict(runner.options),
                "rung": best.name if best is not None else None,
                "rungs": [
                    {
                        "name": rung.name,
                        "available": rung.is_available,
                        "why": rung.why,
                        "batches": stats.rungs.get(rung.name, (0, 0))[0],
                        "row_ms": round(rung.service.row_s * 1e3, 4),
                    }
                    for rung in runner.ladder.rungs
                ],
                **(load.document() if load is not None else {}),
                "answered": stats.success.count,
                "failed": stats.fail.count,
                "refused": stats.rejected,
                "replayed": stats.replayed,
            }
        )
    known = runtime.service.repository_index(ready_only=False)
    return {
        "status": health.status,
        "reasons": list(health.reasons),
        "models_folder": str(runtime.packages.root),
        "models": models,
        "not_loaded": [
            {"model": entry.name, "version": entry.version, "why": entry.reason}
            for entry in known
            if entry.state != "READY"
        ],
        "accelerator": _accelerator(runtime.accelerator),
        "cloud": None
        if runtime.link is None
        else {
            "up": runtime.link.is_up,
            "why": runtime.link.why,
            "sent": runtime.link.sent,
            "taken_back": runtime.link.taken_back,
        },
        "in_progress": runtime.gate.in_progress,
        "body_bytes": runtime.budget.used,
    }


def _accelerator(device: HailoAccelerator | None) -> dict[str, object] | None:
    if device is None:
        return None
    sensors = device.sensors
    return {
        "serves": not device.why,
        "why": device.why,
        **device.info,
        "host_pid": device.host_pid,
        "temperature_c": sensors.temperature_c,
        "throttled": sensors.is_throttled,
        "power_w": sensors.power_w,
        "starts": device.counts.starts,
        "runs": device.counts.runs,
        "lost": device.counts.lost,
        "faults": dict(device.counts.faults),
    }
