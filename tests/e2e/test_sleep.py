"""A cloud tier without replicas on a cluster of its own: who needs it wakes it, nobody is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest

from cluster.status import read_deployments, read_targets
from tests.e2e.cluster import TestCluster, own_cluster, publish_digits, wait_until
from tests.e2e.test_gateway import infer_body

pytestmark = pytest.mark.timeout(300)
SETTINGS = {
    "INFERENCE__MIN_REPLICAS": "0",
    "INFERENCE__SLEEP_AFTER_S": "1",
    "INFERENCE__START_S": "8",
    "INFERENCE__SCALING": "predictive",
}
URL = "/v2/models/digits/infer"
# One is well short of a start of the cloud, the other well over it.
SHORT, LONG = ({"prime-spark-timeout-ms": text} for text in ("2500", "60000"))
IN_CLOUD = {"prime-spark-tier": "cloud"}


@pytest.fixture(scope="module")
def sleepy() -> Iterator[TestCluster]:
    with own_cluster(**SETTINGS) as found:
        found.must("up")
        publish_digits(found)
        yield found


def _state(cluster: TestCluster) -> str:
    return next(str(t["state"]) for t in read_targets(cluster.settings) if t["name"] == "cloud")


def _replicas(cluster: TestCluster) -> int:
    rows = read_deployments(cluster.settings)
    return sum(int(row["replicas"]) for row in rows if row["application"] == "cloud")


def _metrics(client: httpx.Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    rows = (line.rpartition(" ") for line in lines if line.startswith("prime_spark_gateway_"))
    return {name.removeprefix("prime_spark_gateway_"): float(value) for name, _, value in rows}


def test_who_has_time_waits_for_the_cloud_and_who_has_none_wakes_it(sleepy: TestCluster) -> None:
    wait_until(lambda: _state(sleepy) == "asleep" and not _replicas(sleepy), "the cloud sleeps")
    served = sleepy.must("model", "serve", "digits@production", "--placement", "edge,cloud")
    assert "cloud sleeps" in served
    assert "asleep" in sleepy.must("targets")
    wait_until(lambda: sleepy.json("status")["state"] == "running", "all runs")
    body = infer_body(np.zeros((1, 1, 8, 8), np.float32))
    name = str(uuid4())
    named = body.replace(b"{", b'{"id":"' + name.encode() + b'",', 1)
    with sleepy.http("infer", "metrics:read") as client, ThreadPoolExecutor(8) as pool:

        def ask(content: bytes, *headers: dict[str, str]) -> httpx.Response:
            merged: dict[str, str] = {}
            for some in headers:
                merged |= some
            return client.post(URL, content=content, headers=merged, timeout=70.0)

        near = wait_until(lambda: _answered(ask(body, SHORT)), "the edge has loaded it")
        assert near.headers["prime-spark-target"] == "edge/edge-1"
        assert _state(sleepy) == "asleep"
        refused = ask(body, SHORT, IN_CLOUD)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "6")
        assert _state(sleepy) == "waking"
        waiting = [pool.submit(ask, named, LONG, IN_CLOUD) for _ in range(8)]
        answers = [each.result() for each in waiting]
        assert [answer.status_code for answer in answers] == [200] * 8
        assert {answer.headers["prime-spark-target"] for answer in answers} == {"cloud"}
        assert _state(sleepy) == "up"
        assert ask(body, SHORT, IN_CLOUD).status_code == 200
        assert {(line["from"], line["to"]) for line in sleepy.json("scaling")["decisions"]} >= {
            (1, 0),
            (0, 1),
        }
        found = _metrics(client)
        assert found['wakes_total{target="cloud"}'] == 1
        assert found['wake_waits_total{outcome="served",target="cloud"}'] == 8
        assert found['wake_wait_seconds_total{target="cloud"}'] > 0
    decisions: list[Any] = sleepy.json("route", "explain", name)
    asleep = {v["target"]: v["is_asleep"] for v in decisions[0]["considered"]}
    assert asleep["cloud"]
    assert not asleep["edge/edge-1"]
    assert decisions[0]["expected_ms"] > 1000
    assert "cloud (asleep) <-" in sleepy.must("route", "explain", name)


def _answered(answer: httpx.Response) -> httpx.Response | None:
    return answer if answer.status_code == 200 else None
