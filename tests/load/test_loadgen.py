from __future__ import annotations

import argparse
import asyncio
import threading
import time
from pathlib import Path

import pytest

from load.http1 import request_bytes
from load.loadgen.__main__ import settings
from load.loadgen.summary import read_summary
from load.loadgen.sut import GatewayUnderTest
from tests.load.server import response, serving

SUMMARY = """\
================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 98.67
Result is : {verdict}
  Performance constraints satisfied : Yes
99.00 percentile latency (ns)   : 13428431
"""


@pytest.mark.parametrize(("verdict", "is_valid"), [("VALID", True), ("INVALID", False)])
def test_the_verdict_is_read_from_the_summary(tmp_path: Path, verdict: str, is_valid: bool) -> None:
    (tmp_path / "mlperf_log_summary.txt").write_text(SUMMARY.format(verdict=verdict))
    summary = read_summary(tmp_path)
    assert summary.is_valid is is_valid
    assert ("Completed samples per second", "98.67") in summary.interesting()


def test_a_summary_without_a_verdict_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mlperf_log_summary.txt").write_text("Scenario : Server\n")
    with pytest.raises(ValueError, match="no verdict"):
        read_summary(tmp_path)


@pytest.mark.parametrize("scenario", ["single-stream", "server", "offline"])
def test_each_scenario_has_settings_for_the_time_and_rate_asked_for(scenario: str) -> None:
    options = argparse.Namespace(scenario=scenario, duration_s=1.5, qps=20.0, latency_ms=50.0)
    chosen = settings(options)
    assert chosen.min_duration_ms == 1500
    assert chosen.server_target_latency_ns == 50_000_000
    assert chosen.server_target_qps == chosen.offline_expected_qps == 20.0


async def test_every_query_is_reported_once_and_failures_are_counted() -> None:
    reported: list[int] = []
    ended = threading.Event()

    def report(query: int) -> None:
        reported.append(query)
        if len(reported) == 50:
            ended.set()

    def answer(body: bytes) -> bytes | None:
        match body:
            case b"lost":
                return None
            case b"bad":
                return response(500, b"no")
            case _:
                return response(200, b"")

    requests = [request_bytes("POST", "/", "h", {}, body) for body in (b"good", b"bad", b"lost")]

    def drive(port: int) -> int:
        with GatewayUnderTest("127.0.0.1", port, requests, 4, report) as under_test:
            under_test.send([(query, query % 5 if query % 5 < 3 else 0) for query in range(50)])
            assert ended.wait(30.0)
        return under_test.failures.count

    async with serving(answer) as seen:
        failed = await asyncio.to_thread(drive, seen.port)
    assert sorted(reported) == list(range(50))
    assert failed == 20


async def test_connections_that_the_server_closed_meanwhile_are_replaced_not_used() -> None:
    reported: list[int] = []
    ended = threading.Event()

    def report(query: int) -> None:
        reported.append(query)
        if len(reported) == 8:
            ended.set()

    requests = [request_bytes("POST", "/", "h", {}, b"good")]

    def drive(port: int) -> int:
        with GatewayUnderTest("127.0.0.1", port, requests, 4, report) as under_test:
            time.sleep(0.5)  # longer than the server lets a connection lie idle
            under_test.send([(query, 0) for query in range(8)])
            assert ended.wait(30.0)
        return under_test.failures.count

    async with serving(lambda _: response(200, b""), idle_s=0.2) as seen:
        failed = await asyncio.to_thread(drive, seen.port)
    assert failed == 0
    assert seen.connections > 4
