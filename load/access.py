"""Where the running gateway is and the token to call it with, for every tool that sends load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from load.http1 import connect, request_bytes
from load.oip import Payload, Rows

SEED = 5


class NoGateway(Exception):
    """There is no gateway to call, or it does not serve the model; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Access:
    """host, port: of REST; token: as `prime-spark token` prints it."""

    host: str
    port: int
    token: str = field(repr=False)

    @property
    def authority(self) -> str:
        return f"{self.host}:{self.port}"

    def headers(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the credential and whatever else is asked for."""
        return {"authorization": f"Bearer {self.token}", **(extra or {})}


def find(environment: Mapping[str, str] = os.environ) -> Access:
    """Ask `prime-spark` for the endpoint and, unless PRIME_SPARK_TOKEN holds one, for a token.

    Raises NoGateway.
    """
    endpoint = json.loads(command("status", "--json", may_fail=True) or "{}")
    if endpoint.get("state") not in ("running", "degraded"):
        raise NoGateway("no cluster runs here; start one with `prime-spark up`")
    url = urllib.parse.urlsplit(endpoint["endpoints"]["rest"])
    if url.scheme != "http" or url.hostname is None or url.port is None:
        raise NoGateway(f"these tools speak plain HTTP, and the gateway is at {url.geturl()}")
    token = environment.get("PRIME_SPARK_TOKEN") or command("token").strip()
    return Access(url.hostname, url.port, token)


def command(*words: str, may_fail: bool = False) -> str:
    """Run `prime-spark ...` and return what it printed. Raises NoGateway with its complaint."""
    done = subprocess.run(
        [sys.executable, "-m", "cluster.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and not may_fail:
        raise NoGateway(f"`prime-spark {' '.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout


async def example(access: Access, model: str, rows: int = 1) -> Payload:
    """Return an input that fits a served model's metadata: random, the same on every call.

    Raises NoGateway when the model is not served or does not take one FP32 tensor.
    """
    connection = await connect(access.host, access.port)
    try:
        path = f"/v2/models/{model}"
        response = await connection.ask(
            request_bytes("GET", path, access.authority, access.headers())
        )
    finally:
        connection.close()
    if response.status == 404:
        serve = f"prime-spark model serve {model}@production --placement cloud"
        raise NoGateway(
            f"model '{model}' is not served; `python -m train.zoo.publish {model}` makes one of "
            f"the zoo, `{serve}` serves it"
        )
    if response.status != 200:
        raise NoGateway(f"model '{model}': status {response.status}, {response.body.decode()}")
    return payload_for(model, json.loads(response.body), rows)


def payload_for(model: str, metadata: Mapping[str, Any], rows: int) -> Payload:
    """Return a random input for a model's metadata; free dimensions but the first become 1.

    Raises NoGateway when it does not take exactly one FP32 tensor.
    """
    inputs = metadata["inputs"]
    if len(inputs) != 1 or inputs[0]["datatype"] != "FP32":
        raise NoGateway(f"model '{model}' does not take one FP32 tensor")
    first, *others = inputs[0]["shape"]
    shape = [rows if first < 0 else first, *(max(1, dim) for dim in others)]
    data: Rows = np.random.default_rng(SEED).random(shape, dtype=np.float32)
    return Payload(model, inputs[0]["name"], data)
