"""The gateway's metrics: decisions and targets, read at scrape time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_runtime.engine import Engine
from edge_runtime.engine.metrics import EngineCollector
from edge_runtime.protocol.body import ByteBudget
from edge_runtime.protocol.gate import Gate
from serve_apps.gateway.decisions import DecisionLog
from serve_apps.gateway.targets import TargetTable


class GatewayCollector(Collector):
    """Yields what the dispatcher and the target table know."""

    def __init__(
        self, log: DecisionLog, targets: TargetTable, budget: ByteBudget, gate: Gate
    ) -> None:
        self._log = log
        self._targets = targets
        self._budget = budget
        self._gate = gate

    def collect(self) -> Iterator[Metric]:
        labels = ("target", "reason", "outcome")
        attempts = CounterMetricFamily(
            "prime_spark_gateway_attempts", "Requests sent to a target.", labels=labels
        )
        seconds = CounterMetricFamily(
            "prime_spark_gateway_attempt_seconds", "Seconds until they ended.", labels=labels
        )
        for key, count in self._log.counts.items():
            attempts.add_metric(key, count)
            seconds.add_metric(key, self._log.taken_s[key])
        yield attempts
        yield seconds
        up = GaugeMetricFamily(
            "prime_spark_gateway_target_up", "1 while the target answers.", labels=("target",)
        )
        for target in self._targets:
            up.add_metric((target.name,), float(target.is_up))
        yield up
        yield GaugeMetricFamily(
            "prime_spark_gateway_body_bytes", "Request bodies held now.", value=self._budget.used
        )
        yield GaugeMetricFamily(
            "prime_spark_gateway_requests_in_progress",
            "Inference requests in progress now.",
            value=self._gate.in_progress,
        )
        yield CounterMetricFamily(
            "prime_spark_gateway_shed",
            "Requests refused because the gateway was behind with them.",
            value=self._gate.refused,
        )


def metrics_text(
    engine: Engine, log: DecisionLog, targets: TargetTable, budget: ByteBudget, gate: Gate
) -> Callable[[], tuple[bytes, str]]:
    """Return what `/metrics` answers with, over a registry of its own (nothing global)."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(engine))
    registry.register(GatewayCollector(log, targets, budget, gate))
    return lambda: (generate_latest(registry), CONTENT_TYPE_LATEST)
