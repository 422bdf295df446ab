"""Sites of the settings on a real cluster: where data may go, and where callers come from."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from cluster.identity.keys import load_signing_key
from cluster.identity.tokens import issue
from cluster.registry import ArtifactFile, EmbeddedRegistry, ModelCard
from edge_runtime.backends.base import BackendOptions
from edge_runtime.backends.onnx import load_onnx
from tests.contract.models import FEATURES, write_models
from tests.e2e.cluster import TestCluster, own_cluster
from tests.serve_apps.gateway.mmdb import write

pytest.importorskip("maxminddb", reason="the reader of GeoIP databases (extra `geo`)")

SITES = [
    {"name": "cloud-1", "latitude": 50.11, "longitude": 8.68, "zone": "eu"},
    {"name": "edge-1", "latitude": 40.71, "longitude": -74.01, "zone": "us"},
]
BOSTON = {"location": {"latitude": 42.36, "longitude": -71.06}}
SYDNEY = {"location": {"latitude": -33.87, "longitude": 151.21}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """A cluster with a site in each of two zones, where this machine is said to be in Boston."""
    folder = tmp_path_factory.mktemp("sites")
    write(folder / "city.mmdb", {"127.0.0.0/8": BOSTON, "192.0.2.0/24": SYDNEY})
    with own_cluster(
        SITES=json.dumps(SITES),
        RESIDENCY="[{tenant: acme, zones: [us]}]",
        GEOIP__DATABASE=str(folder / "city.mmdb"),
    ) as made:
        made.must("up")
        _serve(made, folder, "mlp")
        yield made


def _serve(cluster: TestCluster, folder: Path, name: str) -> None:
    source = next(s for s in write_models(folder) if (s.model, s.version) == (name, "1"))
    file = source.variants[0].path
    EmbeddedRegistry(cluster.home.registry).register(
        name,
        "1",
        signature=load_onnx(file, BackendOptions()).signature,
        artifacts=[ArtifactFile("onnx", file)],
        card=ModelCard(),
        actor="test",
    )
    cluster.must("model", "serve", f"{name}@1", "--placement", "edge,cloud,colocated")


def client(cluster: TestCluster, tenant: str) -> httpx.Client:
    key = load_signing_key(cluster.home)
    token = issue(key, "tester", ["infer", "metrics:read"], 600.0, time.time(), tenant=tenant)
    headers = {"authorization": f"Bearer {token}"}
    return httpx.Client(
        base_url=f"http://{cluster.rest}", headers=headers, timeout=30.0, trust_env=False
    )


def ask(http: httpx.Client, **headers: str) -> httpx.Response:
    x = {"name": "x", "datatype": "FP32", "shape": [1, FEATURES], "data": [0.5] * FEATURES}
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"id": str(time.monotonic_ns()), "inputs": [x]}
    return http.post("/v2/models/mlp/infer", json=body, headers=fields)


def latest(http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/v2/prime-spark/decisions?limit=1").json()["decisions"][0]
    return found


def test_a_tenant_is_served_in_its_zone_and_nowhere_else(cluster: TestCluster) -> None:
    with client(cluster, "acme") as http:
        answers = [ask(http, prime_spark_site="cloud-1") for _ in range(20)]
        assert {answer.headers["prime-spark-target"] for answer in answers} == {"edge/edge-1"}
        refused = ask(http, prime_spark_tier="cloud")
        assert refused.status_code == 503
        assert "cloud: zone_not_allowed" in refused.json()["error"]
    with client(cluster, "other") as http:
        assert ask(http, prime_spark_tier="cloud").headers["prime-spark-target"] == "cloud"


def test_a_caller_comes_from_the_site_near_its_address_whatever_it_claims(
    cluster: TestCluster,
) -> None:
    with client(cluster, "other") as http:
        for claim in ({}, {"x_forwarded_for": "192.0.2.1"}):
            assert ask(http, **claim).status_code == 200
            found = latest(http)
            assert (found["origin_site"], found["origin_from"]) == ("edge-1", "geoip")
            assert found["rtt_from"] == "measured"
            told = cluster.must("route", "explain", found["id"])
            assert "came from edge-1, by its address; the way to the target: measured" in told
        assert ask(http, prime_spark_site="cloud-1").status_code == 200
        assert latest(http)["origin_from"] == "caller"
        credential = {"authorization": http.headers["authorization"]}
        triton = triton_grpc.InferenceServerClient(cluster.grpc)
        x = triton_grpc.InferInput("x", [1, FEATURES], "FP32")
        x.set_data_from_numpy(np.zeros((1, FEATURES), np.float32))
        triton.infer("mlp", [x], headers={**credential, "x-forwarded-for": "192.0.2.1"})
        assert latest(http)["origin_from"] == "geoip"
        triton.close()


def test_a_database_that_is_not_there_is_said_before_anything_starts() -> None:
    with own_cluster(GEOIP__DATABASE="/nowhere/city.mmdb") as other:
        done = other.command("up")
    assert done.code == 3
    assert "/nowhere/city.mmdb" in done.err
