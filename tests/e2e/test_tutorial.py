"""The tutorial, run as a reader would: its shell blocks in order, in one shell."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, blocks
from tests.e2e.cluster import own_cluster

NOT_HERE = ("make setup\n", ". .venv/bin/activate\n")  # the test runs in what they made
DEFAULT_PORTS = {"127.0.0.1:8000": "rest", "127.0.0.1:9000": "grpc"}


@pytest.mark.timeout(400)
def test_every_command_of_the_tutorial_works_in_its_order(tmp_path: Path) -> None:
    found = blocks(DOCS / "tutorial" / "index.md", "sh")
    steps = [block for block in found if block not in NOT_HERE]
    assert len(found) - len(steps) == len(NOT_HERE)
    with own_cluster() as cluster:
        script = "\n".join(["set -euo pipefail", *steps])
        for address, attribute in DEFAULT_PORTS.items():
            script = script.replace(address, getattr(cluster, attribute))
        env = {
            **cluster.env,
            "PATH": f"{Path(sys.executable).parent}:{cluster.env['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        done = subprocess.run(
            [shutil.which("bash") or "bash", "-c", script],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
        )
        out = done.stdout
        assert done.returncode == 0, f"{out[-3000:]}\n{done.stderr[-3000:]}"
        assert out.count("HTTP/1.1 200 OK") == 3
        assert "prime-spark-target: edge/edge-1" in out
        assert out.count("sees [0 1 2 3 4 5 6 7] true [0 1 2 3 4 5 6 7]") == 2
        assert out.rstrip().endswith("stopped")
