"""A cluster of its own for tests: short home, free ports, the real `prime-spark` command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from cluster.config import Settings, load_settings
from cluster.home import Home
from cluster.ports import free_port
from edge_runtime.errors import Unavailable
from tests.contract.limits import LIMITS

COMMAND_TIMEOUT_S = 240.0
Found = TypeVar("Found")


@dataclass(frozen=True)
class TestCluster:
    """Runs commands against one home. Nothing is started by making it."""

    __test__ = False  # not a test class, whatever its name says

    home: Home
    env: Mapping[str, str]

    @property
    def settings(self) -> Settings:
        return load_settings(self.env)

    def command(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> Completed:
        """Run `prime-spark ...`; the caller looks at the exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "cluster.cli.main", *arguments],
            env=dict(self.env),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        return Completed(done.returncode, done.stdout, done.stderr)

    def must(self, *arguments: str) -> str:
        """Run a command that has to succeed; returns what it printed."""
        done = self.command(*arguments)
        assert done.code == 0, f"{arguments}: {done.code}\n{done.out}\n{done.err}"
        return done.out

    def json(self, *arguments: str) -> Any:
        return json.loads(self.must(*arguments, "--json"))

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command and leave it running.

        It may be interrupted, also where a shell started the tests in the background.
        """
        heeding = ("env", "--default-signal=INT")
        return subprocess.Popen(
            [*heeding, sys.executable, "-m", "cluster.cli.main", *arguments],
            env=dict(self.env),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def token(self, *scopes: str) -> str:
        return self.must("token", *(f"--scope={scope}" for scope in scopes)).strip()

    def http(self, *scopes: str) -> httpx.Client:
        """Return a client of the gateway with a token of these scopes (none: no token)."""
        headers = {"authorization": f"Bearer {self.token(*scopes)}"} if scopes else {}
        address = f"http://127.0.0.1:{self.settings.ports.rest}"
        return httpx.Client(base_url=address, headers=headers, timeout=30.0, trust_env=False)

    @property
    def rest(self) -> str:
        return f"127.0.0.1:{self.settings.ports.rest}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.settings.ports.grpc}"


@dataclass(frozen=True)
class Completed:
    code: int
    out: str
    err: str


@contextmanager
def own_cluster(**settings: str) -> Iterator[TestCluster]:
    """Yield a home with ports of its own; whatever was started there is ended.

    settings: variables without their prefix.
    """
    root = Path(tempfile.mkdtemp(prefix="ps-"))
    ports = {f"PRIME_SPARK_{name}": str(free_port()) for name in PORTS}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PRIME_SPARK_", "RAY_"))}
    env = {**kept, "PRIME_SPARK_HOME": str(root), **ports, **SMALL_LIMITS}
    env |= {f"PRIME_SPARK_{name}": value for name, value in settings.items()}
    cluster = TestCluster(Home.at(root), env)
    try:
        yield cluster
    finally:
        done = cluster.command("down")
        if "PRIME_SPARK_TEST_KEEP" not in os.environ:  # to read the logs of a failed run
            shutil.rmtree(root, ignore_errors=True)
        assert done.code == 0, done.err


def publish_digits(cluster: TestCluster) -> None:
    """Train the digits model and register it; the next `model serve` serves it."""
    subprocess.run(
        [sys.executable, "-m", "train.zoo.publish", "digits", "--home", str(cluster.home.root)],
        check=True,
        env=dict(cluster.env),
        stdout=subprocess.DEVNULL,
    )


# Limits that a test can reach, the same as those of the conformance suite's own server.
SMALL_LIMITS = {
    "PRIME_SPARK_LIMITS__MAX_BODY_BYTES": str(LIMITS.max_body_bytes),
    "PRIME_SPARK_LIMITS__MAX_JSON_BYTES": str(LIMITS.max_json_bytes),
    "PRIME_SPARK_LIMITS__MAX_INPUTS": str(LIMITS.max_tensors),
}
PORTS = (
    "PORTS__REST",
    "PORTS__GRPC",
    "PORTS__DASHBOARD",
    "PORTS__GCS",
    "EDGE__PORTS__REST",
    "EDGE__PORTS__GRPC",
)


def wait_until(
    found: Callable[[], Found | None], what: str, timeout_s: float = 60.0, every_s: float = 0.1
) -> Found:
    """Wait until something is found (truthy); fail with `what` when it is not in time.

    Whoever is too busy to say (`Unavailable`) is asked again.
    """
    until = time.monotonic() + timeout_s
    while True:
        with suppress(Unavailable):
            value = found()
            if value:
                return value
        assert time.monotonic() < until, f"not within {timeout_s:g} s: {what}"
        time.sleep(every_s)
