"""An edge node whose parts are killed one by one: the site's clients never notice.

The runtime outlives the raylet, the supervisor and the head's opinion of both; what was killed is
back by itself or by one command.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest

from cluster.processes import belonging, is_running
from cluster.state import read_state
from cluster.supervisor import NodeState, read_node
from tests.e2e.cluster import TestCluster, own_cluster, wait_until
from tests.edge_runtime.onnx_models import identity

ASK_EVERY_S = 0.02
REQUEST = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
LABELS = {"name": "edge", "tier": "edge", "site": "edge-1"}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestCluster]:
    """A cluster of its own, with a model on the edge that did not come from there."""
    model = identity(tmp_path_factory.mktemp("model") / "same.onnx", "FP32")
    with own_cluster() as found:
        found.must("up")
        found.must("edge", "models", "add", "same", "1", str(model))
        yield found


def processes(cluster: TestCluster) -> list[psutil.Process]:
    parts = belonging(cluster.home, read_state(cluster.home).sessions)
    return [process for found in parts.values() for process in found]


def runtime_of(cluster: TestCluster) -> psutil.Process | None:
    for process in processes(cluster):
        try:
            if process.cmdline()[-2:] == ["edge", "run"] and is_running(process):
                return process
        except psutil.Error:
            continue
    return None


def raylet_of(cluster: TestCluster) -> psutil.Process:
    """Return the raylet of the edge node, which is not the head's."""
    session = state_of(cluster).raylet_sid
    for process in psutil.process_iter():
        try:
            if process.name() == "raylet" and os.getsid(process.pid) == session:
                return process
        except (psutil.Error, OSError):
            continue
    raise AssertionError("the edge node has no raylet")


def state_of(cluster: TestCluster) -> NodeState:
    found = read_node(cluster.home)
    assert found is not None
    return found


def edge_node(cluster: TestCluster) -> Mapping[str, Any] | None:
    """Return the head's row of the edge node, if it is alive."""
    rows = cluster.json("status")["nodes"]
    alive = [row for row in rows if row["state"] == "alive" and row["name"] == "edge"]
    return alive[0] if len(alive) == 1 else None


@contextmanager
def site_clients(cluster: TestCluster) -> Iterator[None]:
    """Ask the runtime at a steady rate meanwhile; every request has to be answered."""
    failures: list[str] = []
    answered = 0
    is_over = threading.Event()
    headers = {"authorization": f"Bearer {cluster.token('infer')}"}
    url = f"http://127.0.0.1:{cluster.settings.edge.ports.rest}/v2/models/same/infer"

    def ask() -> None:
        nonlocal answered
        with httpx.Client(headers=headers, timeout=10.0, trust_env=False) as client:
            while not is_over.wait(ASK_EVERY_S):
                try:
                    answer = client.post(url, json=REQUEST)
                except httpx.HTTPError as error:
                    failures.append(repr(error))
                    continue
                if answer.status_code != 200 or answer.json()["outputs"][0]["data"] != [1, 2, 3]:
                    failures.append(f"{answer.status_code}: {answer.text}")
                answered += 1

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
        wait_until(lambda: answered > 10, "clients are answered")
    finally:
        is_over.set()
        asking.join(20)
    assert failures == []


def await_join(cluster: TestCluster, starts: int) -> None:
    wait_until(
        lambda: (s := state_of(cluster)).raylet == "joined" and s.raylet_starts > starts,
        "a new raylet has joined",
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_raylet_that_is_lost_is_replaced_under_the_running_runtime(
    node: TestCluster, number: signal.Signals
) -> None:
    runtime, before = runtime_of(node), state_of(node)
    assert runtime is not None
    with site_clients(node):
        raylet_of(node).send_signal(number)
        await_join(node, before.raylet_starts)
        row = wait_until(lambda: edge_node(node), "the head knows the new node", every_s=0.5)
    assert {name: row[name] for name in LABELS} == LABELS
    assert runtime.is_running()
    assert state_of(node).runtime_starts == before.runtime_starts


def test_a_supervisor_that_is_killed_is_replaced_by_one_that_takes_over(node: TestCluster) -> None:
    runtime, raylet, before = runtime_of(node), raylet_of(node), state_of(node)
    assert runtime is not None
    with site_clients(node):
        supervisor = psutil.Process(before.pid)
        supervisor.kill()
        wait_until(lambda: not is_running(supervisor), "the supervisor has ended")
        node.must("node", "start", "edge")
    after = state_of(node)
    assert after.pid != before.pid
    assert (after.raylet_starts, after.runtime_starts) == (
        before.raylet_starts,
        before.runtime_starts,
    )
    assert raylet_of(node) == raylet
    assert runtime_of(node) == runtime


def test_a_runtime_that_is_killed_is_started_again_and_ray_is_left_alone(node: TestCluster) -> None:
    runtime, raylet, before = runtime_of(node), raylet_of(node), state_of(node)
    assert runtime is not None
    runtime.kill()
    port = node.settings.edge.ports.rest

    def is_ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/v2/health/ready").status_code == 200
        except httpx.HTTPError:
            return False

    wait_until(lambda: runtime_of(node) not in (None, runtime), "another runtime")
    wait_until(is_ready, "it takes requests")
    with site_clients(node):
        assert raylet_of(node) == raylet
    assert state_of(node).raylet_starts == before.raylet_starts
    wait_until(lambda: edge_node(node), "the head knows the node", every_s=0.5)


def test_down_leaves_nothing_of_a_node_that_was_mended(node: TestCluster) -> None:
    seen = processes(node)
    assert seen
    node.must("down")
    assert processes(node) == []
    assert [process for process in seen if is_running(process)] == []
    assert not node.home.edge_run.exists()
    assert not node.home.run.exists()
