from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from edge_runtime.engine import Engine, EngineOptions, ModelSource
from edge_runtime.engine.metrics import EngineCollector
from edge_runtime.engine.runner import ModelOptions
from edge_runtime.engine.stats import LATENCY_BUCKETS_S, BusyShare, ModelStats
from edge_runtime.errors import DeadlineExceeded, InvalidInput
from edge_runtime.protocol.types import BatchStat, DurationStat, merge_statistics
from tests.edge_runtime.engine.gate import Floats, GateBackend, later, request
from tests.edge_runtime.engine.test_engine import ANYWHERE


def test_the_busy_share_follows_what_was_computed_within_a_few_seconds() -> None:
    busy = BusyShare()
    ns = 0
    for step in range(50):
        found = busy.read(0.2 * step, ns, 2)
        ns += int(0.2e9)  # one of two workers is always computing
    assert found == pytest.approx(0.5, abs=0.02)
    for step in range(50, 100):
        found = busy.read(0.2 * step, ns, 2)
    assert found < 0.01


@given(st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(-(10**9), 10**10)), max_size=30))
def test_the_busy_share_is_a_share(steps: list[tuple[float, int]]) -> None:
    busy, now, ns = BusyShare(), 0.0, 0
    for passed, computed in steps:
        now, ns = now + passed, ns + computed
        assert 0.0 <= busy.read(now, ns, 1) <= 1.0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 20.0), max_size=30))
def test_the_latency_histogram_counts_each_answer_once_in_its_bucket(taken: list[float]) -> None:
    stats = ModelStats("m", "1")
    for seconds in taken:
        stats.succeeded(seconds, 0.0, 1)
    bounds = (*LATENCY_BUCKETS_S, float("inf"))
    for i, bound in enumerate(bounds):
        within = sum(seconds <= bound for seconds in taken)
        assert sum(stats.latency_counts[: i + 1]) == within
    assert stats.latency_sum_s == pytest.approx(sum(taken))


def test_a_snapshot_keeps_what_was_counted_by_batch_size() -> None:
    stats = ModelStats("m", "1")
    stats.executed(2, 10, 100, 1)
    stats.executed(2, 20, 200, 2)
    stats.executed(8, 5, 50, 5)
    stats.succeeded(0.5, 0.25, 77)
    found = stats.snapshot()
    stats.executed(8, 5, 50, 5)
    assert (found.inference_count, found.execution_count, found.last_inference_ms) == (12, 3, 77)
    assert found.queue == DurationStat(1, 250_000_000)
    assert found.batches == (
        BatchStat(2, DurationStat(2, 30), DurationStat(2, 300), DurationStat(2, 3)),
        BatchStat(8, DurationStat(1, 5), DurationStat(1, 50), DurationStat(1, 5)),
    )
    both = merge_statistics([found, found])
    assert (both.inference_count, both.batches[0].compute_infer.count) == (24, 4)


def test_callers_that_send_every_batch_size_do_not_fill_the_memory() -> None:
    stats = ModelStats("m", "1")
    for rows in range(1, 20_000):
        stats.executed(rows, 1, 1, 1)
    found = stats.snapshot()
    assert len(found.batches) < 300
    assert found.inference_count == sum(range(1, 20_000))
    assert sum(batch.compute_infer.count for batch in found.batches) == 19_999


async def test_a_scrape_tells_each_outcome_of_each_model_once() -> None:
    def compute(x: Floats) -> Floats:
        if (x == 13.0).any():
            raise InvalidInput("13")
        return x

    backend = GateBackend(compute)
    engine = Engine(EngineOptions(threads=1), {"gate": lambda artifact, options: backend})
    await engine.load(ModelSource.of("m", "7", ANYWHERE, "gate", ModelOptions()))
    for value in (1.0, 2.0):
        await engine.infer(request([value]), "7", deadline=later())
    with pytest.raises(InvalidInput):
        await engine.infer(request([13.0]), "7", deadline=later())
    with pytest.raises(DeadlineExceeded):
        await engine.infer(request([1.0]), "7", deadline=later(-1.0))
    backend.gate.clear()
    engine.runner("m", "7").service.saw(1, 10.0)
    gone = asyncio.create_task(engine.infer(request([1.0]), "7", deadline=later()))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    registry = CollectorRegistry()
    registry.register(EngineCollector(engine))
    samples = {
        (sample.name, sample.labels.get("outcome"), sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.labels["model"] == "m" and sample.labels["version"] == "7"
    }
    requests = "prime_spark_engine_requests_total"
    outcomes = {outcome: n for (name, outcome, _), n in samples.items() if name == requests}
    assert outcomes == {"success": 2, "error": 1, "expired": 1, "rejected": 0, "cancelled": 1}
    duration = "prime_spark_engine_request_duration_seconds"
    assert samples[f"{duration}_count", None, None] == 2
    assert samples[f"{duration}_bucket", None, "+Inf"] == 2
    assert samples["prime_spark_engine_rows_total", None, None] == 2
    assert samples["prime_spark_engine_queued_requests", None, None] == 0
    await engine.close()
