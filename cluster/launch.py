"""Starting and stopping a cluster on this machine: the order of things, and what is undone.

`up`: keys and token, ports, the head; then, side by side, the edge node, the front door and the
applications; then a request through the front door. It can be repeated: what runs is left
alone, a dead edge node or front door is started again, and the remains of a dead head are
cleared away first. A failed `up` takes down what it had started.

`down`: the front door finishes what it has (`front_door.STOP_S`), everything else is ended, and
`run/` goes away. Ray's last logs are kept in `logs/ray`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import psutil

from cluster import front_door
from cluster.config import Settings
from cluster.endpoints import Endpoints, healthz
from cluster.home import Home
from cluster.identity.keys import ensure_signing_key
from cluster.identity.ray_token import ensure_ray_token
from cluster.nodes import EDGE, HEAD, begin, gcs_address, handing_on, has_edge_node, nodes
from cluster.ports import check_free
from cluster.processes import Session, belonging, end, kill, start
from cluster.state import ClusterState, read_state, write_state
from cluster.supervisor import StartingSupervisor, read_node, start_supervisor
from edge_runtime.errors import Conflict, NotFound, Unavailable

FRONT_DOOR: Final = "front-door"
DEPLOY: Final = "deploy"
READY_TIMEOUT_S: Final = 60.0
GRACE_S: Final = 4.0
_POLL_S: Final = 0.1

Progress = Callable[[str, str, str], None]
"""Told (step, state, detail); state is `started`, `done` or `failed`."""


def up(settings: Settings, progress: Progress) -> Endpoints:
    """Start the cluster or complete it; returns when a request goes through.

    Raises Conflict (a port is taken, or another `up` or `down` runs), Unavailable.
    """
    home = Home.at(settings.home)
    endpoints = Endpoints.of(settings)
    with _exclusive(home):
        parts = belonging(home, read_state(home).sessions)
        if HEAD in parts and read_state(home).is_complete and _has_raylet(parts[HEAD]):
            _complete(home, settings, progress, set(parts))
        else:
            if parts:
                progress("remains", "started", "of a cluster that ended")
                _take_down(home)
                progress("remains", "done", "cleared away")
            try:
                _bring_up(home, settings, progress)
            except BaseException:
                _take_down(home)
                raise
        _await_ready(endpoints, progress)
    return endpoints


def down(settings: Settings, progress: Progress) -> bool:
    """Stop everything of this home; False when nothing ran. Raises Conflict, Unavailable."""
    home = Home.at(settings.home)
    with _exclusive(home):
        count = sum(len(found) for found in belonging(home, read_state(home).sessions).values())
        if count:
            progress("processes", "started", f"{count} to end")
        _take_down(home)
        if count:
            progress("processes", "done", "all ended")
    return count > 0


def start_edge(settings: Settings, progress: Progress) -> None:
    """Start the edge node of a running cluster. Raises NotFound (no cluster), Conflict."""
    home = Home.at(settings.home)
    with _exclusive(home):
        parts = belonging(home, read_state(home).sessions)
        if HEAD not in parts:
            raise NotFound("no cluster runs here", hint="start one with `prime-spark up`")
        if not has_edge_node(settings):
            raise NotFound(
                "this cluster starts no edge node here",
                hint="set edge.enabled and edge.here to true",
            )
        if EDGE in parts and _has_supervisor(home, parts[EDGE]):
            raise Conflict("the edge node runs already")
        _start_edge(home, settings, progress).wait()
        progress(EDGE, "done", "")


def kill_edge(settings: Settings) -> int:
    """Kill the edge node's processes at once, as a power cut would; returns how many there were.

    Raises NotFound when it does not run.
    """
    home = Home.at(settings.home)
    found = belonging(home, read_state(home).sessions).get(EDGE, [])
    if not found:
        raise NotFound("the edge node does not run", hint="`prime-spark node start edge`")
    kill(found)
    return len(found)


def _bring_up(home: Home, settings: Settings, progress: Progress) -> None:
    database = settings.geoip.database
    if database is not None and not database.is_file():  # said here, not by a gateway later
        raise NotFound(f"there is no GeoIP database {database}", field="geoip.database")
    ensure_signing_key(home)
    ensure_ray_token(home)
    home.make_run()
    for setting, address, port in (
        ("ports.rest", settings.address, settings.ports.rest),
        ("ports.grpc", settings.address, settings.ports.grpc),
        ("ports.dashboard", "127.0.0.1", settings.ports.dashboard),
        ("ports.gcs", settings.ray.address, settings.ports.gcs),
        ("edge.ports.rest", settings.edge.address, settings.edge.ports.rest),
        ("edge.ports.grpc", settings.edge.address, settings.edge.ports.grpc),
    ):
        if has_edge_node(settings) or not setting.startswith("edge."):
            check_free(address, port, setting)
    write_state(home, ClusterState())
    progress(HEAD, "started", "Ray head node")
    head = begin(home, settings, nodes(settings)[0])
    _record(home, head.session)
    head.wait()
    progress(HEAD, "done", f"at {gcs_address(settings)}")
    edge = _start_edge(home, settings, progress) if has_edge_node(settings) else None
    _start_front_door(home, settings, progress)
    _deploy(home, settings, progress, edge)
    write_state(home, ClusterState(read_state(home).sessions, is_complete=True))


def _complete(home: Home, settings: Settings, progress: Progress, running: set[str]) -> None:
    """Start what is missing beside a running head."""
    if FRONT_DOOR not in running:
        _start_front_door(home, settings, progress)
    if has_edge_node(settings) and EDGE not in running:
        _start_edge(home, settings, progress).wait()
        progress(EDGE, "done", "")


def _start_edge(home: Home, settings: Settings, progress: Progress) -> StartingSupervisor:
    progress(EDGE, "started", f"edge runtime and labelled Ray node, site {settings.edge.site}")
    edge = start_supervisor(home, settings)
    _record(home, edge.session)
    return edge


def _start_front_door(home: Home, settings: Settings, progress: Progress) -> None:
    progress(FRONT_DOOR, "started", "HAProxy")
    front_door.write_configuration(home, settings)
    log = home.logs / "front-door.log"
    env = {"PATH": os.environ.get("PATH", "")}
    child, session = start(home, FRONT_DOOR, front_door.command(home), env, log)
    write_state(home, read_state(home).with_session(session))
    until = time.monotonic() + 5.0
    while not _accepts(Endpoints.of(settings).host, settings.ports.rest):
        if child.poll() is not None or time.monotonic() > until:
            raise Unavailable("the front door did not start", hint=f"its log is {log}")
        time.sleep(_POLL_S)
    progress(FRONT_DOOR, "done", f"on {settings.address}:{settings.ports.rest}")


def _deploy(
    home: Home, settings: Settings, progress: Progress, edge: StartingSupervisor | None
) -> None:
    """Run `serve_apps.deploy`, passing its lines on; the edge node joins meanwhile."""
    env = handing_on(home, settings, DEPLOY)
    command = [sys.executable, "-m", "serve_apps.deploy", "--home", str(home.root)]
    command += ["--address", gcs_address(settings)]
    log = home.logs / "deploy.log"
    child, session = start(home, DEPLOY, command, env, log, pipe=True)
    write_state(home, read_state(home).with_session(session))
    if edge is not None:
        edge.wait()
        progress(EDGE, "done", f"site {settings.edge.site}")
    why = ""
    for line in child.stdout or ():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            told = json.loads(line)
            state = {"deploying": "started", "ready": "done"}.get(told["state"], "failed")
            progress(f"app {told['step']}", state, told["detail"])
            why = told["detail"] or why
    if child.wait() != 0:
        raise Unavailable(f"the applications were not deployed: {why}", hint=f"see {log}")


def _await_ready(endpoints: Endpoints, progress: Progress) -> None:
    progress("ready", "started", "a request through the front door")
    until = time.monotonic() + READY_TIMEOUT_S
    while True:
        health = healthz(endpoints)
        if health.is_ready:
            progress("ready", "done", "; ".join(health.reasons))
            return
        if time.monotonic() > until:
            raise Unavailable(
                f"no answer after {READY_TIMEOUT_S:.0f} s: {'; '.join(health.reasons)}",
                hint="`prime-spark doctor` looks at every part",
            )
        time.sleep(_POLL_S)


def _take_down(home: Home) -> None:
    """End every process of the home, the front door first and gently, and clear `run/`."""
    for _ in range(3):  # a dying raylet may still fork
        parts = belonging(home, read_state(home).sessions)
        if not parts:
            break
        door = parts.pop(FRONT_DOOR, [])
        end(door, front_door.STOP_S + 1.0, signal.SIGUSR1)  # finish what was accepted
        end([process for found in parts.values() for process in found], GRACE_S)
    left = belonging(home, read_state(home).sessions)
    if left:
        ids = ", ".join(str(process.pid) for found in left.values() for process in found)
        raise Unavailable(f"these processes do not end: {ids}")
    _keep_ray_logs(home)
    shutil.rmtree(home.run, ignore_errors=True)
    if not _has_own_runtime(home):
        shutil.rmtree(home.edge_run, ignore_errors=True)


def _keep_ray_logs(home: Home) -> None:
    """Move the last session's logs to `logs/ray`, in place of those kept before."""
    latest = home.ray / "session_latest" / "logs"
    if latest.is_dir():
        kept = home.logs / "ray"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(latest.resolve(), kept)


def _record(home: Home, session: Session) -> None:
    write_state(home, read_state(home).with_session(session))


def _has_raylet(processes: Sequence[psutil.Process]) -> bool:
    """A node without its raylet is what is left of one."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.name() == "raylet":
                return True
    return False


def _has_supervisor(home: Home, processes: Sequence[psutil.Process]) -> bool:
    """A node without its supervisor is what is left of one; a new one takes that over."""
    node = read_node(home)
    return node is not None and any(process.pid == node.pid for process in processes)


def _has_own_runtime(home: Home) -> bool:
    """Tell whether an edge runtime that is no part of the cluster uses this home."""
    try:
        with (home.edge_run / "edge.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _accepts(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1.0).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _exclusive(home: Home) -> Iterator[None]:
    """One `up`, `down` or node command a home at a time. Raises Conflict."""
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Conflict(
            "another `prime-spark` command is changing this cluster", hint="wait for it to end"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)
