"""An engine's statistics as Prometheus metrics, read at scrape time.

Nothing is counted twice: the request path only adds to `ModelStats`, and this collector turns
those into metric families when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edge_runtime.engine.engine import Engine
from edge_runtime.engine.stats import LATENCY_BUCKETS_S, ModelStats

LABELS = ("model", "version")
NS = 1e9


class EngineCollector(Collector):
    """Yields the metrics of every model an engine holds."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        runners = self._engine.runners()
        stats = [runner.stats for runner in runners]
        yield _requests(stats)
        yield _latency(stats)
        yield _seconds(stats, "queue", "waiting in the queue", lambda s: s.queue.ns)
        yield _seconds(stats, "compute", "computing", lambda s: s.compute_infer.ns)
        batches = CounterMetricFamily(
            "prime_spark_engine_batches", "Runs of the backend.", labels=LABELS
        )
        rows = CounterMetricFamily("prime_spark_engine_rows", "Batch rows computed.", labels=LABELS)
        for s in stats:
            batches.add_metric([s.model, s.version], s.execution_count)
            rows.add_metric([s.model, s.version], s.inference_count)
        yield batches
        yield rows
        on_rung = CounterMetricFamily(
            "prime_spark_engine_rung_rows",
            "Batch rows computed, by the rung of the degradation ladder.",
            labels=(*LABELS, "rung"),
        )
        replayed = CounterMetricFamily(
            "prime_spark_engine_replayed_requests",
            "Requests computed again after an accelerator lost them.",
            labels=LABELS,
        )
        for s in stats:
            replayed.add_metric([s.model, s.version], s.replayed)
            for rung, (_, count) in s.rungs.items():
                on_rung.add_metric([s.model, s.version, rung], count)
        yield on_rung
        yield replayed
        queued = GaugeMetricFamily(
            "prime_spark_engine_queued_requests", "Requests waiting now.", labels=LABELS
        )
        running = GaugeMetricFamily(
            "prime_spark_engine_running_batches", "Runs going on now.", labels=LABELS
        )
        for runner in runners:
            queued.add_metric([runner.model, runner.version], runner.queued)
            running.add_metric([runner.model, runner.version], runner.running)
        yield queued
        yield running


def _requests(stats: Iterable[ModelStats]) -> Metric:
    family = CounterMetricFamily(
        "prime_spark_engine_requests", "Requests by outcome.", labels=(*LABELS, "outcome")
    )
    for s in stats:
        outcomes = (
            ("success", s.success.count),
            ("error", s.fail.count - s.expired),
            ("rejected", s.rejected),
            ("expired", s.expired),
            ("cancelled", s.cancel.count),
        )
        for outcome, count in outcomes:
            family.add_metric([s.model, s.version, outcome], count)
    return family


def _latency(stats: Iterable[ModelStats]) -> Metric:
    family = HistogramMetricFamily(
        "prime_spark_engine_request_duration_seconds",
        "From admission to the answer, successful requests.",
        labels=LABELS,
    )
    for s in stats:
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*LATENCY_BUCKETS_S, None), s.latency_counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound is None else str(bound), total))
        family.add_metric([s.model, s.version], buckets, sum_value=s.latency_sum_s)
    return family


def _seconds(
    stats: Iterable[ModelStats], part: str, what: str, ns: Callable[[ModelStats], int]
) -> Metric:
    family = CounterMetricFamily(
        f"prime_spark_engine_{part}_seconds", f"Seconds spent {what}.", labels=LABELS
    )
    for s in stats:
        family.add_metric([s.model, s.version], ns(s) / NS)
    return family
