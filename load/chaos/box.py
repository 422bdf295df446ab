"""The edge box: its home on a small disk, its runtime, and in a cluster its supervisor and raylet.

Alone it is one `prime-spark edge run`; with a head it is `prime-spark node join`, which starts the
runtime itself. Everything that belongs to it is found by the mark in its environment, so a power
cut takes all of it and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import yaml

from cluster.home import Home
from cluster.identity.apikeys import ApiKeyStore
from cluster.identity.keys import ensure_signing_key
from cluster.ports import free_port
from cluster.processes import Session, belonging, end, is_running, kill, start
from cluster.supervisor import NodeState, read_node
from edge_runtime.packages import PackageFolder
from load.chaos.clock import Clock
from load.chaos.network import Namespace
from load.fake_hailo.device import DRIVER_PATH, FakeDevice
from load.http1 import Connection, request_bytes

DISK_BYTES: Final = 48 << 20
READY_S: Final = 40.0
STOP_S: Final = 30.0
LOCAL_S: Final = 5.0
SITE: Final = "edge-1"
_PART: Final = "edge"


class BoxError(Exception):
    """The box does not do what it has to for the run to go on."""


class Box:
    """root: a short path; the home is a file system of its own below it.

    network: where the box is in a namespace; head: HOST:PORT that it joins, empty to be alone.
    """

    def __init__(
        self, root: Path, device: FakeDevice, clock: Clock | None, network: Namespace | None
    ) -> None:
        self.root = root
        self.device = device
        self.home = Home(root / "box")
        self.network = network
        self.head = ""
        self.host = network.inside if network is not None else "127.0.0.1"
        self.rest_port, self.grpc_port = free_port(), free_port()
        self.packages = PackageFolder(self.home.edge / "models")
        self.log = root / "box.log"
        self._clock = clock
        self._sessions: list[Session] = []
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def is_joined(self) -> bool:
        return bool(self.head)

    # The disk.

    def make(self) -> None:
        """Make the disk, the home and its settings; takes root. Raises BoxError."""
        self.home.root.mkdir(mode=0o700)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", self.home.root],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise BoxError(f"no disk for the box: {done.stderr.strip()}")
        self.configure()

    def configure(self) -> None:
        """Make the home and its settings, on whatever disk that is."""
        Home.at(self.home.root)
        settings = {
            "edge": {
                "site": SITE,
                "address": self.host,
                "ports": {"rest": self.rest_port, "grpc": self.grpc_port},
                "accelerator": {
                    "kind": "hailo",
                    "python": sys.executable,
                    "driver_path": str(DRIVER_PATH),
                },
            },
            "ray": {"address": self.host},
        }
        self.home.config.write_text(yaml.safe_dump(settings))

    def credentials(self) -> str:
        """Make a key for clients; without a key set from a head, the box makes one of its own."""
        if not self.home.jwks.exists():
            ensure_signing_key(self.home)
        made = ApiKeyStore(self.home.api_keys).create(
            "chaos", ["infer", "models:write", "metrics:read"], time.time()
        )
        return made.text

    def remove(self) -> None:
        """Unmount the disk; what was on it is gone."""
        subprocess.run(["umount", self.home.root], check=False, capture_output=True)

    @property
    def is_mounted(self) -> bool:
        return self.home.root.is_mount()

    # Its processes.

    def start(self) -> None:
        """Start it; `ready` waits."""
        command = [sys.executable, "-m", "cluster.cli.main", "--home", str(self.home.root)]
        command += ["node", "join", "--head", self.head] if self.head else ["edge", "run"]
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PRIME_SPARK_", "RAY_", "FAKE_HAILO"))
        }
        env = {
            **kept,
            "FAKE_HAILO_DIR": str(self.device.folder),
            "PYTHONUNBUFFERED": "1",
            **(self._clock.environment if self._clock is not None else {}),
        }
        prefix = self.network.prefix if self.network is not None else []
        self._child, session = start(self.home, _PART, [*prefix, *command], env, self.log)
        self._sessions.append(session)

    async def ready(self) -> float:
        """Wait until it takes requests; return when that was. Raises BoxError."""
        began = time.monotonic()
        while time.monotonic() - began < READY_S:
            try:
                if (await self.local("GET", "/v2/health/ready", timeout_s=1.0))[0] == 200:
                    return time.monotonic()
            except OSError:
                pass
            if not self.is_joined and self._child is not None and self._child.poll() is not None:
                raise BoxError(f"the runtime ended with status {self._child.returncode}")
            await asyncio.sleep(0.02)
        raise BoxError(f"the box is not ready after {READY_S:.0f} s")

    def processes(self) -> list[psutil.Process]:
        """Return everything of the box that runs."""
        parts = belonging(self.home, self._sessions)
        return [process for found in parts.values() for process in found]

    async def cut_power(self) -> None:
        """End all of it at once, as a power cut does."""
        for _ in range(3):  # a dying raylet may still fork
            found = await asyncio.to_thread(self.processes)
            if not found:
                break
            await asyncio.to_thread(kill, found)
        if self._child is not None:
            self._child.wait(10.0)

    async def restart_runtime(self) -> None:
        """End the runtime as an operator does, and have it started again; `ready` waits."""
        runtime = await asyncio.to_thread(self.runtime)
        if runtime is not None:
            await asyncio.to_thread(end, [runtime], STOP_S)
        if not self.is_joined:  # else the supervisor does
            if self._child is not None:
                self._child.wait(10.0)
            self.start()

    async def stop(self) -> None:
        """End it as a shutdown does, then whatever is left."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._child.wait, STOP_S)
        await self.cut_power()

    def runtime(self) -> psutil.Process | None:
        """Return the runtime's process."""
        for process in self.processes():
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            if words[-2:] == ["edge", "run"] and is_running(process):
                return process
        return None

    def raylet(self) -> psutil.Process | None:
        """Return the raylet's process."""
        for process in self.processes():
            try:
                if process.name() == "raylet" and is_running(process):
                    return process
            except psutil.Error:
                continue
        return None

    def node(self) -> NodeState | None:
        """Return what the supervisor has written down."""
        return read_node(self.home)

    # Talking to it, from this box.

    async def local(
        self, method: str, route: str, body: bytes = b"", timeout_s: float = LOCAL_S
    ) -> tuple[int, bytes]:
        """Ask over the Unix socket; return status and body. Raises OSError."""
        loop = asyncio.get_running_loop()
        path = str(self.home.edge_run / "edge.sock")
        async with asyncio.timeout(timeout_s):  # TimeoutError is an OSError
            _, connection = await loop.create_unix_connection(Connection, path)
            try:
                content = request_bytes(
                    method, route, "box", {"content-type": "application/json"}, body
                )
                response = await connection.ask(content)
            finally:
                connection.close()
        return response.status, response.body

    async def command(self, *words: str) -> tuple[int, str]:
        """Run a `prime-spark` command on the box; return its exit code and what it said."""
        kept: Mapping[str, str] = {
            name: value for name, value in os.environ.items() if not name.startswith("PRIME_SPARK_")
        }
        return await run_command(
            [sys.executable, "-m", "cluster.cli.main", "--home", str(self.home.root), *words], kept
        )


async def run_command(
    command: Sequence[str], env: Mapping[str, str], timeout_s: float = 240.0
) -> tuple[int, str]:
    """Run a command; return its exit code and everything it said."""
    child = await asyncio.create_subprocess_exec(
        *command,
        env=dict(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, _ = await child.communicate()
    except BaseException:
        child.kill()
        await child.wait()
        raise
    return child.returncode or 0, out.decode("utf-8", "replace")


def install(
    packages: PackageFolder,
    model: str,
    version: str,
    files: Sequence[Any],
    signature: Any = None,
    **options: float,
) -> None:
    """Put a package on the box."""
    packages.install(
        model,
        version,
        files,
        signature=signature,
        options=options,
        installed_at=time.time(),
    )
