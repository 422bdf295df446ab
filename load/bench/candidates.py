"""The peers and the gateway, set alike.

Every server computes in one process, with one onnxruntime thread a session, both models loaded
and its access log off. LitServe has its faster queue (ZeroMQ); MLServer is measured as it comes
(one worker process) and without its worker pool, which is faster for a small model. Ray Serve
is in its throughput-optimised mode behind its HAProxy, with Ray's own token checked as in the
gateway's cluster, and once more without. Heavy models leave the event loop of the peers that
compute on one. The peers read a binary tensor and check nothing. The gateway runs as it is
installed, less the edge node, which no peer has: token checks, routing, limits, decision log and
front door are all in the path.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cluster.home import Home
from cluster.ports import check_free
from edge_runtime.errors import Conflict
from edge_runtime.protocol.context import TIER_HEADER
from load.bench.environments import PEERS, ensure
from load.bench.models import BenchModel
from load.bench.servers import Launch
from load.bench.subjects import FLOOR, HOST, Candidate, Subject

TOKEN_S: Final = 24 * 3600
_SERVE_PORTS: Final = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)


@dataclass(frozen=True, slots=True)
class Workshop:
    """Folders of one run. short: for Ray, whose sockets need short paths."""

    environments: Path
    scratch: Path
    short: Path
    home: Home
    models: tuple[BenchModel, ...]
    ports: Iterator[int]


def free_ports() -> Iterator[int]:
    """Yield free ports that nobody takes by chance until they are used.

    Below those that the kernel gives out (from 32768), beside those that Ray takes (10002 to
    19999 for workers, 30000 to 31000 for Serve's replicas).
    """
    for port in range(21_000, 30_000):
        try:
            check_free(HOST, port, "ports.rest")
        except Conflict:
            continue
        yield port


def asgi(shop: Workshop) -> Candidate:
    port = next(shop.ports)
    subject = Subject("asgi", "bare ASGI (starlette, uvicorn)", "http", port)
    return Candidate("asgi", _peer(shop, "asgi", {"BENCH_PORT": str(port)}), (subject,))


def rayserve(shop: Workshop) -> Candidate:
    """Ray Serve in the gateway's mode: throughput optimised, HAProxy, Ray's token checked."""
    folder = shop.short / "rayserve"
    folder.mkdir()
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), "utf-8")
    secured = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    launch, port = _rayserve(shop, "rayserve", folder, secured)
    ingress = Subject("serve-ingress", "Ray Serve, ingress only", "http", port, prefix="/ingress")
    handle = Subject("serve-handle", "Ray Serve, through a handle", "http", port, prefix="/handle")
    return Candidate("rayserve", launch, (ingress, handle))


def rayserve_open(shop: Workshop) -> Candidate:
    """The same without Ray's token, as it comes: whoever reaches its ports may run code."""
    folder = shop.short / "rayserve-open"
    folder.mkdir()
    launch, port = _rayserve(shop, "rayserve-open", folder, {"RAY_AUTH_MODE": "disabled"})
    handle = Subject(
        "serve-handle-open",
        "Ray Serve without its token, through a handle",
        "http",
        port,
        prefix="/handle",
        models=("mlp",),
    )
    return Candidate("rayserve-open", launch, (handle,))


def _rayserve(
    shop: Workshop, name: str, folder: Path, authentication: Mapping[str, str]
) -> tuple[Launch, int]:
    port, gcs, dashboard = (next(shop.ports) for _ in range(3))
    inner = {variable: str(next(shop.ports)) for variable in _SERVE_PORTS}  # two run side by side
    environment = {
        "BENCH_PORT": str(port),
        "BENCH_GCS_PORT": str(gcs),
        "BENCH_DASHBOARD_PORT": str(dashboard),
        "BENCH_SCRATCH": str(folder),
        **inner,
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        **authentication,
    }
    return replace(_peer(shop, "rayserve", environment), name=name), port


def litserve(shop: Workshop) -> Candidate:
    port = next(shop.ports)
    subject = Subject("litserve", "LitServe", "http", port)
    return Candidate("litserve", _peer(shop, "litserve", {"BENCH_PORT": str(port)}), (subject,))


def mlserver(shop: Workshop) -> Candidate:
    """MLServer as it comes: one worker process beside the server."""
    return _mlserver(shop, "mlserver", "MLServer", workers=1)


def mlserver_inline(shop: Workshop) -> Candidate:
    """MLServer without its worker pool: the model in the server, its requests on one loop."""
    return _mlserver(shop, "mlserver-inline", "MLServer without workers", workers=0)


def _mlserver(shop: Workshop, name: str, title: str, workers: int) -> Candidate:
    """MLServer's REST takes no binary tensors: JSON there, raw contents over gRPC."""
    rest, grpc = next(shop.ports), next(shop.ports)
    folder = shop.scratch / name
    folder.mkdir(exist_ok=True)
    environment = {
        "BENCH_PORT": str(rest),
        "BENCH_GRPC_PORT": str(grpc),
        "BENCH_SCRATCH": str(folder),
        "BENCH_WORKERS": str(workers),
        "PYTHONPATH": os.pathsep.join([str(PEERS / "common"), str(PEERS / "mlserver")]),
    }
    return Candidate(
        name,
        replace(_peer(shop, "mlserver", environment), name=name),
        (
            Subject(f"{name}-rest", f"{title}, REST (JSON)", "http", rest, "json", models=("mlp",)),
            Subject(f"{name}-grpc", f"{title}, gRPC", "grpc", grpc),
        ),
    )


def gateway(shop: Workshop) -> Candidate:
    """Serve the models from the bench's own home; runs one `up` and `down` to place them.

    Raises CalledProcessError when a command fails (its output is in the log folder).
    """
    ports = {name: next(shop.ports) for name in ("rest", "grpc", "dashboard", "gcs")}
    environment = {
        "PRIME_SPARK_HOME": str(shop.home.root),
        "PRIME_SPARK_EDGE__ENABLED": "false",
        **{f"PRIME_SPARK_PORTS__{name.upper()}": str(port) for name, port in ports.items()},
    }
    command = _Command(environment, shop.scratch / "prime-spark.log")
    command("up")
    try:
        for model in shop.models:
            command("model", "serve", f"{model.name}@production", "--placement", "colocated,cloud")
        token = command("token", "--ttl", str(TOKEN_S)).strip()
    finally:
        command("down")
    bearer = {"authorization": f"Bearer {token}"}
    launch = Launch("prime-spark", command.line("up"), environment, stop=command.line("down"))
    rest, grpc = ports["rest"], ports["grpc"]

    def on(tier: str, title: str, protocol: str = "http", suffix: str = "") -> Subject:
        return Subject(
            f"prime-spark-{tier}{suffix}",
            f"Prime Spark, {title}",
            protocol,
            grpc if protocol == "grpc" else rest,
            headers={**bearer, TIER_HEADER: tier},
        )

    return Candidate(
        "prime-spark",
        launch,
        (
            on("colocated", "co-located"),
            on("cloud", "through a handle"),
            on("colocated", "co-located, gRPC", "grpc", "-grpc"),
        ),
    )


def floor(shop: Workshop) -> Candidate:
    return FLOOR


# Those that marks compare with stand next to each other: a shared machine changes its speed within
# a minute, and the less time lies between two measurements, the more of that is common to both.
CANDIDATES: Final[Mapping[str, Callable[[Workshop], Candidate]]] = {
    "onnxruntime": floor,
    "prime-spark": gateway,
    "rayserve": rayserve,
    "rayserve-open": rayserve_open,
    "asgi": asgi,
    "litserve": litserve,
    "mlserver": mlserver,
    "mlserver-inline": mlserver_inline,
}


@dataclass(frozen=True, slots=True)
class _Command:
    """Runs `prime-spark ...` in an environment; what it says goes to a log."""

    environment: Mapping[str, str]
    log: Path

    def line(self, *words: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "cluster.cli.main", *words)

    def __call__(self, *words: str) -> str:
        with self.log.open("ab") as log:
            done = subprocess.run(
                self.line(*words),
                env={**os.environ, **self.environment},
                check=True,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        return done.stdout


def _peer(shop: Workshop, name: str, environment: Mapping[str, str]) -> Launch:
    python = ensure(name, shop.environments)
    files = {model.name: str(model.artifact) for model in shop.models}
    return Launch(
        name,
        _words(python, PEERS / name / "server.py"),
        {
            "PYTHONPATH": str(PEERS / "common"),
            "BENCH_MODELS": json.dumps(files),
            "ORT_DISABLE_TELEMETRY": "1",  # as in ours
            "VIRTUAL_ENV": str(python.parent.parent),
            "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)]),
            **environment,
        },
    )


def _words(*words: Path) -> tuple[str, ...]:
    return tuple(str(word) for word in words)


def clean(shop: Workshop) -> None:
    """Remove what only this run needed."""
    shutil.rmtree(shop.short, ignore_errors=True)
