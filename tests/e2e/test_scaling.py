"""Predictive scaling on a cluster of its own: replicas come and go, and nobody is left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from cluster.nodes import HEAD
from cluster.processes import belonging
from cluster.state import read_state
from cluster.status import read_deployments
from tests.e2e.cluster import TestCluster, own_cluster, publish_digits, wait_until

pytestmark = pytest.mark.timeout(400)
SETTINGS = {
    "EDGE__ENABLED": "false",
    "INFERENCE__SCALING": "predictive",
    "INFERENCE__MAX_REPLICAS": "2",
    "INFERENCE__TARGET_ONGOING_REQUESTS": "0.4",
    "INFERENCE__UPSCALE_DELAY_S": "0.5",
    "INFERENCE__DOWNSCALE_DELAY_S": "3",
    "INFERENCE__SEASON_S": "3600",  # so that this load is not expected again while a test runs
    "INFERENCE__START_S": "5",
    "INFERENCE__UTILISATION": "0.05",  # so that a small machine can have a load for two
}


@pytest.fixture(scope="module")
def scaling_cluster() -> Iterator[TestCluster]:
    with own_cluster(**SETTINGS) as found:
        found.must("up")
        publish_digits(found)
        found.must("model", "serve", "digits@production", "--placement", "cloud")
        yield found


@contextmanager
def _busy(client: httpx.Client, clients: int = 6) -> Iterator[None]:
    """Keep so many requests in progress."""
    rows = np.zeros((64, 1, 8, 8), np.float32)
    tensor = {"name": "image", "datatype": "FP32", "shape": list(rows.shape)}
    body = {"inputs": [{**tensor, "data": rows.reshape(-1).tolist()}]}
    is_over = threading.Event()

    def send() -> None:
        while not is_over.is_set():
            client.post("/v2/models/digits/infer", json=body)

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def _replicas(cluster: TestCluster) -> int:
    rows = read_deployments(cluster.settings)
    return sum(int(row["replicas"]) for row in rows if row["application"] == "cloud")


def _scaling(cluster: TestCluster) -> Any:
    return cluster.json("scaling")


def _changes(cluster: TestCluster, since: float = 0.0) -> list[tuple[int, int]]:
    """Return the decisions that changed something, the newest first."""
    decisions = _scaling(cluster)["decisions"]
    return [(line["from"], line["to"]) for line in decisions if line["at"] > since]


def _forecast(cluster: TestCluster) -> Any:
    return _scaling(cluster)["forecast"]


def test_replicas_come_with_the_load_and_go_with_it(scaling_cluster: TestCluster) -> None:
    with scaling_cluster.http("infer") as client:
        wait_until(
            lambda: client.get("/v2/models/digits/ready").status_code == 200, "digits is served"
        )
        # What was in progress when it was first deployed may have brought a second replica.
        wait_until(lambda: _replicas(scaling_cluster) == 1, "one replica to begin with", 120.0)
        began_at = time.time()
        with _busy(client):
            wait_until(
                lambda: (1, 2) in _changes(scaling_cluster, since=began_at),
                "a decision for a second replica",
                120.0,
            )
            wait_until(lambda: _replicas(scaling_cluster) == 2, "a second replica", 120.0)
            wait_until(
                lambda: (
                    (found := _forecast(scaling_cluster))
                    and found["rate"] > 0
                    and found["age_s"] < 6  # it is made every few seconds
                ),
                "a forecast of this load",
            )
        # What was seen of a short load may take it up and down more than once.
        wait_until(
            lambda: _changes(scaling_cluster)[0] == (2, 1) and _replicas(scaling_cluster) == 1,
            "one replica again",
            180.0,
        )


def test_a_forecaster_that_is_killed_is_replaced(scaling_cluster: TestCluster) -> None:
    def forecasters() -> list[psutil.Process]:
        home = scaling_cluster.home
        found = belonging(home, read_state(home).sessions).get(HEAD, [])
        return [process for process in found if _is_forecaster(process)]

    (old,) = wait_until(forecasters, "a forecaster")
    before = wait_until(lambda: _forecast(scaling_cluster), "a forecast")["at_s"]
    os.kill(old.pid, signal.SIGKILL)
    wait_until(
        lambda: [process for process in forecasters() if process.pid != old.pid], "a new one"
    )
    wait_until(
        lambda: (found := _forecast(scaling_cluster)) and found["at_s"] > before + 3,
        "a new forecast",
    )


def _is_forecaster(process: psutil.Process) -> bool:
    try:
        return "".join(process.cmdline()).startswith("ray::ServeReplica:scaling:")
    except psutil.Error:
        return False
