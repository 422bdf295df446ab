"""The edge runtime's metrics, read at scrape time.

Imported when somebody first asks for them: the client library brings a web server and more, some
megabytes that a box without Prometheus need not carry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_runtime.engine.metrics import EngineCollector

if TYPE_CHECKING:
    from edge_runtime.accelerator.device import HailoAccelerator
    from edge_runtime.app import EdgeRuntime

HEALTH: tuple[str, ...] = ("ready", "degraded", "unready")


class Metrics:
    """What `/metrics` answers with, over a registry of its own (nothing global)."""

    def __init__(self, runtime: EdgeRuntime) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(EngineCollector(runtime.engine))
        self._registry.register(RuntimeCollector(runtime))

    def text(self) -> tuple[bytes, str]:
        """Return the text and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


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
