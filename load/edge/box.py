"""A server under test in a process of its own: the edge runtime as its users start it, or a floor.

Both are asked with raw sockets whether they are ready, so that asking costs next to nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cluster.ports import free_port
from edge_runtime.packages import Incoming, PackageFolder
from load.bench.models import BenchModel

HOST: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
ASK_EVERY_S: Final = 0.005
COMMAND: Final = str(Path(sys.executable).with_name("prime-spark"))
READY: Final = f"GET /v2/health/ready HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()


class DidNotStart(Exception):
    """A server ended or was not ready in time; the message has the end of its log."""


class Server:
    """A process that answers `/v2/health/ready`. A `with` starts it and ends it.

    ready_s: from just before the process was made until it answered 200.
    """

    def __init__(
        self, command: Sequence[str], port: int, log: Path, environment: Mapping[str, str]
    ) -> None:
        self.port = port
        self.ready_s = float("nan")
        self.pid = 0
        self._command = list(command)
        self._log = log
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PRIME_SPARK_")}
        self._environment = {**kept, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def authority(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> float:
        """Start and wait until it is ready; return the seconds. Raises DidNotStart."""
        with self._log.open("ab") as log:
            began = time.perf_counter()
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self._process.pid
        while time.perf_counter() - began < START_TIMEOUT_S:
            if self._process.poll() is not None:
                break
            if is_ready(self.port):
                self.ready_s = time.perf_counter() - began
                return self.ready_s
            time.sleep(ASK_EVERY_S)
        self.stop()
        raise DidNotStart(f"{self._command[:3]}: {self._log.read_text('utf-8')[-1500:]}")

    def stop(self) -> int:
        """End it; return its exit code."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Box(Server):
    """`prime-spark edge run` with a home in a folder."""

    def __init__(
        self,
        home: Path,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        rest, grpc = free_port(), free_port()
        chosen = {
            "edge.ports.rest": rest,
            "edge.ports.grpc": grpc,
            "edge.accelerator.kind": "none",
            **(settings or {}),
        }
        self._flags = ["--home", str(home)]
        for key, value in chosen.items():
            self._flags += ["--set", f"{key}={json.dumps(value)}"]
        self.packages = PackageFolder(home / "edge" / "models")
        command = [COMMAND, *self._flags, "edge", "run"]
        super().__init__(command, rest, home / "edge.log", environment or {})

    def install(
        self,
        name: str,
        files: Sequence[Incoming],
        options: Mapping[str, str | bool | int | float] | None = None,
    ) -> None:
        """Put a model's only version into the models folder."""
        self.packages.install(name, "1", files, options=options, installed_at=time.time())

    def install_onnx(self, *models: BenchModel) -> None:
        for model in models:
            self.install(model.name, [Incoming("onnx", model.artifact)])

    def token(self) -> str:
        """Make a token for everything that clients may do."""
        scopes = ("infer", "models:write", "metrics:read")
        words = [word for scope in scopes for word in ("--scope", scope)]
        done = subprocess.run(
            [COMMAND, *self._flags, "token", *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()


class Floor(Server):
    """`load.edge.floor`: the least that serves the same models."""

    def __init__(self, log: Path, *models: BenchModel) -> None:
        port = free_port()
        files = {model.name: str(model.artifact) for model in models}
        command = [sys.executable, "-m", "load.edge.floor", str(port), json.dumps(files)]
        super().__init__(command, port, log, {})


def is_ready(port: int) -> bool:
    """Ask once."""
    with contextlib.closing(socket.socket()) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect((HOST, port))
            asking.sendall(READY)
            return asking.recv(4096).startswith(b"HTTP/1.1 200")
        except OSError:
            return False
