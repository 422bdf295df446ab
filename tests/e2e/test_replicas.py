"""Two replicas of the cloud tier that can do all calls at once: nobody waits before one of them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from load.waiting import python_path
from tests.e2e.cluster import TestCluster, own_cluster, publish_digits, wait_until

pytestmark = pytest.mark.timeout(300)
WORK_S = 0.3
SLOTS = 4  # of a replica
CALLS = 25  # of each caller
SETTINGS = {
    "EDGE__ENABLED": "false",
    "INFERENCE__MIN_REPLICAS": "2",
    "INFERENCE__MAX_REPLICAS": "2",
    "ENGINE__THREADS": str(SLOTS),
}
IMAGE = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.0] * 64}


@pytest.fixture(scope="module")
def cluster() -> Iterator[TestCluster]:
    with own_cluster(**SETTINGS) as found:
        waits = python_path(found.home.root / "waiting", WORK_S)
        waiting = replace(found, env={**found.env, "PYTHONPATH": waits})
        waiting.must("up")
        publish_digits(found)
        options = ("--option", "max_batch_size=1", "--option", f"instances={SLOTS}")
        waiting.must("model", "serve", "digits@production", "--placement", "cloud", *options)
        yield waiting


def _spent(client: httpx.Client) -> tuple[float, float]:
    """Return seconds that requests waited before replicas, and that they ran there, ever."""
    found: list[dict[str, Any]] = client.get("/v2/models/digits/stats").json()["model_stats"]
    stats = [model["inference_stats"] for model in found]
    queued, ran = (sum(each[part]["ns"] for each in stats) for part in ("queue", "compute_infer"))
    return 1e-9 * queued, 1e-9 * ran


def test_calls_go_to_the_replica_that_has_fewer(cluster: TestCluster) -> None:
    with cluster.http("infer") as client, ThreadPoolExecutor(2 * SLOTS) as callers:
        wait_until(
            lambda: client.get("/v2/models/digits/ready").status_code == 200, "digits is served"
        )
        asked = [callers.submit(_ask, client) for _ in range(2 * SLOTS)]
        codes = [code for each in asked for code in each.result()]
        assert set(codes) == {200}
        all_s = 0.9 * WORK_S * len(codes)
        wait_until(lambda: _spent(client)[1] > all_s, "what the last calls took")
        queued_s, ran_s = _spent(client)
    assert queued_s < 0.1 * ran_s, f"{queued_s:.2f} s of {ran_s:.2f}; 26 % by Serve's own choice"


def _ask(client: httpx.Client) -> list[int]:
    """Ask again and again; return the status codes."""
    answers = (
        client.post("/v2/models/digits/infer", json={"inputs": [IMAGE]}) for _ in range(CALLS)
    )
    return [answer.status_code for answer in answers]
