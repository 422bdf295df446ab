"""What keeps an edge node going: its runtime, and the raylet that is a guest beside it.

The runtime is started when none answers on its socket, and started again when it ends; nothing
that happens to Ray ever touches it. The raylet is started when the head can be reached, and
started again when it ends: a raylet that the head has declared dead ends by itself when it hears
of it and does not come back (it has to be a new one), and one that stands still (SIGSTOP) past
that point is ended here. So is one whose head is gone (`head_watch`): the next head begins a new
cluster, and a raylet of the old one takes up to half a minute to find that out. Labels go along
with each start. Pauses between attempts grow, with jitter, so that a thousand boxes do not come
back in the same moment.

One supervisor a home. What it does stands in `edge-run/node.json`; one that was killed is
replaced by another, which takes over what still runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from cluster import head_watch
from cluster.config import Settings
from cluster.home import Home
from cluster.nodes import (
    EDGE,
    StartingNode,
    begin,
    edge_node,
    forget_sessions,
    gcs_address,
    handing_on,
)
from cluster.processes import MARK, PART, Session, end, is_running, kill, mark_of, start
from edge_runtime import durable
from edge_runtime.errors import PrimeSparkError, Unavailable
from edge_runtime.local_client import ask
from policies.degradation import restart_after_s

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.5
FROZEN_S: Final = 5.0  # that a raylet may stand still
LASTED_S: Final = 30.0  # what has run so long did not fail at the start
CONNECT_S: Final = 2.0
RUNTIME_STOP_S: Final = 40.0
RAYLET_STOP_S: Final = 5.0
_CLOCK_SLACK_S: Final = 2.0


JOIN_S: Final = 90.0
RUNTIME_UP_S: Final = 5.0  # that joining waits for the runtime to say what it has


@dataclass(slots=True)
class NodeState:
    """What `node.json` says. raylet: waiting, starting, joined; why: of the latest failure."""

    pid: int
    raylet: str = "waiting"
    raylet_sid: int = 0
    raylet_started_at: float = 0.0
    raylet_starts: int = 0
    runtime_starts: int = 0
    why: str = ""


def node_file(home: Home) -> Path:
    """Return where a supervisor writes down how its node is."""
    return home.edge_run / "node.json"


def read_node(home: Home) -> NodeState | None:
    """Return what a supervisor of this home has written down last."""
    try:
        return NodeState(**json.loads(node_file(home).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


class NodeSupervisor:
    """Keeps one node. jitter: from 0 to 1, of pauses.

    keeps_runtime: False where a service manager has the runtime; two would fight for it.
    """

    def __init__(
        self,
        home: Home,
        settings: Settings,
        jitter: Callable[[], float] = random.random,
        *,
        keeps_runtime: bool = True,
    ) -> None:
        self._home = home
        self._settings = settings
        self._jitter = jitter
        self._keeps_runtime = keeps_runtime
        self._runtime: asyncio.subprocess.Process | None = None
        self._raylet: psutil.Process | None = None
        self.state = NodeState(os.getpid())
        before = read_node(home)
        if before is not None and (found := _left_behind(before)) is not None:
            self._raylet = found
            self.state = before
            self.state.pid = os.getpid()

    async def run(self) -> None:
        """Keep the node until cancelled, then end what was started here."""
        self._write()
        try:
            async with asyncio.TaskGroup() as group:
                if self._keeps_runtime:
                    group.create_task(self._keep_runtime())
                group.create_task(self._keep_raylet())
        finally:
            await asyncio.shield(self._end())

    # The runtime.

    async def _keep_runtime(self) -> None:
        failures = 0
        while True:
            if await self._answers():  # systemd's, or one that outlived another supervisor
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            began = time.monotonic()
            self._runtime = await self._start_runtime()
            code = await self._runtime.wait()
            self._runtime = None
            failures = 0 if time.monotonic() - began >= LASTED_S else failures + 1
            self._tell(f"the edge runtime ended with status {code}")
            await self._pause(failures)

    async def _start_runtime(self) -> asyncio.subprocess.Process:
        self.state.runtime_starts += 1
        self._write()
        log = self._home.logs / "edge-runtime.log"
        with log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "cluster.cli.main", "--home", str(self._home.root), "edge", "run"),
                env={**os.environ, MARK: mark_of(self._home), PART: EDGE},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a signal for the supervisor is not one for the runtime
            )

    async def _answers(self) -> bool:
        """Tell whether a runtime has the socket; one that hangs is its own watchdog's matter."""
        socket = self._home.edge_run / "edge.sock"
        try:
            await asyncio.to_thread(
                ask, socket, "GET", "/healthz", timeout_s=CONNECT_S, expected=(200, 503)
            )
        except Unavailable as error:
            return error.details.get("reason") != "nobody"
        except PrimeSparkError:
            return True
        return True

    # The raylet.

    async def _keep_raylet(self) -> None:
        failures = 0
        while True:
            if self._raylet is None:
                await self._await_head()
                if not await self._join():
                    failures += 1
                    await self._pause(failures)
                    continue
            await self._watch_raylet()
            lasted_s = time.time() - self.state.raylet_started_at
            failures = 0 if lasted_s >= LASTED_S else failures + 1
            await self._forget_raylet("the raylet ended")
            await self._pause(failures)

    async def _await_head(self) -> None:
        """Wait until the head's port takes connections; a raylet could not start before."""
        attempts = 0
        while True:
            try:
                await head_watch.call(*self._head())
            except (OSError, TimeoutError):
                if not attempts:
                    self._tell(f"the head does not answer at {gcs_address(self._settings)}")
                attempts += 1
                await self._pause(min(attempts, 4))  # the link may be back at any moment
            else:
                return

    def _head(self) -> tuple[str, int]:
        """Return host and port of the head."""
        host, _, port = gcs_address(self._settings).rpartition(":")
        return host.strip("[]"), int(port)

    async def _join(self) -> bool:
        """Start a raylet; True when it has joined the head."""
        accelerator, hailort = await self._accelerator()
        node = edge_node(self._settings, accelerator, hailort)
        await asyncio.to_thread(forget_sessions, self._home)
        starting = begin(self._home, self._settings, node)
        self.state.raylet = "starting"
        self.state.raylet_starts += 1
        self.state.raylet_sid = starting.session.sid
        self.state.raylet_started_at = starting.session.started_at
        self._write()
        try:
            await asyncio.to_thread(StartingNode.wait, starting)
        except PrimeSparkError as error:
            await self._forget_raylet(error.message)
            return False
        self._raylet = _raylet_of(starting.session.sid)
        if self._raylet is None:
            await self._forget_raylet("the raylet ended at once")
            return False
        self.state.raylet = "joined"
        self.state.why = ""
        self._write()
        logger.info("the node has joined %s", gcs_address(self._settings))
        return True

    async def _accelerator(self) -> tuple[str, str]:
        """Return what the runtime has found: architecture and library, for the node's labels."""
        socket = self._home.edge_run / "edge.sock"
        until = time.monotonic() + RUNTIME_UP_S
        while True:
            try:
                told = await asyncio.to_thread(
                    ask, socket, "GET", "/v2/prime-spark/edge", timeout_s=CONNECT_S
                )
            except PrimeSparkError:
                told = None  # it is still starting, or does not start at all
            device = told["accelerator"] if told else None
            if (told and device is None) or (device and device.get("architecture")):
                break
            if time.monotonic() > until:
                break
            await asyncio.sleep(0.1)
        if not device:
            return "none", ""
        return str(device.get("architecture") or "away"), str(device.get("library_version") or "")

    async def _watch_raylet(self) -> None:
        """Return when the raylet has ended, has stood still for too long, or has lost its head."""
        headless = asyncio.create_task(head_watch.until_gone(*self._head()))
        try:
            await self._watch_process(self._raylet, headless)
        finally:
            headless.cancel()
            await asyncio.gather(headless, return_exceptions=True)

    async def _watch_process(
        self, raylet: psutil.Process | None, headless: asyncio.Task[None]
    ) -> None:
        frozen_since: float | None = None
        while raylet is not None and is_running(raylet):
            if headless.done() and headless.exception() is None:
                logger.warning("the head is gone, and a raylet does not follow another one")
                return
            now = time.monotonic()
            if not _is_stopped(raylet):
                frozen_since = None
            elif frozen_since is None:
                frozen_since = now
            elif now - frozen_since >= FROZEN_S:
                logger.warning("the raylet has stood still for %.0f s", FROZEN_S)
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def _forget_raylet(self, why: str) -> None:
        """End what is left of a raylet: workers of a dead one serve nobody."""
        await asyncio.to_thread(kill, _session(self.state.raylet_sid))
        self._raylet = None
        self.state.raylet = "waiting"
        self._tell(why)

    # All of it.

    async def _pause(self, failures: int) -> None:
        await asyncio.sleep(max(0.05, restart_after_s(failures)) * (0.5 + self._jitter()))

    def _tell(self, why: str) -> None:
        logger.warning("%s", why)
        self.state.why = why
        self._write()

    def _write(self) -> None:
        try:
            durable.write(node_file(self._home), json.dumps(asdict(self.state)).encode())
        except OSError as error:
            logger.warning("the node's state cannot be written: %s", error.strerror)

    async def _end(self) -> None:
        if self.state.raylet_sid:
            await asyncio.to_thread(end, _session(self.state.raylet_sid), RAYLET_STOP_S)
        runtime = self._runtime
        if runtime is not None and runtime.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                runtime.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(RUNTIME_STOP_S):
                    await runtime.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    runtime.kill()
        with contextlib.suppress(OSError):
            node_file(self._home).unlink()


