"""What a request cost is in the decision log, in the metrics and in the request log, alike."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tests.e2e.cluster import TestCluster, wait_until


def test_a_request_costs_the_same_wherever_one_looks(
    cluster: TestCluster, test_set: tuple[NDArray[np.float32], NDArray[np.int64]]
) -> None:
    images = test_set[0][:4]
    tensor = {"name": "image", "datatype": "FP32", "shape": list(images.shape)}
    body = {"id": "cost-1", "inputs": [{**tensor, "data": images.reshape(-1).tolist()}]}
    headers = {"prime-spark-tier": "cloud", "prime-spark-site": "elsewhere"}
    with cluster.http("infer", "metrics:read") as client:
        answer = client.post("/v2/models/digits/infer", content=orjson.dumps(body), headers=headers)
        assert answer.status_code == 200, answer.text
        decisions = client.get("/v2/prime-spark/decisions?limit=1000").json()["decisions"]
        metrics = client.get("/metrics").text
    (decided,) = (found for found in decisions if found["id"] == "cost-1")
    parts = decided["parts"]
    assert parts["replica"] > 0.0
    assert parts["egress"] >= images.nbytes * 9e-11
    assert sum(parts.values()) == decided["usd"]
    assert decided["carbon_g"] > 0.0

    def logged() -> Any:
        files = sorted(cluster.home.requests.glob("requests-gateway-*.jsonl"))
        lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return next((line for line in lines if line["id"] == "cost-1"), None)

    found = wait_until(logged, "the line of the request")
    assert (found["usd"], found["parts"]) == (decided["usd"], parts)
    assert (found["v"], found["target"], found["origin_site"]) == (1, "cloud", "elsewhere")
    assert (found["bytes"], found["outcome"]) == (images.nbytes, "ok")
    name = 'prime_spark_gateway_cost_usd_total{part="egress",target="cloud"} '
    (total,) = (line for line in metrics.splitlines() if line.startswith(name))
    assert float(total.removeprefix(name)) >= parts["egress"]
