"""`prime-spark doctor`: every listener of the cluster and who may use it, and a set of checks.

What is claimed about a listener is checked where that can be done without harm: the front door
and the dashboard are asked without a credential and have to refuse.
"""

from __future__ import annotations

import socket
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from cluster.config import Settings
from cluster.endpoints import Endpoints, edge_url, get_json, healthz
from cluster.home import Home
from cluster.launch import FRONT_DOOR
from cluster.nodes import EDGE, HEAD, has_edge_node
from cluster.processes import belonging
from cluster.state import read_state
from edge_runtime.errors import Unavailable

EDGE_RUNTIME: Final = "edge runtime"
CLIENTS: Final = "clients with a token or an API key; health is open"
RAY: Final = "holders of Ray's token"
MACHINE: Final = "anybody on this machine (read only)"
NETWORK: Final = "ANYBODY WHO REACHES IT (read only)"
_LOOPBACK: Final = ("127.", "::1", "::ffff:127.")


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening TCP or Unix socket. access: who may use it."""

    address: str
    process: str
    purpose: str
    access: str
    is_loopback: bool


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    is_good: bool
    found: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found."""

    listeners: Sequence[Listener]
    checks: Sequence[Check]

    @property
    def is_good(self) -> bool:
        return all(check.is_good for check in self.checks)

    def document(self) -> dict[str, Any]:
        """Return it as a JSON value."""
        return {
            "listeners": [asdict(listener) for listener in self.listeners],
            "checks": [asdict(check) for check in self.checks],
        }


def examine(settings: Settings) -> Report:
    """Look at files, processes and listeners of this home."""
    home = Home.at(settings.home)
    parts = belonging(home, read_state(home).sessions)
    listeners = list(_listeners(home, settings, parts))
    checks = list(_files(home))
    if not parts:
        checks.append(Check("cluster", False, "nothing runs; start it with `prime-spark up`"))
        return Report(listeners, checks)
    endpoints = Endpoints.of(settings)
    wanted = [HEAD, FRONT_DOOR] + ([EDGE] if has_edge_node(settings) else [])
    for part in wanted:
        count = len(parts.get(part, ()))
        checks.append(Check(f"part {part}", count > 0, f"{count} processes"))
    health = healthz(endpoints)
    text = "; ".join((health.status, *health.reasons))
    checks.append(Check("gateway", health.status == "ready", text))
    checks.append(_refuses("front door without a token", f"{endpoints.rest}/v2"))
    if EDGE in parts:
        checks.append(_refuses("edge runtime without a token", f"{edge_url(settings)}/v2"))
    checks.append(_refuses("dashboard without a token", f"{endpoints.dashboard}/api/jobs/"))
    checks.append(_exposure(settings, listeners))
    return Report(listeners, checks)


def _listeners(
    home: Home, settings: Settings, parts: Mapping[str, Sequence[psutil.Process]]
) -> Iterator[Listener]:
    seen: set[tuple[str, int]] = set()
    for part, processes in sorted(parts.items()):
        for process in processes:
            try:
                name = process.name()
                connections = process.net_connections(kind="tcp")
            except psutil.Error:
                continue
            for connection in connections:
                address = connection.laddr
                if connection.status != psutil.CONN_LISTEN or not address:
                    continue
                key = (address.ip, address.port)
                if key in seen:  # forked children share their parent's sockets
                    continue
                seen.add(key)
                is_loopback = address.ip.startswith(_LOOPBACK)
                purpose, access = _meaning(settings, part, process, address.port, is_loopback)
                shown = f"{address.ip.removeprefix('::ffff:')}:{address.port}"
                yield Listener(shown, f"{process.pid} {name}", purpose, access, is_loopback)
    for path in sorted(home.run.glob("gateway-*")):
        if stat.S_ISSOCK(path.lstat().st_mode):
            kind = "REST" if path.suffix == ".http" else "gRPC"
            yield Listener(
                str(path), "gateway", f"gateway replica, {kind}", f"{CLIENTS}; this user only", True
            )
    for path, kind in ((home.edge_socket, "REST"), (home.edge_grpc_socket, "gRPC")):
        if path.exists():
            yield Listener(
                str(path), "edge", f"{EDGE_RUNTIME}, {kind}", "programs of this user", True
            )


def _meaning(
    settings: Settings, part: str, process: psutil.Process, port: int, is_loopback: bool
) -> tuple[str, str]:
    """Say what a port is for and who may use it, from who listens on it."""
    if part == FRONT_DOOR:
        named = {settings.ports.rest: "REST", settings.ports.grpc: "gRPC"}
        return f"front door, {named.get(port, '?')}", CLIENTS
    edge = {settings.edge.ports.rest: "REST", settings.edge.ports.grpc: "gRPC"}
    if part == EDGE and port in edge:
        return f"{EDGE_RUNTIME}, {edge[port]}", CLIENTS
    if port == settings.ports.gcs:
        return "Ray head (GCS)", RAY
    if port == settings.ports.dashboard:
        return "Ray dashboard and job server", RAY
    if _is_metrics(port):
        return "Ray metrics", MACHINE if is_loopback else NETWORK
    name = process.name()
    if name.startswith("raylet"):
        return f"Ray node manager ({part})", RAY
    if name.startswith(("ray::Dashboard", "ray::Runtime")):
        return f"Ray agent ({part})", RAY
    return f"Ray worker ({part})", RAY


def _is_metrics(port: int) -> bool:
    """Ask for `/metrics` as a scraper would: only that tells it from a gRPC port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as probe:
            probe.sendall(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return probe.recv(64).startswith((b"HTTP/1.0 200", b"HTTP/1.1 200"))
    except OSError:
        return False


def _files(home: Home) -> Iterator[Check]:
    for name, path in (
        ("signing key", home.signing_key),
        ("Ray's token", home.ray_token),
        ("home", home.root),
        ("sockets' folder", home.run),
        ("edge sockets' folder", home.edge_run),
    ):
        yield _private(name, path)


def _private(name: str, path: Path) -> Check:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return Check(name, True, "not made yet")
    return Check(f"{name} is private", not mode & 0o077, f"mode {mode:04o}")


def _refuses(name: str, url: str) -> Check:
    try:
        get_json(url)
    except Unavailable as error:
        status = error.details.get("status")
        is_refused = status in (401, 403)
        return Check(name, is_refused, f"refused ({status})" if is_refused else error.message)
    return Check(name, False, "answered!")


def _exposure(settings: Settings, listeners: Sequence[Listener]) -> Check:
    """Only what clients call may listen beyond loopback, unless Ray was given another address."""
    is_wanted: Callable[[Listener], bool] = lambda found: (  # noqa: E731
        found.is_loopback
        or found.purpose.startswith(("front door", EDGE_RUNTIME))
        or not settings.ray.address.startswith(_LOOPBACK)
    )
    outside = [found.address for found in listeners if not is_wanted(found)]
    return Check("only what clients call is reachable", not outside, ", ".join(outside) or "yes")