@dataclass(frozen=True, slots=True)
class StartingSupervisor:
    """A `node join` that goes on; `wait` returns when the raylet has joined and the runtime is up.

    session: of the supervisor; its parts are sessions of their own.
    """

    home: Home
    session: Session
    child: subprocess.Popen[bytes]

    def wait(self) -> None:
        """Raise Unavailable when the node does not come up."""
        until = time.monotonic() + JOIN_S
        log = self.home.logs / "node-edge.log"
        while time.monotonic() < until:
            if (code := self.child.poll()) is not None:
                raise Unavailable(f"the edge node ended with status {code}", hint=f"see {log}")
            node = read_node(self.home)
            is_joined = node is not None and node.pid == self.child.pid and node.raylet == "joined"
            if is_joined and (self.home.edge_run / "edge.sock").exists():
                return
            time.sleep(0.05)
        raise Unavailable(f"the edge node is not up after {JOIN_S:.0f} s", hint=f"see {log}")


def start_supervisor(home: Home, settings: Settings) -> StartingSupervisor:
    """Start the edge node of this machine in the background, with these settings."""
    home.make_edge_run()
    env = handing_on(home, settings, EDGE)
    command = [sys.executable, "-m", "cluster.cli.main", "--home", str(home.root), "node", "join"]
    child, session = start(home, EDGE, command, env, home.logs / "node-edge.log")
    return StartingSupervisor(home, session, child)


async def supervise(home: Home, settings: Settings, *, keeps_runtime: bool = True) -> None:
    """Keep the node of this machine until SIGTERM or SIGINT; see `NodeSupervisor`."""
    loop = asyncio.get_running_loop()
    supervisor = NodeSupervisor(home, settings, keeps_runtime=keeps_runtime)
    task = loop.create_task(supervisor.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _left_behind(before: NodeState) -> psutil.Process | None:
    """Return the raylet that an earlier supervisor of this boot has left running."""
    found = _raylet_of(before.raylet_sid) if before.raylet_sid else None
    if found is None or found.create_time() < before.raylet_started_at - _CLOCK_SLACK_S:
        return None
    return found


def _session(sid: int) -> list[psutil.Process]:
    """Return the processes of a session."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if sid and os.getsid(process.pid) == sid:
                found.append(process)
    return found


def _raylet_of(sid: int) -> psutil.Process | None:
    for process in _session(sid):
        with contextlib.suppress(psutil.Error):
            if process.name() == "raylet" and is_running(process):
                return process
    return None


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False
