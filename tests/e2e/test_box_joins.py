"""A box that joins a head as another machine would: with a home of its own, its runtime kept by
somebody else, and nothing of the head's home to be seen or written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from cluster.home import Home
from cluster.ports import free_port
from cluster.supervisor import read_node
from tests.e2e.cluster import TestCluster, own_cluster, wait_until
from tests.edge_runtime.onnx_models import identity

ELSEWHERE = 'mount -t tmpfs -o ro,size=4k none "$0" && exec "$@"'  # $0: what is not to be seen
REQUEST = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
SITE = "north"


@dataclass(frozen=True)
class Box:
    """What runs below a home of its own."""

    home: Home
    head: Home
    port: int
    env: dict[str, str]

    def command(self, *words: str) -> subprocess.Popen[bytes]:
        log = (self.home.root / f"{words[0]}-{words[1]}.log").open("wb")
        return subprocess.Popen(
            [
                *("unshare", "--mount", "sh", "-c", ELSEWHERE, str(self.head.root)),
                *(sys.executable, "-m", "cluster.cli.main", *words),
            ],
            env=self.env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        child = self.command(*words)
        try:
            yield child
        finally:
            child.terminate()
            child.wait(40)

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/v2/health/ready").status_code == 200
        except httpx.HTTPError:
            return False


@pytest.fixture
def head() -> Iterator[TestCluster]:
    with own_cluster(EDGE__HERE="false", EDGE__SITE=SITE) as found:
        yield found


@pytest.fixture
def box(head: TestCluster) -> Iterator[Box]:
    probe = ["unshare", "--mount", "sh", "-c", ELSEWHERE, str(head.home.root), "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("the head's home cannot be hidden from a box here (it takes root)")
    root = Path(tempfile.mkdtemp(prefix="ps-"))
    port = free_port()
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PRIME_SPARK_", "RAY_", "COV_", "COVERAGE_"))
    }
    env |= {
        "HOME": str(root),
        "PRIME_SPARK_HOME": str(root),
        "PRIME_SPARK_EDGE__SITE": SITE,
        "PRIME_SPARK_EDGE__HEAD": f"127.0.0.1:{head.settings.ports.gcs}",
        "PRIME_SPARK_EDGE__PORTS__REST": str(port),
        "PRIME_SPARK_EDGE__PORTS__GRPC": str(free_port()),
    }
    yield Box(Home.at(root), head.home, port, env)
    shutil.rmtree(root)


@pytest.mark.timeout(240)
def test_a_box_of_another_machine_serves_through_the_head(
    head: TestCluster, box: Box, tmp_path: Path
) -> None:
    head.must("up")
    model = identity(tmp_path / "same.onnx", "FP32")
    head.must("model", "register", "same", "1", str(model))
    for name in ("ray-token", "jwks.json"):
        shutil.copy(head.home.identity / name, box.home.identity)
    assert box.command("edge", "models", "add", "same", "1", str(model)).wait(30) == 0

    with box.running("edge", "run") as runtime, head.http("infer") as client:
        wait_until(box.is_ready, "the runtime is ready")
        with box.running("node", "join", "--no-runtime") as guest:
            head.must("model", "serve", "same@1", "--placement", "edge")

            def answer() -> httpx.Response | None:
                found = client.post("/v2/models/same/infer", json=REQUEST)
                return found if found.status_code == 200 else None

            found = wait_until(answer, "the box answers through the head", every_s=0.5)
            assert found.json()["outputs"][0]["data"] == [1, 2, 3]
            assert found.headers["prime-spark-target"] == f"edge/{SITE}"
            assert found.headers["prime-spark-rung"] == "cpu-fp32"
            assert list(box.home.ray.glob("session_2*")), "Ray keeps its session on the box"
            assert list(box.home.logs.glob("inference-edge-*")), "so does the replica its log"
            assert not list(head.home.logs.glob("inference-edge-*"))

            runtime.kill()
            time.sleep(2.0)
            state = read_node(box.home)
            assert state is not None
            assert (state.raylet, state.runtime_starts) == ("joined", 0)
            assert not box.is_ready(), "its keeper starts it, nobody else"
            with box.running("edge", "run"):
                wait_until(box.is_ready, "the runtime is ready again")
                wait_until(answer, "the box answers through the head again", every_s=0.5)
                guest.terminate()
                assert guest.wait(40) == 0
                assert box.is_ready(), "the guest has gone, the runtime stays"
