"""The head that the box joins: `prime-spark up` with a home and ports of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cluster.home import Home
from cluster.identity.keys import ensure_signing_key
from cluster.identity.ray_token import ensure_ray_token
from cluster.identity.tokens import issue
from cluster.nodes import HEAD
from cluster.ports import free_port
from cluster.processes import belonging, kill
from cluster.state import read_state
from load.chaos.box import SITE, BoxError, run_command
from load.chaos.models import DIGITS, TARGET, Subject
from load.http1 import connect, request_bytes
from load.oip import Payload, binary_body, infer_path

PROBE_EVERY_S: Final = 0.25
PROBE_S: Final = 2.0
TOKEN_S: Final = 86_400.0
_NOTHING: Final[Mapping[str, str]] = {}
EDGE_TARGET: Final = f"edge/{SITE}"


class Head:
    """address: that the box reaches it at; prefix: what its commands begin with.

    extra: environment variables.
    """

    def __init__(
        self,
        root: Path,
        address: str,
        prefix: Sequence[str] = (),
        extra: Mapping[str, str] = _NOTHING,
    ) -> None:
        self._prefix = prefix
        self.home = Home(root / "head")
        self.rest_port, self.gcs_port = free_port(), free_port()
        self.gcs = f"{address}:{self.gcs_port}"
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PRIME_SPARK_", "RAY_"))
        }
        self.env: Mapping[str, str] = {
            **kept,
            **extra,
            "PRIME_SPARK_HOME": str(self.home.root),
            "PRIME_SPARK_EDGE__HERE": "false",
            "PRIME_SPARK_EDGE__SITE": SITE,
            "PRIME_SPARK_RAY__ADDRESS": address,
            "PRIME_SPARK_PORTS__REST": str(self.rest_port),
            "PRIME_SPARK_PORTS__GRPC": str(free_port()),
            "PRIME_SPARK_PORTS__DASHBOARD": str(free_port()),
            "PRIME_SPARK_PORTS__GCS": str(self.gcs_port),
        }

    def admit(self, box: Home) -> None:
        """Give a box what it needs to join: the cluster's token and its public keys."""
        Home.at(self.home.root)
        ensure_signing_key(self.home)
        ensure_ray_token(self.home)
        for source, target in (
            (self.home.ray_token, box.ray_token),
            (self.home.jwks, box.jwks),
        ):
            shutil.copyfile(source, target)
            target.chmod(0o600)

    def token(self) -> str:
        """Return a token for clients that ask models."""
        key = ensure_signing_key(self.home)
        return issue(key, "chaos", ["infer"], TOKEN_S, time.time(), kind="user")

    async def up(self) -> None:
        """Start it, or what is missing of it. Raises BoxError."""
        code, _ = await self.command("up")
        if code != 0:  # a busy machine: it takes down what it had started, and may be asked again
            await self.must("up")

    async def down(self) -> None:
        await self.command("down")

    async def must(self, *words: str) -> str:
        """Run a command that has to work; return what it said. Raises BoxError."""
        code, text = await self.command(*words)
        if code != 0:
            raise BoxError(f"prime-spark {' '.join(words)}: {code}: {text[-500:]}")
        return text

    async def command(self, *words: str) -> tuple[int, str]:
        return await run_command(
            [*self._prefix, sys.executable, "-m", "cluster.cli.main", *words], self.env
        )

    async def status(self) -> Any:
        """Return what `status --json` says."""
        _, text = await self.command("status", "--json")
        return json.loads(text[text.index("{") :])

    async def serve_digits(self, models: Path) -> None:
        """Put digits into the registry and on the edge and the cloud."""
        await self.must(
            *("model", "register", DIGITS, "1"),
            f"onnx={models / 'digits.onnx'}",
            f"onnx-int8={models / 'digits-int8.onnx'}",
            f"hef/{TARGET}={models / 'digits.hef'}",
        )
        await self.must("model", "serve", f"{DIGITS}@1", "--placement", "edge,cloud")

    def kill(self) -> None:
        """End the head's processes at once; the front door is left."""
        kill(belonging(self.home, read_state(self.home).sessions).get(HEAD, []))

    def is_running(self) -> bool:
        return bool(belonging(self.home, read_state(self.home).sessions))

    async def has_labels(self) -> bool:
        """Tell whether the box is there with the labels that it has to have."""
        nodes = (await self.status())["nodes"]
        return any(
            (node["name"], node["tier"], node["site"], node["state"])
            == ("edge", "edge", SITE, "alive")
            for node in nodes
        )


class Probe:
    """Asks digits of the edge tier through the gateway until it is cancelled.

    seen: (when, what): `edge`, or why not.
    """

    def __init__(self, head: Head, subject: Subject) -> None:
        self._port = head.rest_port
        self.seen: list[tuple[float, str]] = []
        payload = Payload(DIGITS, subject.input, subject.inputs[:1])
        body, header_bytes = binary_body(payload)
        self._request = request_bytes(
            "POST",
            infer_path(DIGITS),
            f"127.0.0.1:{self._port}",
            {
                "content-type": "application/octet-stream",
                "inference-header-content-length": str(header_bytes),
                "authorization": f"Bearer {head.token()}",
                "prime-spark-tier": "edge",
                "prime-spark-timeout-ms": str(round(PROBE_S * 1e3)),
            },
            body,
        )

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(PROBE_S + 0.5):
                    found = await self._ask()
            except OSError as error:
                found = type(error).__name__
            self.seen.append((time.monotonic(), found))
            await asyncio.sleep(max(0.05, PROBE_EVERY_S - (time.monotonic() - began)))

    async def _ask(self) -> str:
        connection = await connect("127.0.0.1", self._port)
        try:
            response = await connection.ask(self._request)
        finally:
            connection.close()
        if response.status != 200:
            return f"{response.status}"
        target = response.headers.get(b"prime-spark-target", b"").decode()
        return "edge" if target == EDGE_TARGET else target

    def answered_after(self, at_s: float) -> float | None:
        """Return when the edge answered first after a moment."""
        return next((at for at, found in self.seen if at > at_s and found == "edge"), None)
