"""The edge runtime as its users start it: `prime-spark edge run` in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import httpx

from cluster.home import Home
from cluster.ports import free_port
from edge_runtime.engine import ModelSource
from edge_runtime.packages import Incoming, PackageFolder

COMMAND: Final = str(Path(sys.executable).with_name("prime-spark"))
START_S: Final = 30.0


class EdgeProcess:
    """A runtime with a home of its own; a `with` leaves nothing of it behind.

    rest, grpc: host:port; extra: of the environment of it and of commands; prefix: a command that
    it is started by.
    """

    def __init__(self, home: Path, settings: Mapping[str, object] | None = None) -> None:
        self.home = home
        self.rest_port, self.grpc_port = free_port(), free_port()
        self.rest = f"127.0.0.1:{self.rest_port}"
        self.grpc = f"127.0.0.1:{self.grpc_port}"
        self.settings = {
            "edge.ports.rest": self.rest_port,
            "edge.ports.grpc": self.grpc_port,
            **(settings or {}),
        }
        self.packages = PackageFolder(home / "edge" / "models")
        self.log = home / "edge.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.extra: dict[str, str] = {}
        self.prefix: Sequence[str] = ()
        home.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(Home(self.home).edge_run, ignore_errors=True)

    @property
    def flags(self) -> list[str]:
        found = ["--home", str(self.home)]
        for key, value in self.settings.items():
            found += ["--set", f"{key}={json.dumps(value)}"]
        return found

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PRIME_SPARK_")}
        return {**kept, "PYTHONUNBUFFERED": "1", **self.extra}

    def install(self, source: ModelSource) -> None:
        """Put a version into the models folder."""
        files = [Incoming(v.format, v.path, v.target) for v in source.variants]
        self.packages.install(source.model, source.version, files, installed_at=time.time())

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the process and wait until it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, COMMAND, *self.flags, "edge", "run"],
                env={**self.environment, **(environment or {})},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Raise AssertionError with the log when the process is not ready in time."""
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            try:
                if self._is_ready():
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.01)
        raise AssertionError(self.log.read_text())

    def _is_ready(self) -> bool:
        route = "/v2/health/ready"
        if self.prefix:  # whose network may be another
            with unix_client(self) as client:
                return client.get(route, timeout=1).status_code == 200
        return httpx.get(f"http://{self.rest}{route}", timeout=1).status_code == 200

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `prime-spark` command with this home and these settings."""
        return subprocess.run(
            [COMMAND, *self.flags, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def must(self, *arguments: str) -> str:
        """Run a command that has to work; return what it printed."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def token(self, scopes: Sequence[str] = ("infer", "models:write", "metrics:read")) -> str:
        wanted = [word for scope in scopes for word in ("--scope", scope)]
        return self.must("token", *wanted).strip()

    def status(self) -> Any:
        """Return what `edge status --json` says."""
        return json.loads(self.must("edge", "status", "--json"))

    def lines(self) -> list[dict[str, Any]]:
        """Return the log as documents."""
        return [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]


def unix_client(process: EdgeProcess) -> httpx.Client:
    """Return a client for the Unix socket, as a caller on the same box has it."""
    where = Home(process.home).edge_run / "edge.sock"
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(where)), base_url="http://edge")
