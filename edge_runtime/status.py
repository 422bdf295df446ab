"""What the edge runtime says of itself: one document for people and tools, and metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from edge_runtime.accelerator.device import HailoAccelerator
    from edge_runtime.app import EdgeRuntime

HEALTH: tuple[str, ...] = ("ready", "degraded", "unready")


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
                "queued": runner.queued,
                "running": runner.running,
                "wait_s": load.wait_s if load is not None else 0.0,
                "service_s": load.service_s if load is not None else 0.0,
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


class RuntimeCollector(Collector):
    """Yields the metrics of the process and its accelerator beside those of its engine."""

    def __init__(self, runtime: EdgeRuntime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        runtime = self._runtime
        health = runtime.service.health()
        state = GaugeMetricFamily(
            "prime_spark_edge_health", "1 for the state it is in.", labels=("state",)
        )
        for name in HEALTH:
            state.add_metric((name,), float(name == health.status))
        yield state
        yield GaugeMetricFamily(
            "prime_spark_edge_reasons", "Reasons to be degraded.", value=len(health.reasons)
        )
        yield GaugeMetricFamily(
            "prime_spark_edge_body_bytes", "Request bodies held now.", value=runtime.budget.used
        )
        yield GaugeMetricFamily(
            "prime_spark_edge_requests_in_progress",
            "Inference requests in progress now.",
            value=runtime.gate.in_progress,
        )
        yield CounterMetricFamily(
            "prime_spark_edge_shed",
            "Requests refused because the process was behind with them.",
            value=runtime.gate.refused,
        )
        if runtime.accelerator is not None:
            yield from _accelerator_metrics(runtime.accelerator)


def _accelerator_metrics(device: HailoAccelerator) -> Iterator[Metric]:
    prefix = "prime_spark_accelerator"
    yield GaugeMetricFamily(
        f"{prefix}_up", "1 while the accelerator serves.", value=float(not device.why)
    )
    yield CounterMetricFamily(
        f"{prefix}_starts", "Host processes started.", value=device.counts.starts
    )
    yield CounterMetricFamily(f"{prefix}_runs", "Runs that ended well.", value=device.counts.runs)
    yield CounterMetricFamily(
        f"{prefix}_lost_runs", "Runs lost with the device.", value=device.counts.lost
    )
    faults = CounterMetricFamily(f"{prefix}_faults", "Failures of it.", labels=("kind",))
    for kind, count in device.counts.faults.items():
        faults.add_metric((kind,), count)
    yield faults
    sensors = device.sensors
    yield GaugeMetricFamily(
        f"{prefix}_throttled", "1 while it slows its clock down.", value=float(sensors.is_throttled)
    )
    for name, text, value in (
        ("temperature_celsius", "Temperature of the chip.", sensors.temperature_c),
        ("power_watts", "Power that it takes.", sensors.power_w),
    ):
        if value is not None:
            yield GaugeMetricFamily(f"{prefix}_{name}", text, value=value)
