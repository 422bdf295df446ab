"""Ray nodes of this machine: the head, and the labelled edge node beside it.

Ray runs in token mode always (docs/adr/0003): whoever reaches a Ray port and holds no token is
refused. On one machine its ports are on loopback besides (`cluster.ray_node`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from cluster.config import Settings
from cluster.home import Home
from cluster.processes import Session, start
from edge_runtime.errors import Unavailable

HEAD: Final = "head"
EDGE: Final = "edge"
TIER_LABEL: Final = "prime-spark/tier"
SITE_LABEL: Final = "prime-spark/site"
ACCELERATOR_LABEL: Final = "prime-spark/accelerator"
HAILORT_LABEL: Final = "prime-spark/hailort"
START_TIMEOUT_S: Final = 90.0
NODE_HOME: Final = "PRIME_SPARK_NODE_HOME"  # tells replicas the home of the machine they are on
_LOG_TAIL: Final = 600
_LOOPBACK: Final = ("127.0.0.1", "::1")
_INHERITED: Final = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
)


@dataclass(frozen=True, slots=True)
class Node:
    """A node of this machine: its labels and its share of the processors.

    hailort: version of the accelerator's library, empty where there is none.
    """

    name: str
    tier: str
    site: str
    accelerator: str
    cpus: int
    hailort: str = ""

    @property
    def labels(self) -> str:
        """The labels as `ray start --labels` takes them."""
        pairs = (
            (TIER_LABEL, self.tier),
            (SITE_LABEL, self.site),
            (ACCELERATOR_LABEL, self.accelerator),
            *([(HAILORT_LABEL, self.hailort)] if self.hailort else []),
        )
        return ",".join(f"{key}={value}" for key, value in pairs)


def nodes(settings: Settings) -> Sequence[Node]:
    """Return the nodes that belong on this machine, the head first."""
    head = Node(HEAD, "cloud", settings.site, "none", settings.ray.cpus or os.cpu_count() or 1)
    if not has_edge_node(settings):
        return (head,)
    return (head, edge_node(settings))


def has_edge_node(settings: Settings) -> bool:
    """Tell whether `up` starts an edge node on this machine."""
    return settings.edge.enabled and settings.edge.here


def edge_node(settings: Settings, accelerator: str = "none", hailort: str = "") -> Node:
    """Return the node that this machine is as an edge box; accelerator: what it has."""
    return Node(EDGE, "edge", settings.edge.site, accelerator, settings.edge.cpus, hailort)


def gcs_address(settings: Settings) -> str:
    """Return where the head is reached (host:port)."""
    if settings.edge.head:
        return settings.edge.head
    return f"{settings.ray.address}:{settings.ports.gcs}"


def environment(home: Home, settings: Settings) -> dict[str, str]:
    """Return the environment of every Ray process and of everything that talks to Ray.

    Only what a process needs is inherited, so a shell's leftovers do not change a cluster.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith(("PRIME_SPARK_", "COVERAGE_", "SSL_CERT_"))
    }
    kept[NODE_HOME] = str(home.root)
    kept.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(home.ray_token),
        RAY_SERVE_THROUGHPUT_OPTIMIZED="1",
        RAY_SERVE_ENABLE_DIRECT_INGRESS="0",  # would open a port that asks for no credential
        RAY_USAGE_STATS_ENABLED="0",
        RAY_worker_niceness="0",  # 15 by default, which hands a busy machine to everybody else
        RAY_DEDUP_LOGS="0",
        RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL="minor",  # boxes have the Python of their system
        TMPDIR=str(home.scratch),
        PYTHONUNBUFFERED="1",
    )
    if settings.ray.address in _LOOPBACK:
        kept["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # see cluster.ray_node
    return kept


def begin(home: Home, settings: Settings, node: Node) -> StartingNode:
    """Start a node's processes; wait for them with its `wait`."""
    is_local = settings.ray.address in _LOOPBACK
    program = ["-m", "cluster.ray_node"] if is_local else ["-m", "ray.scripts.scripts"]
    arguments = [
        sys.executable,
        *program,
        "start",
        "--disable-usage-stats",
        f"--node-ip-address={settings.ray.address}",
        f"--node-name={node.name}",
        f"--num-cpus={node.cpus}",
        f"--labels={node.labels}",
        f"--object-store-memory={settings.ray.object_store_bytes}",
        # Any free port: Ray's default range of 10002 to 19999 shuts out ports that are set there.
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--temp-dir={home.ray}",  # else a worker would want the head's path
    ]
    if node.name == HEAD:
        arguments += [
            "--head",
            "--no-monitor",  # nothing scales machines here; `ray up` starts a head of its own
            f"--port={settings.ports.gcs}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={settings.ports.dashboard}",
        ]
    else:
        arguments.append(f"--address={gcs_address(settings)}")
    log = home.logs / f"node-{node.name}.log"
    log_from = log.stat().st_size if log.exists() else 0
    child, session = start(home, node.name, arguments, environment(home, settings), log)
    return StartingNode(node, session, child, log, log_from)


def forget_sessions(home: Home) -> None:
    """Remove what Ray left of sessions before the latest one: each new head begins another."""
    sessions = sorted(home.ray.glob("session_2*"), key=lambda path: path.stat().st_mtime)
    for old in sessions[:-1]:
        shutil.rmtree(old, ignore_errors=True)


def handing_on(home: Home, settings: Settings, part: str) -> dict[str, str]:
    """Return `environment` for a child that is to have just these settings, flags included.

    They stand in a file of the home's `run`, and no variable of this process overrules them.
    """
    told = home.run / f"{part}.yaml"
    told.write_text(yaml.safe_dump(settings.model_dump(mode="json")), "utf-8")
    inherited = environment(home, settings)
    env = {name: v for name, v in inherited.items() if not name.startswith("PRIME_SPARK_")}
    env["PRIME_SPARK_CONFIG"] = str(told)
    return env


@dataclass(frozen=True, slots=True)
class StartingNode:
    """A `ray start` that goes on; `wait` returns when the node has joined."""

    node: Node
    session: Session
    child: subprocess.Popen[bytes]
    log: Path
    log_from: int

    def wait(self) -> None:
        """Raise Unavailable, with the end of the log, when the node does not come up."""
        try:
            code = self.child.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise self._failed(f"is not up after {START_TIMEOUT_S:.0f} s") from None
        if code != 0:
            raise self._failed(f"ended with status {code}")

    def _failed(self, what: str) -> Unavailable:
        with self.log.open("rb") as file:
            file.seek(self.log_from)
            tail = file.read()[-_LOG_TAIL:].decode("utf-8", "replace")
        return Unavailable(
            f"node '{self.node.name}' {what}: {' '.join(tail.split())}",
            hint=f"the whole log is {self.log}",
        )
