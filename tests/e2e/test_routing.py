"""Where requests go on a running cluster, and what its people are told of it."""

from __future__ import annotations

from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from tests.e2e.cluster import TestCluster
from tests.e2e.test_gateway import infer_body

TestSet = tuple[NDArray[np.float32], NDArray[np.int64]]


def test_why_a_request_went_where_it_went_is_explained_by_its_id(
    cluster: TestCluster, test_set: TestSet
) -> None:
    wanted = f"mine/{uuid4()}"
    body = infer_body(test_set[0][:1]).replace(b"{", b'{"id":"' + wanted.encode() + b'",', 1)
    with cluster.http("infer") as client:
        answer = client.post("/v2/models/digits/infer", content=body)
    assert answer.status_code == 200
    *_, decision = cluster.json("route", "explain", wanted)  # one more where it was tried again
    assert decision["target"] == answer.headers["prime-spark-target"]
    assert decision["reason"] == answer.headers["prime-spark-reason"]
    considered = {verdict["target"] for verdict in decision["considered"]}
    assert considered == {"colocated", "cloud", "edge/edge-1"}
    shown = cluster.must("route", "explain", wanted)
    assert all(name in shown for name in considered)
    assert wanted in cluster.must("route", "last", "--count", "5")


def test_a_request_that_nobody_remembers_is_not_there(cluster: TestCluster) -> None:
    done = cluster.command("route", "explain", "never-sent")
    assert (done.code, done.out) == (3, "")
    assert "never-sent" in done.err


def test_the_targets_are_shown_with_what_is_known_of_them(cluster: TestCluster) -> None:
    (gateway,) = cluster.json("targets")
    known = {
        target["name"]: model
        for target in gateway["targets"]
        for model in target["models"]
        if model["model"] == "digits"
    }
    assert set(known) == {"colocated", "cloud", "edge/edge-1"}
    assert all(model["service_ms"] > 0.0 for model in known.values())
    assert all(known[name]["heard_s"] < 5.0 for name in ("cloud", "edge/edge-1"))
    assert "edge/edge-1" in cluster.must("targets")
