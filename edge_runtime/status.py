"""What the edge runtime says of itself: one document for people and tools, and metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_runtime.protocol.body import ByteBudget
from edge_runtime.protocol.gate import Gate
from edge_runtime.service import EngineService

if TYPE_CHECKING:
    from edge_runtime.app import EdgeRuntime

HEALTH: tuple[str, ...] = ("ready", "degraded", "unready")


def overview(runtime: EdgeRuntime) -> dict[str, object]:
    """Return health, models with their rungs, and work in progress."""
    health = runtime.service.health()
    models: list[dict[str, object]] = []
    for runner in runtime.engine.runners():
        best = runner.ladder.best()
        stats = runner.stats
        models.append(
            {
                "model": runner.model,
                "version": runner.version,
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
        "models": models,
        "not_loaded": [
            {"model": entry.name, "version": entry.version, "why": entry.reason}
            for entry in known
            if entry.state != "READY"
        ],
        "in_progress": runtime.gate.in_progress,
        "body_bytes": runtime.budget.used,
    }


class RuntimeCollector(Collector):
    """Yields the metrics of the process beside those of its engine."""

    def __init__(self, service: EngineService, budget: ByteBudget, gate: Gate) -> None:
        self._service = service
        self._budget = budget
        self._gate = gate

    def collect(self) -> Iterator[Metric]:
        health = self._service.health()
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
            "prime_spark_edge_body_bytes", "Request bodies held now.", value=self._budget.used
        )
        yield GaugeMetricFamily(
            "prime_spark_edge_requests_in_progress",
            "Inference requests in progress now.",
            value=self._gate.in_progress,
        )
        yield CounterMetricFamily(
            "prime_spark_edge_shed",
            "Requests refused because the process was behind with them.",
            value=self._gate.refused,
        )
