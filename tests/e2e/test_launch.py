"""`up`, `down`, `status`, `doctor`: nothing left behind, nothing open that should not be."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator

import psutil
import pytest

from cluster.processes import belonging, is_running
from cluster.state import read_state
from tests.e2e.cluster import PORTS, TestCluster, own_cluster, wait_until


@pytest.fixture
def fresh() -> Iterator[TestCluster]:
    """A home where nothing was started yet."""
    with own_cluster() as found:
        yield found


def everything_of(cluster: TestCluster) -> list[psutil.Process]:
    parts = belonging(cluster.home, read_state(cluster.home).sessions)
    return [process for found in parts.values() for process in found]


def assert_nothing_left(cluster: TestCluster, seen: list[psutil.Process]) -> None:
    assert everything_of(cluster) == []
    assert [process for process in seen if is_running(process)] == []
    assert not cluster.home.run.exists()
    for name in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", int(cluster.env[f"PRIME_SPARK_{name}"])))


class TestRunning:
    def test_up_again_changes_nothing(self, cluster: TestCluster) -> None:
        before = {process.pid for process in everything_of(cluster)}
        cluster.must("up")
        after = {process.pid for process in everything_of(cluster)}
        gone = before - after
        # Ray's idle workers come and go by themselves; the parts do not.
        assert all(not psutil.pid_exists(pid) for pid in gone)
        assert len(gone) < 5

    def test_status_shows_nodes_targets_deployments_and_models(self, cluster: TestCluster) -> None:
        found = wait_until(
            lambda: (s := cluster.json("status"))["state"] == "running" and s, "running"
        )
        alive = {node["name"]: node for node in found["nodes"] if node["state"] == "alive"}
        assert {name: node["tier"] for name, node in alive.items()} == {
            "head": "cloud",
            "edge": "edge",
        }
        assert {target["name"] for target in found["targets"]} == {
            "colocated",
            "cloud",
            "edge/edge-1",
        }
        assert {entry["application"] for entry in found["deployments"]} == {
            "cloud",
            "edge",
            "gateway",
        }
        assert "digits" in {model["model"] for model in found["models"]}
        assert found["endpoints"]["rest"].endswith(cluster.rest)

    def test_the_edge_deployment_runs_on_the_edge_node(self, cluster: TestCluster) -> None:
        names = [
            process.name()
            for process in belonging(cluster.home, read_state(cluster.home).sessions)["edge"]
        ]
        assert any("edge" in name for name in names if name.startswith("ray::ServeReplic"))

    def test_doctor_finds_every_listener_on_loopback_and_every_credential_asked_for(
        self, cluster: TestCluster
    ) -> None:
        wait_until(lambda: cluster.json("status")["state"] == "running", "running")
        report = cluster.json("doctor")
        assert [check for check in report["checks"] if not check["is_good"]] == []
        assert len(report["listeners"]) > 8
        assert [found for found in report["listeners"] if not found["is_loopback"]] == []
        assert all(found["access"] for found in report["listeners"])

    def test_a_taken_port_is_named_with_its_process(
        self, cluster: TestCluster, fresh: TestCluster
    ) -> None:
        taken = cluster.env["PRIME_SPARK_PORTS__REST"]
        done = fresh.command("--set", f"ports.rest={taken}", "up")
        assert done.code == 4
        assert f"port {taken} is taken by process" in done.err
        assert "haproxy" in done.err

    def test_ray_refuses_a_driver_without_its_token(self, cluster: TestCluster) -> None:
        with cluster.http() as client:
            dashboard = cluster.env["PRIME_SPARK_PORTS__DASHBOARD"]
            url = f"http://127.0.0.1:{dashboard}/api/jobs/"
            assert client.get(url).status_code == 401
            token = cluster.must("token", "--ray").strip()
            answer = client.get(url, headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == 200


@pytest.mark.timeout(300)
class TestEnding:
    def test_down_leaves_nothing_after_the_head_was_killed(self, fresh: TestCluster) -> None:
        fresh.must("up")
        seen = everything_of(fresh)
        parts = belonging(fresh.home, read_state(fresh.home).sessions)
        for process in parts["head"]:
            if process.name() in ("raylet", "gcs_server"):
                process.send_signal(signal.SIGKILL)
        fresh.must("down")
        assert_nothing_left(fresh, seen)

    def test_down_leaves_nothing_after_the_launcher_was_killed(self, fresh: TestCluster) -> None:
        launcher = fresh.begin("up")
        wait_until(lambda: len(everything_of(fresh)) >= 3, "the head is starting")
        launcher.send_signal(signal.SIGKILL)
        launcher.wait(10)
        seen = everything_of(fresh)
        fresh.must("down")
        assert_nothing_left(fresh, seen)

    def test_down_with_nothing_running_says_so(self, fresh: TestCluster) -> None:
        assert "nothing was running" in fresh.must("down")
        assert fresh.command("status").code == 5

    def test_two_commands_at_once_do_not_mix(self, fresh: TestCluster) -> None:
        first = fresh.begin("up")
        wait_until(lambda: len(everything_of(fresh)) >= 1, "the first one is at work")
        second = fresh.command("down")
        assert second.code == 4
        assert "another `prime-spark` command" in second.err
        os.kill(first.pid, signal.SIGINT)
        first.wait(60)
        wait_until(lambda: not everything_of(fresh), "an interrupted start takes all down")
        assert time.monotonic() > 0
